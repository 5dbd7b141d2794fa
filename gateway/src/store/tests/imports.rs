//! Ledgers, held rows, and requests.

use std::collections::BTreeMap;

use super::*;
use crate::ingest::changes::{HeldRow, ImportRowMemory, RequestMemory};

pub(super) async fn a_ledger_is_remembered(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 300).await;
    let first = writer.begin_import("交警台账", CAMERA).await.unwrap();
    assert_eq!(first.generation, 1);
    assert_ne!(writer.begin_import("交警台账", CASE).await.unwrap().id, first.id);
    let row = |key: RecordKey, generation| ImportRowMemory {
        source: first.id,
        row: format!("row {key}"),
        key,
        generation,
        values: BTreeMap::from([(2, key as u64), (300, u64::MAX)]),
    };
    let brought = |rows| Changes { import_rows: rows, ..Changes::default() };
    writer.apply(&brought(keys.iter().map(|k| row(*k, 1)).collect()), &[], 1).await.unwrap();
    let second = writer.begin_import("交警台账", CAMERA).await.unwrap();
    assert_eq!((second.id, second.generation), (first.id, 2));
    assert_eq!(store.source(first.id).await.unwrap(), Some(("交警台账".into(), CAMERA)));
    let again: Vec<_> = keys.iter().filter(|k| *k % 100 != 0).map(|k| row(*k, 2)).collect();
    writer.apply(&brought(again), &[], 1).await.unwrap();

    let asked: Vec<String> = keys.iter().rev().map(|k| format!("row {k}")).chain(["new".into()]).collect();
    let known = writer.import_rows(first.id, &asked).await.unwrap();
    assert_eq!(known.last(), Some(&None));
    assert_eq!(known[0], Some(row(300, 1)));
    assert_eq!(known[1], Some(row(299, 2)));
    assert_eq!(known.iter().flatten().count(), 300);
    assert_eq!(writer.import_rows(99, &asked).await.unwrap().iter().flatten().count(), 0);

    let page = store.vanished(first.id, second.generation, "", 2).await.unwrap();
    assert_eq!(page.iter().map(|v| &*v.row).collect::<Vec<_>>(), ["row 100", "row 200"]);
    let rest = store.vanished(first.id, second.generation, "row 200", 9).await.unwrap();
    assert_eq!(
        rest.iter().map(|v| (v.key, v.name.clone())).collect::<Vec<_>>(),
        [(300, name(CAMERA, "220822101", "c00300"))]
    );
}

pub(super) async fn rows_wait_for_their_division(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let row = |key: &str, code: &str, row: &str| HeldRow {
        source: 1,
        row: Bytes::from(row.to_owned()),
        row_key: key.into(),
        division: division(code),
        reason: "unknown".into(),
        held_ms: 7,
    };
    let village = "220822101999";
    let held = vec![row("a", village, "old"), row("b", "220822101998", "b")];
    writer.apply(&Changes { held, ..Changes::default() }, &[], 1).await.unwrap();
    let held = vec![row("a", village, "new")];
    writer.apply(&Changes { held, ..Changes::default() }, &[], 1).await.unwrap();
    let all = store.held(0, 9, None).await.unwrap();
    assert_eq!(all.iter().map(|h| &h.row.row[..]).collect::<Vec<_>>(), [&b"new"[..], b"b"]);
    assert_eq!(all[0].row.division, division(village));
    assert_eq!((&*all[0].row.row_key, &*all[0].row.reason, all[0].row.held_ms), ("a", "unknown", 7));
    assert_eq!(store.held(all[0].id, 9, None).await.unwrap().len(), 1);
    assert_eq!(store.held(0, 9, Some(division(village))).await.unwrap().len(), 1);
    assert_eq!(store.counts().await.unwrap().held, 2);
    let released = Changes { released_rows: vec![all[0].id], ..Changes::default() };
    writer.apply(&released, &[], 1).await.unwrap();
    assert_eq!(store.held(0, 9, None).await.unwrap()[0].id, all[1].id);
}

pub(super) async fn answers_are_remembered_for_a_while(place: &impl Place) {
    const DAY_MS: u64 = 24 * 3_600_000;
    let (store, mut writer) = place.opened().await;
    let answered = |id: &str, key, done_ms| {
        let request = RequestMemory { request_id: id.into(), content: u64::MAX - done_ms, key, done_ms };
        Changes { requests: vec![request], ..Changes::default() }
    };
    writer.apply(&answered("one", 4, DAY_MS), &[], DAY_MS).await.unwrap();
    let found = store.request("one").await.unwrap().unwrap();
    assert_eq!((found.content, found.key, found.done_ms), (u64::MAX - DAY_MS, 4, DAY_MS));
    assert!(store.request("two").await.unwrap().is_none());
    writer.apply(&answered("two", 5, 8 * DAY_MS), &[], 8 * DAY_MS).await.unwrap();
    assert!(store.request("one").await.unwrap().is_some(), "seven days old");
    writer.apply(&answered("two", 6, 9 * DAY_MS), &[], 9 * DAY_MS).await.unwrap();
    assert!(store.request("one").await.unwrap().is_none());
    assert_eq!(store.request("two").await.unwrap().unwrap().key, 6);
}
