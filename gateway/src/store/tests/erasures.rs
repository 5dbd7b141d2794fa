//! What a store forgets when content is erased.

use std::collections::BTreeMap;

use guantong_proto::v1;
use prost::Message;

use super::quarantine::refused;
use super::*;
use crate::audit::{self, Beside, Copied, Event, Purged, Span};
use crate::ingest::changes::{
    ErasedContent, HeldRow, ImportRowMemory, LinkChange, RequestMemory, Resolution,
};
use crate::record::{Entry, Record, Register, codec, raw};
use crate::stamp::{Stamp, Writer as WriterId};

const FIELD: u32 = 9;

fn value(text: &str) -> Bytes {
    let mut value = Vec::new();
    raw::put_message(&mut value, raw::message_tag(FIELD), text.as_bytes());
    value.into()
}

/// A record with one field: who wrote what when, in milliseconds.
fn field(values: &[(u64, u64, &str)]) -> Bytes {
    let entry = |(id, at_ms, text): &(u64, u64, &str)| {
        let writer = WriterId { division: division("220822"), id: *id };
        Entry::new(writer, Stamp::from_ms(*at_ms), Some(value(text)))
    };
    let mut record = Record::default();
    record.set(FIELD, Register::from_entries(values.iter().map(entry)));
    codec::encode(&record)
}

fn erased(key: RecordKey, id: &str) -> Changes {
    let name = name(CAMERA, "220822101", id);
    let event = Event::Erased {
        record: id.into(),
        fields: vec![FIELD],
        values: 6,
        by: String::new(),
        reason: String::new(),
        beside: Beside::default(),
    };
    let erased = vec![ErasedContent { key, name, fields: vec![(FIELD, Stamp::from_ms(5))], event }];
    Changes { erased, ..Changes::default() }
}

pub(super) async fn what_is_remembered_beside_a_record_goes_with_its_content(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3).await;
    let ledger = writer.begin_import("ledger", CAMERA).await.unwrap().id;
    let resolution = |key, before, after| Resolution { key, field: FIELD, before, after, resolved_ms: 7 };
    let row = |key: RecordKey| ImportRowMemory {
        source: ledger,
        row: format!("row {key}"),
        key,
        generation: 1,
        values: BTreeMap::from([(FIELD, 77), (3, 1)]),
    };
    let kept = [raw::message_tag(3) as u8, 1, b'k'];
    let held = |id: &str| {
        let row = v1::ImportRow {
            key: id.into(),
            home: "220822101000".into(),
            fields: [&kept[..], &value("held secret")].concat().into(),
            ..Default::default()
        };
        HeldRow {
            source: ledger,
            row: row.encode_to_vec().into(),
            row_key: id.into(),
            division: division("220822101999"),
            reason: "unknown".into(),
            held_ms: 1,
        }
    };
    let request = |id: &str, key| RequestMemory { request_id: id.into(), content: 7, key, done_ms: 1 };
    let changes = Changes {
        resolutions: vec![
            resolution(1, field(&[(1, 3, "old"), (2, 4, "older")]), field(&[(1, 5, "kept until 5")])),
            resolution(1, field(&[(1, 4, "old"), (2, 6, "later")]), field(&[(1, 7, "later too")])),
            resolution(2, field(&[(1, 3, "another record")]), field(&[(1, 5, "another")])),
        ],
        import_rows: vec![row(1), row(2)],
        held: vec![held("c00001"), held("c00002")],
        requests: vec![request("a", 1), request("b", 2)],
        ..Changes::default()
    };
    let refused = vec![refused(1, FIELD, None), refused(1, 3, None), refused(2, FIELD, None)];
    let links = [LinkChange::Delivered { peer: PeerId(1), seqs: vec![], keys: vec![], refused }];
    writer.apply(&changes, &links, 1).await.unwrap();
    assert!(!writer.is_unscrubbed().await.unwrap());
    writer.apply(&erased(1, "c00001"), &[], 9).await.unwrap();

    let left = store.resolutions(None, None, 9).await.unwrap();
    assert_eq!(left.iter().map(|row| row.key).collect::<Vec<_>>(), [2, 1], "one said nothing else");
    let before = codec::decode(left[1].before.clone()).unwrap();
    let live: Vec<_> = before.get(FIELD).unwrap().live().map(|(_, value)| value.clone()).collect();
    assert_eq!(live, [value("later")]);
    let rows = writer.import_rows(ledger, &["row 1".into(), "row 2".into()]).await.unwrap();
    let hashes = |at: usize| rows[at].as_ref().unwrap().values.clone();
    assert_eq!((hashes(0), hashes(1).len()), (BTreeMap::from([(3, 1)]), 2));
    let held = store.held(0, 9, None).await.unwrap();
    let fields = |at: usize| v1::ImportRow::decode(held[at].row.row.clone()).unwrap().fields;
    assert_eq!((&fields(0)[..], fields(1).len() > 3), (&kept[..], true));
    let refused = store.quarantine(None, 9).await.unwrap();
    assert_eq!(refused.iter().map(|r| (r.key, r.refused.field)).collect::<Vec<_>>(), [(1, 3), (2, FIELD)]);
    assert_eq!(store.request("a").await.unwrap().unwrap().content, 0, "a repeat of it is refused");
    assert_eq!(store.request("b").await.unwrap().unwrap().content, 7);

    let lines = store.audit_erased("c00001", 9).await.unwrap();
    let purged = audit::purged(lines.iter().map(String::as_str), "c00001");
    let beside = Beside { history: 2, ledger_cells: 1, held_cells: 1, refusals: 1 };
    assert_eq!(purged, Purged { values: 6, beside, last_ms: Some(9) });
    assert!(store.audit_erased("c0000", 9).await.unwrap().is_empty(), "another record");

    assert!(writer.is_unscrubbed().await.unwrap() && store.is_clearing().await.unwrap());
    assert!(writer.scrub(true).await.unwrap());
    assert!(!writer.is_unscrubbed().await.unwrap() && !store.is_clearing().await.unwrap());
    drop((store, writer));
    let everything = place.dump().await.join("\n");
    assert!(!everything.contains("held secret") || everything.matches("held secret").count() == 1);
}

pub(super) async fn copies_are_found_in_the_log_with_how_many_from_when_to_when(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let backup = |outcome| Event::Command {
        command: "BackupService.CreateBackup".into(),
        by: "local user 0".into(),
        outcome,
    };
    let bundle = |bundle| Event::BundleMade {
        peer: division("2208"),
        bundle,
        records: 1,
        receipts: 0,
        checksum: String::new(),
    };
    let other = Event::Command { command: "GrantService.UpdateGrant".into(), by: "x".into(), outcome: "ok" };
    for (at_ms, event) in [
        (10, backup("ok")),
        (20, backup("permission_denied")),
        (25, other),
        (30, bundle(1)),
        (40, backup("ok")),
        (50, bundle(2)),
        (60, Event::StorePutBack { by: "local user 0".into() }),
    ] {
        // More than are read at a time.
        let audit = (0..300).map(|_| event.clone().into()).collect();
        writer.apply(&Changes { audit, ..Changes::default() }, &[], at_ms).await.unwrap();
    }
    let span = |count, first_ms, last_ms| Span { count, first_ms, last_ms };
    let bundles = (Copied::Bundle(division("2208")), span(600, 30, 50));
    let all = store.audit_copies(u64::MAX).await.unwrap();
    let former = (Copied::FormerStore, span(300, 60, 60));
    assert_eq!(all, BTreeMap::from([(Copied::Backup, span(600, 10, 40)), former, bundles]));
    let earlier = store.audit_copies(30).await.unwrap();
    let bundles = (Copied::Bundle(division("2208")), span(300, 30, 30));
    assert_eq!(earlier, BTreeMap::from([(Copied::Backup, span(300, 10, 10)), bundles]));
}
