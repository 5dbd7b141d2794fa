//! Copies of a SQLite store in use, what is put in its place, and what is read out of a damaged one.

use std::io::{Read, Write as _};
use std::path::PathBuf;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::*;
use crate::store::migrations::STEPS;
use crate::store::sqlite::APPLICATION_ID;
use crate::store::{Damaged, Restoring};

fn bytes_of(mut file: std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn names(place: &SqlitePlace) -> Vec<String> {
    let folder = place.path().parent().unwrap().to_owned();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// Puts bytes in the place of the store.
async fn put_back(place: &SqlitePlace, own: &str, bytes: &[u8]) -> Result<Option<PathBuf>, StoreError> {
    let restoring = Restoring::begin(place.path().to_str().unwrap(), division(own), bytes.len() as u64)?;
    restoring.file()?.write_all(bytes).unwrap();
    restoring.finish("nobody", 7).await.map(|restored| restored.former)
}

#[tokio::test]
async fn a_copy_is_of_one_moment_and_leaves_nothing_behind() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3_000).await;
    let mut last = None;
    let copied = {
        let said = std::sync::Mutex::new(&mut last);
        store.copy(|copying| **said.lock().unwrap() = Some(copying)).await.unwrap()
    };
    assert!(last.is_some_and(|said| said.checking && said.copied == copied.bytes), "{last:?}");
    assert_eq!((copied.records, copied.format), (3_000, crate::store::FORMAT));
    assert_eq!(copied.meta, store.meta().await.unwrap());
    assert!(!names(&place).iter().any(|name| name.contains("copy")), "{:?}", names(&place));
    // What is written now is not in it.
    cameras(&mut writer, 10).await;
    let bytes = bytes_of(copied.file);
    assert_eq!(bytes.len() as u64, copied.bytes);
    drop((store, writer));
    let former = put_back(&place, "220822", &bytes).await.unwrap().unwrap();
    let (store, _writer) = place.opened().await;
    assert_eq!(store.counts().await.unwrap().records, 3_000);
    assert_eq!(store.lineage().await.unwrap().put_back_ms, Some(7));
    assert!(former.exists());
}

#[tokio::test]
async fn one_copy_is_made_at_a_time_and_one_that_nobody_wants_goes() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3_000).await;
    {
        let one = store.copy(|_| ());
        tokio::pin!(one);
        // Begun, and not done.
        let begun = std::future::poll_fn(|context| std::task::Poll::Ready(one.as_mut().poll(context))).await;
        assert!(begun.is_pending());
        assert_eq!(store.copy(|_| ()).await.unwrap_err(), StoreError::CopyRuns);
    }
    assert!(!names(&place).iter().any(|name| name.contains("copy")), "{:?}", names(&place));
    cameras(&mut writer, 1).await;
    assert_eq!(store.copy(|_| ()).await.unwrap().records, 3_001);
}

#[tokio::test]
async fn only_a_whole_store_of_the_division_is_put_in_its_place() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 500).await;
    let bytes = bytes_of(store.copy(|_| ()).await.unwrap().file);
    let running = put_back(&place, "220822", &bytes).await;
    assert!(matches!(running, Err(StoreError::InUse(_))), "{running:?}");
    store.close().await;
    writer.close().await.unwrap();
    drop(store);
    let (before, files) = (place.dump().await, names(&place));
    let other = put_back(&place, "220881", &bytes).await.unwrap_err();
    assert!(matches!(other, StoreError::OtherDivision { .. }), "{other}");
    let half = put_back(&place, "220822", &bytes[..bytes.len() / 2]).await.unwrap_err();
    assert!(matches!(half, StoreError::Damaged(_) | StoreError::Corrupt(_)), "{half}");
    let mut newer = bytes.clone();
    newer[60..64].copy_from_slice(&999_i32.to_be_bytes());
    let newer = put_back(&place, "220822", &newer).await.unwrap_err();
    assert!(matches!(newer, StoreError::NewerSchema { found: 999, .. }), "{newer}");
    for nothing in [&b""[..], b"these are notes"] {
        let refused = put_back(&place, "220822", nothing).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotOurs(_)), "{refused}");
    }
    assert_eq!((place.dump().await, names(&place)), (before, files), "nothing has happened");
    let too_large =
        Restoring::begin(place.path().to_str().unwrap(), division("220822"), 1 << 60).unwrap_err();
    assert!(matches!(too_large, StoreError::NoRoom { .. }), "{too_large}");
}

/// A store as a former program made it, which knew `format` steps.
async fn of_former_format(format: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("former.db");
    let mut conn =
        SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    let steps = STEPS.iter().take(format).map(|step| step.sqlite);
    let header = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {format};");
    let node = "INSERT INTO node (slot, division, epoch, created_ms, revision, records, sequence)
        VALUES (0, 220822000000, 5, 6, 7, 0, 0);";
    for script in steps.chain([header.as_str(), node]) {
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_copy_of_any_former_format_is_put_back() {
    for format in 1..STEPS.len() {
        let place = SqlitePlace::new();
        drop(place.opened().await);
        let bytes = of_former_format(format).await;
        put_back(&place, "220822", &bytes).await.unwrap_or_else(|error| panic!("format {format}: {error}"));
        let (store, _writer) = place.opened().await;
        let (meta, lineage) = (store.meta().await.unwrap(), store.lineage().await.unwrap());
        assert_eq!((meta.epoch, meta.revision, lineage.put_back_ms), (5, 7, Some(7)), "format {format}");
    }
}

/// A store of many records, one page in the middle of which is not what it was.
async fn damaged_in_the_middle(place: &SqlitePlace) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 5_000).await;
    let owed = owing(vec![group(1, Lane::Bulk, 1..=10)]);
    writer.apply(&owed, &[], 1).await.unwrap();
    store.close().await;
    writer.close().await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(place.path()).unwrap();
    // A leaf of the records: their ids stand on it as text.
    let page = bytes.chunks(4096).position(|page| {
        let holds = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
        holds(b"c02500") && holds(b"at 1")
    });
    let at = page.unwrap() * 4096;
    bytes[at..at + 100].fill(0xff);
    std::fs::write(place.path(), bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_read_around_what_cannot_be_read() {
    let place = SqlitePlace::new();
    damaged_in_the_middle(&place).await;
    let before = std::fs::read(place.path()).unwrap();
    let location = place.path().to_str().unwrap().to_owned();
    let mut damaged = Damaged::open(&location, division("220822"), false).await.unwrap();
    assert!(!damaged.damage().is_empty());
    let owed = damaged.undelivered().await.unwrap();
    assert_eq!(owed, (1..=10).collect());
    let mut read = Vec::new();
    while let Some(page) = damaged.records().await {
        read.extend(page.into_iter().map(|stored| stored.key));
    }
    assert!(read.is_sorted_by(|a, b| a < b), "in their order, each once");
    assert_eq!(damaged.gaps(), 1);
    assert!(read.len() > 4_800 && read.len() < 5_000, "all but one page: {}", read.len());
    assert!(read.contains(&1) && read.contains(&5_000) && !read.contains(&2_500));
    let (store, writer) = damaged.another(|| 3, 9).await.unwrap();
    writer.close().await.unwrap();
    store.close().await;
    drop(store);
    let former = damaged.replace().await.unwrap().unwrap();
    assert_eq!(std::fs::read(former).unwrap(), before);
    let (store, _writer) = place.opened().await;
    assert_eq!(store.counts().await.unwrap().records, 0);
}

#[tokio::test]
async fn a_sound_store_is_set_aside_only_if_that_is_said() {
    let place = SqlitePlace::new();
    drop(place.opened().await);
    let location = place.path().to_str().unwrap().to_owned();
    let refused = Damaged::open(&location, division("220822"), false).await.unwrap_err();
    assert_eq!(refused, StoreError::Sound);
    let other = Damaged::open(&location, division("220881"), true).await.unwrap_err();
    assert!(matches!(other, StoreError::OtherDivision { .. }), "{other}");
    assert_eq!(Damaged::open(&location, division("220822"), true).await.unwrap().damage(), "no damage");
}
