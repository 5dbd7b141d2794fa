//! Opening: whose store it is, and what is not one.

use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions, Connection};

use super::*;

pub(super) async fn a_store_is_opened_again_as_it_was(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let meta = store.meta().await.unwrap();
    assert_eq!(
        (meta.division, meta.epoch, meta.created_ms, meta.revision),
        (division("220822"), 42, 1_000, 0)
    );
    cameras(&mut writer, 3).await;
    writer.shrink().await.unwrap();
    store.close().await;
    writer.close().await.unwrap();
    assert!(store.counts().await.is_err(), "closed");
    drop(store);
    let (store, _writer) = place.opened().await;
    assert_eq!(store.meta().await.unwrap(), crate::store::Meta { revision: 1, ..meta });
    assert_eq!(store.counts().await.unwrap().records, 3);
    assert!(store.counts().await.unwrap().store_bytes > 4096);
}

pub(super) async fn only_its_own_division_opens_a_store(place: &impl Place) {
    drop(place.opened().await);
    let before = place.dump().await;
    let other = place.open_as(division("220881")).await.err();
    let expected = StoreError::OtherDivision { stored: division("220822"), own: division("220881") };
    assert_eq!(other, Some(expected.clone()));
    assert!(expected.is_fatal() && expected.to_string().contains("220822000000"));
    assert_eq!(place.dump().await, before);
}

pub(super) async fn one_process_has_a_store(place: &impl Place) {
    let (store, writer) = place.opened().await;
    assert!(matches!(place.open(fast()).await, Err(StoreError::InUse(_))));
    drop(store);
    assert!(matches!(place.open(fast()).await, Err(StoreError::InUse(_))), "as long as anyone uses it");
    drop(writer);
    place.open(fast()).await.unwrap();
}

async fn open_file(path: &Path) -> Result<(Store, Writer), StoreError> {
    Store::open(path.to_str().unwrap(), division("220822"), || 1, 1, fast()).await
}

#[tokio::test]
async fn another_programs_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "these are notes, and not few of them: ".repeat(100)).unwrap();
    let database = folder.path().join("other.db");
    let make = async |path: &Path, script: &'static str| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        sqlx::raw_sql(script).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    };
    make(&database, "CREATE TABLE t (a); INSERT INTO t VALUES (1)").await;
    let marked = folder.path().join("marked.db");
    make(&marked, "PRAGMA application_id = 77; CREATE TABLE t (a)").await;
    for path in [text, database, marked] {
        let before = std::fs::read(&path).unwrap();
        let refused = open_file(&path).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::NotOurs(named) if named.contains(path.to_str().unwrap())),
            "{refused}"
        );
        assert!(refused.is_fatal());
        assert_eq!(std::fs::read(&path).unwrap(), before, "not a byte of it is changed");
    }
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let place = SqlitePlace::new();
    drop(place.opened().await);
    let mut conn =
        super::super::sqlite::reading(&place.path()).pragma("query_only", "OFF").connect().await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let refused = place.open(fast()).await.unwrap_err();
    assert_eq!(refused, StoreError::NewerSchema { found: 99, known: crate::store::migrations::KNOWN });
}

#[tokio::test]
async fn a_damaged_store_is_said_to_be_damaged() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 2_000).await;
    store.close().await;
    writer.close().await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(place.path()).unwrap();
    bytes[8_192..].fill(0xa5);
    std::fs::write(place.path(), bytes).unwrap();
    let outcome = match place.open(fast()).await {
        Ok((store, mut writer)) => {
            let read = store.scan(0, 5_000).await.map(|_| ());
            read.and(writer.apply(&with_records(vec![]), &[], 1).await.map(|_| ()))
        }
        Err(error) => Err(error),
    };
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)) && error.is_fatal(), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_a_store() {
    use std::os::unix::fs::PermissionsExt;
    let place = SqlitePlace::new();
    let (_store, mut writer) = place.opened().await;
    cameras(&mut writer, 1).await;
    let folder = place.path().parent().unwrap().to_owned();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
