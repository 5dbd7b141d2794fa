//! Whole or not at all: failures at any statement, dropped transactions, a full disk, a power loss.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use super::peers::peer;
use super::places::dump_file;
use super::quarantine::refused;
use super::*;
use crate::aggregate::{Cell, TallyChange};
use crate::audit::Event;
use crate::facet::{Facet, FacetValue};
use crate::ingest::changes::{
    ErasedContent, FacetRow, HeldRow, ImportRowMemory, Lineage, LinkChange, RequestMemory, Resolution,
    SumChange,
};
use crate::ingest::topology::Role;
use crate::ingest::writers::NewWriter;
use crate::stamp::{Stamp, Writer as WriterId};

/// What the transaction of `everything` finds.
async fn prepare(writer: &mut Writer) {
    cameras(writer, 20).await;
    let source = writer.begin_import("ledger", CAMERA).await.unwrap();
    assert_eq!(source.id, 1);
    let held = vec![HeldRow {
        source: 1,
        row: Bytes::from("row"),
        row_key: "old".into(),
        division: division("220822101999"),
        reason: "unknown".into(),
        held_ms: 3,
    }];
    let earlier = Changes {
        held,
        purges: vec![7],
        ..owing(vec![group(1, Lane::Bulk, 1..=9), group(2, Lane::Bulk, [1])])
    };
    let refused = vec![refused(1, 2, Some(5)), refused(3, 2, None)];
    let links = [
        LinkChange::Peer(peer(1, Role::Parent, "2208")),
        LinkChange::Peer(peer(2, Role::Child, "220822101")),
        LinkChange::Delivered { peer: PeerId(1), seqs: vec![], keys: vec![], refused },
    ];
    writer.apply(&earlier, &links, 3).await.unwrap();
}

/// One of everything that a transaction can hold.
fn everything() -> (Changes, Vec<LinkChange>) {
    let us = WriterId { division: division("220822"), id: 5 };
    let changed = RecordChange {
        conflicts: Some(vec![2, 9]),
        audience_added: vec![division("220822102")],
        ..change(4, name(CAMERA, "220822101", "c00004"), 1)
    };
    let found_by = |value| {
        let value = FacetValue { facet: Facet::State.number(CASE), value };
        FacetRow { value, home: division("220822101"), key: 4 }
    };
    let changes = Changes {
        facets_added: vec![found_by(2)],
        facets_removed: vec![found_by(1)],
        records: vec![change(21, name(CASE, "220822", "new"), 0), changed],
        outbox: vec![group(1, Lane::Urgent, [4, 21]), group(2, Lane::Normal, [4])],
        tallies: vec![TallyChange {
            cell: Cell { division: division("220822"), period: 202_610 },
            restates: true,
            adds: vec![(1, 1)],
        }],
        sums: vec![SumChange {
            peer: PeerId(2),
            home: division("220822101"),
            kind: CAMERA,
            sums: vec![(9, crate::proof::Sum(u128::MAX))],
        }],
        clocks: vec![(us, Stamp::from_ms(9))],
        resolutions: vec![Resolution {
            key: 4,
            field: 9,
            before: Bytes::from("b"),
            after: Bytes::from("a"),
            resolved_ms: 9,
        }],
        import_rows: vec![ImportRowMemory {
            source: 1,
            row: "r".into(),
            key: 4,
            generation: 1,
            values: BTreeMap::from([(2, 7)]),
        }],
        held: vec![HeldRow {
            source: 1,
            row: Bytes::from("row"),
            row_key: "new".into(),
            division: division("220822101998"),
            reason: "unknown".into(),
            held_ms: 9,
        }],
        released_rows: vec![1],
        requests: vec![RequestMemory { request_id: "q".into(), content: 1, key: 4, done_ms: 9 }],
        purges: vec![4],
        purged: vec![7],
        erased: vec![ErasedContent {
            key: 4,
            name: name(CAMERA, "220822101", "c00004"),
            fields: vec![(2, Stamp::from_ms(9))],
            event: Event::Stopped,
        }],
        divisions: vec![],
        thresholds: vec![],
        audit: vec![Event::Stopped.into(), Event::Lost { entries: 2 }.into()],
    };
    let refusals = vec![refused(2, 3, Some(70))];
    let links = vec![
        LinkChange::NewWriter(NewWriter { writer: us, purpose: String::new() }),
        LinkChange::GiveUp(WriterId { division: division("220822"), id: 6 }),
        LinkChange::NewEpoch { epoch: 99, at_ms: 6 },
        LinkChange::Lineage(Lineage { timeline: Some(3), place: Some(4) }),
        LinkChange::Recovery(super::recovery::ended()),
        LinkChange::ForgetSums(PeerId(1)),
        LinkChange::ForgetJudgements,
        LinkChange::Learned([7; 16]),
        LinkChange::Peer(peer(3, Role::Child, "220822102")),
        LinkChange::Seen { peer: PeerId(1), revision: 8 },
        LinkChange::TokenConfirmed(PeerId(2)),
        LinkChange::Delivered { peer: PeerId(1), seqs: vec![1], keys: vec![], refused: refusals },
        LinkChange::Backfill { peer: PeerId(3), scope: Some(division("220822102")), subtree_kinds: vec![9] },
        LinkChange::Backfill { peer: PeerId(2), scope: None, subtree_kinds: vec![] },
        LinkChange::Backfill { peer: PeerId(2), scope: None, subtree_kinds: vec![] },
        LinkChange::Backfill { peer: PeerId(2), scope: None, subtree_kinds: vec![] },
        LinkChange::RetryQuarantine { peer: PeerId(1), due_ms: None },
        LinkChange::CompactOutbox(PeerId(2)),
    ];
    (changes, links)
}

pub(super) async fn a_failure_at_any_statement_changes_nothing(place: &impl Place) {
    let fail_at = Arc::new(AtomicI64::new(0));
    let (store, mut writer) = place.open(failing(&fail_at)).await.unwrap();
    prepare(&mut writer).await;
    drop((store, writer));
    let before = place.dump().await;
    let (changes, links) = everything();
    let mut failures = 0;
    for nth in 1.. {
        let (store, mut writer) = place.open(failing(&fail_at)).await.unwrap();
        fail_at.store(nth, Ordering::Relaxed);
        let outcome = writer.apply(&changes, &links, 9).await;
        if outcome.is_ok() {
            break;
        }
        assert_eq!(outcome, Err(StoreError::Injected));
        assert_eq!(place.dump().await, before, "statement {nth}, while the store is open");
        assert_eq!(store.counts().await.unwrap().records, 20);
        drop((store, writer));
        assert_eq!(place.dump().await, before, "statement {nth}, after it is opened again");
        failures += 1;
    }
    assert!(failures > 30, "{failures}");
    let whole = place.dump().await;
    assert_ne!(whole, before);

    let elsewhere = place.another().await;
    let (store, mut writer) = elsewhere.opened().await;
    prepare(&mut writer).await;
    writer.apply(&changes, &links, 9).await.unwrap();
    assert_eq!(elsewhere.dump().await, whole, "what failed before left no trace in what succeeded");
    drop(store);
}

/// Whoever waits for a transaction may be dropped at any point: the writer stays usable, and the transaction is whole or
/// not there.
pub(super) async fn a_dropped_transaction_is_whole_or_not_at_all(place: &impl Place) {
    const TRIES: usize = 50;
    let mut dropped = dropped_after_each_statement(place).await;
    // On a busy machine all of it may be done before this thread comes back to drop it.
    for _ in 1..TRIES {
        if dropped > 0 {
            break;
        }
        dropped = dropped_after_each_statement(&place.another().await).await;
    }
    assert!(dropped > 0, "it was always done before it could be dropped");
}

/// How often a transaction was dropped with nothing of it left, until all of it was there.
async fn dropped_after_each_statement(place: &impl Place) -> usize {
    let countdown = Arc::new(AtomicI64::new(0));
    let (store, mut writer) = place.open(failing(&countdown)).await.unwrap();
    prepare(&mut writer).await;
    let (changes, links) = everything();
    let kept = |row: &String| !row.starts_with("node:") && !row.starts_with("shared:");
    // Without what the store says of itself, which the transaction in between changes.
    let rest = async || -> Vec<String> { place.dump().await.into_iter().filter(kept).collect() };
    let before = rest().await;
    let mut dropped = 0;
    for statements in 1.. {
        const START: i64 = 1 << 40;
        countdown.store(START, Ordering::Relaxed);
        let mut apply = Box::pin(writer.apply(&changes, &links, 9));
        let mut done = false;
        while !done && countdown.load(Ordering::Relaxed) > START - statements {
            done = apply.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            tokio::task::yield_now().await;
        }
        drop(apply);
        // Waits until what was dropped has been undone, or was committed after all.
        writer.settle().await.unwrap();
        writer.decide_from(store.view().await.unwrap());
        writer.apply(&Changes::default(), &[LinkChange::NewEpoch { epoch: 42, at_ms: 9 }], 9).await.unwrap();
        if rest().await != before {
            break;
        }
        assert!(!done);
        dropped += 1;
    }
    let elsewhere = place.another().await;
    let (_, mut writer) = elsewhere.opened().await;
    prepare(&mut writer).await;
    writer.apply(&changes, &links, 9).await.unwrap();
    let whole: Vec<String> = elsewhere.dump().await.into_iter().filter(kept).collect();
    assert_eq!(rest().await, whole);
    dropped
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 200).await;
    drop((store, writer));
    let pages = std::fs::metadata(place.path()).unwrap().len() / 4096;
    let limited = Options { max_page_count: Some(pages as u32 + 30), ..fast() };
    let (store, mut writer) = place.open(limited).await.unwrap();
    let large = |key: i64| {
        let state = Bytes::from(vec![key as u8; 20_000]);
        with_records(vec![RecordChange {
            state,
            ..change(key, name(CAMERA, "220822101", &format!("big{key}")), 0)
        }])
    };
    let mut before = place.dump().await;
    let mut keys = 1_000..;
    let (key, full) = loop {
        let key = keys.next().unwrap();
        match writer.apply(&large(key), &[], 1).await {
            Ok(_) => before = place.dump().await,
            Err(error) => break (key, error),
        }
    };
    assert_eq!(full, StoreError::Full);
    assert!(!full.is_fatal());
    assert_eq!(place.dump().await, before);
    assert_eq!(writer.apply(&large(key), &[], 1).await, Err(StoreError::Full), "as long as it is full");
    assert_eq!(writer.load_keys(&[1]).await.unwrap().len(), 1, "it is still read");
    drop((store, writer));
    let (_store, mut writer) = place.opened().await;
    writer.apply(&large(key), &[], 1).await.unwrap();
}

/// What is on the disk at any moment is a store that holds every transaction that was answered; a log that is cut
/// anywhere gives one that holds the first so many of them.
#[tokio::test]
async fn a_power_loss_loses_nothing_that_was_answered() {
    let place = SqlitePlace::new();
    let (store, mut writer) = place.open(Options::default()).await.unwrap();
    let log = place.path().with_file_name("node.db-wal");
    let mut states = vec![place.dump().await];
    let mut lengths = vec![std::fs::metadata(&log).unwrap().len()];
    for _ in 0..6 {
        cameras(&mut writer, 30).await;
        states.push(place.dump().await);
        lengths.push(std::fs::metadata(&log).unwrap().len());
    }
    let (end, step) = (*lengths.last().unwrap(), 1_021);
    for cut in (0..).map(|i| lengths[0] + i * step).take_while(|cut| *cut < end).chain([end]) {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("node.db");
        std::fs::copy(place.path(), &path).unwrap();
        std::fs::copy(&log, copy.path().join("node.db-wal")).unwrap();
        let file = std::fs::File::options().write(true).open(copy.path().join("node.db-wal")).unwrap();
        file.set_len(cut).unwrap();
        let (opened, _) =
            Store::open(path.to_str().unwrap(), division("220822"), || 1, 1, Options::default())
                .await
                .unwrap();
        let answered = lengths.iter().filter(|length| **length <= cut).count();
        let found = dump_file(&path).await;
        assert_eq!(found, states[answered - 1], "cut at {cut}");
        opened.close().await;
    }
    drop((store, writer));
}
