//! What peers are owed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::ingest::changes::LinkChange;
use crate::store::outbox::ROW_KEYS_MAX;

pub(super) fn received(peer: i64, seqs: Vec<i64>) -> LinkChange {
    LinkChange::Delivered { peer: PeerId(peer), seqs, keys: vec![], refused: vec![] }
}

/// All that a peer is owed in a lane.
pub(super) async fn owed_keys(store: &Store, peer: i64, lane: Lane) -> Vec<RecordKey> {
    let owed = store.owed(PeerId(peer), lane, &[], usize::MAX).await.unwrap();
    owed.rows.into_iter().flat_map(|row| row.keys).collect()
}

pub(super) async fn what_is_owed_is_read_in_order_and_goes_with_its_receipt(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 10).await;
    let traced =
        OutboxGroup { traceparent: Some("00-1".into()), fresh: true, ..group(1, Lane::Bulk, [1, 2, 3]) };
    writer
        .apply(&owing(vec![traced, group(1, Lane::Urgent, [2]), group(2, Lane::Bulk, [9])]), &[], 70)
        .await
        .unwrap();
    writer.apply(&owing(vec![group(1, Lane::Bulk, [3, 5, 10])]), &[], 80).await.unwrap();
    assert_eq!(keys.len(), 10);

    let owed = store.owed(PeerId(1), Lane::Bulk, &[], 100).await.unwrap();
    assert_eq!(owed.rows.iter().map(|r| &r.keys[..]).collect::<Vec<_>>(), [&[1, 2, 3][..], &[3, 5, 10]]);
    assert_eq!(owed.records.iter().map(|r| r.key).collect::<Vec<_>>(), [1, 2, 3, 5, 10]);
    assert_eq!(owed.record(5).unwrap().name, name(CAMERA, "220822101", "c00005"));
    let (first, second) = (&owed.rows[0], &owed.rows[1]);
    assert_eq!((first.traceparent.as_deref(), first.fresh, first.written_ms), (Some("00-1"), true, 70));
    assert_eq!((second.traceparent.as_deref(), second.fresh, second.written_ms), (None, false, 80));
    assert_eq!(store.owed(PeerId(1), Lane::Bulk, &[first.seq], 100).await.unwrap().rows, owed.rows[1..]);
    assert_eq!(
        store.owed(PeerId(1), Lane::Bulk, &[], 1).await.unwrap().rows,
        owed.rows[..1],
        "one row always"
    );
    assert!(store.owed(PeerId(1), Lane::Normal, &[], 100).await.unwrap().rows.is_empty());
    let backlog = store.backlog(PeerId(1)).await.unwrap();
    assert_eq!((backlog.urgent.count, backlog.normal.count, backlog.bulk.count), (1, 0, 6));
    assert_eq!((backlog.bulk.oldest_ms, backlog.normal.oldest_ms), (Some(70), None));

    let (gone, left) = (first.seq, second.clone());
    let of_another = received(2, vec![left.seq]);
    let links = [received(1, vec![gone]), received(1, vec![gone, 12_345]), of_another];
    writer.apply(&Changes::default(), &links, 90).await.unwrap();
    assert_eq!(store.owed(PeerId(1), Lane::Bulk, &[], 100).await.unwrap().rows, [left]);
    let backlog = store.backlog(PeerId(1)).await.unwrap();
    assert_eq!((backlog.bulk.count, backlog.bulk.oldest_ms), (3, Some(80)));
    assert_eq!(owed_keys(&store, 2, Lane::Bulk).await, [9]);
}

pub(super) async fn outbox_numbers_are_used_once(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 1).await;
    let mut last = 0;
    for _ in 0..3 {
        writer.apply(&owing(vec![group(1, Lane::Bulk, [1])]), &[], 1).await.unwrap();
        let seq = store.owed(PeerId(1), Lane::Bulk, &[], 9).await.unwrap().rows[0].seq;
        assert!(seq > last);
        last = seq;
        writer.apply(&Changes::default(), &[received(1, vec![seq])], 1).await.unwrap();
    }
    store.close().await;
    writer.close().await.unwrap();
    drop(store);
    let (store, mut writer) = place.opened().await;
    writer.apply(&owing(vec![group(1, Lane::Bulk, [1])]), &[], 1).await.unwrap();
    assert!(store.owed(PeerId(1), Lane::Bulk, &[], 9).await.unwrap().rows[0].seq > last);
}

/// Reads while records change: whatever is read under a number was written no earlier than the row of that number.
pub(super) async fn a_record_is_never_older_than_the_row_that_names_it(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 1).await;
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        let mut read = Vec::new();
        while seen < 200 {
            let owed = store.owed(PeerId(1), Lane::Bulk, &read, 1).await.unwrap();
            let Some(row) = owed.rows.last() else {
                tokio::task::yield_now().await;
                continue;
            };
            // Row n was written with revision n + 1.
            assert!(owed.record(1).unwrap().revision > row.seq);
            seen = row.seq;
            read.push(seen);
        }
    });
    for revision in 1..=200 {
        let record = change(1, name(CAMERA, "220822101", "c00001"), revision);
        let changes = Changes { outbox: vec![group(1, Lane::Bulk, [1])], ..with_records(vec![record]) };
        writer.apply(&changes, &[], 1).await.unwrap();
    }
    reader.await.unwrap();
}

pub(super) async fn large_groups_are_cut(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 2 * ROW_KEYS_MAX + 1).await;
    writer.apply(&owing(vec![group(1, Lane::Bulk, keys.clone())]), &[], 1).await.unwrap();
    let (mut seen, mut read) = (Vec::new(), Vec::new());
    loop {
        let owed = store.owed(PeerId(1), Lane::Bulk, &seen, ROW_KEYS_MAX).await.unwrap();
        assert!(owed.records.len() <= ROW_KEYS_MAX);
        if owed.rows.is_empty() {
            break;
        }
        seen.extend(owed.rows.iter().map(|row| row.seq));
        read.extend(owed.records.into_iter().map(|r| r.key));
    }
    assert_eq!(read, keys);
}

pub(super) async fn a_child_is_owed_what_concerns_it(place: &impl Place) {
    const DIVISION: KindId = KindId(9);
    let (store, mut writer) = place.opened().await;
    let handed = |key, home, to: &str| RecordChange {
        audience_added: vec![division(to)],
        ..change(key, name(CASE, home, "handed"), 0)
    };
    let records = vec![
        change(1, name(CASE, "220822101", "own"), 0),
        change(2, name(CASE, "220822102", "sibling"), 0),
        change(3, name(CASE, "220822", "above"), 0),
        handed(4, "220822103", "220822101"),
        handed(5, "220881001", "220822102"),
        change(6, name(DIVISION, "220822", "village"), 0),
        change(7, name(DIVISION, "22", "county"), 0),
        change(8, name(DIVISION, "220881", "elsewhere"), 0),
        change(9, name(DIVISION, "220822101", "own"), 0),
        RecordChange {
            audience_added: vec![division("220822101")],
            ..change(10, name(CASE, "220822101", "both"), 0)
        },
    ];
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    let backfill = |peer, scope: Option<&str>| LinkChange::Backfill {
        peer: PeerId(peer),
        scope: scope.map(division),
        subtree_kinds: vec![DIVISION.0],
    };
    let links = [
        backfill(1, None),
        backfill(2, Some("220822101")),
        backfill(3, Some("220822")),
        backfill(4, Some("23")),
    ];
    writer.apply(&Changes::default(), &links, 1).await.unwrap();
    assert_eq!(owed_keys(&store, 1, Lane::Bulk).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(owed_keys(&store, 2, Lane::Bulk).await, [1, 4, 6, 7, 9, 10]);
    assert_eq!(owed_keys(&store, 3, Lane::Bulk).await, [1, 2, 3, 4, 5, 6, 7, 9, 10]);
    assert!(owed_keys(&store, 4, Lane::Bulk).await.is_empty());
    assert_eq!(store.backlog(PeerId(2)).await.unwrap().bulk.count, 6);

    let born = Changes { ..with_records(vec![change(11, name(CASE, "220822101", "born"), 0)]) };
    writer.apply(&born, &[backfill(5, Some("220822101"))], 1).await.unwrap();
    assert!(
        owed_keys(&store, 5, Lane::Bulk).await.contains(&11),
        "what is written in the same transaction too"
    );
}

pub(super) async fn an_outbox_is_joined_before_it_grows_without_bound(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 300).await;
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut expected: BTreeMap<RecordKey, (Lane, bool)> = BTreeMap::new();
    let mut most = 0;
    for round in 0..400 {
        let groups = (0..3).map(|_| {
            let lane = [Lane::Urgent, Lane::Normal, Lane::Bulk][rng.next_u32() as usize % 3];
            let some: BTreeSet<RecordKey> =
                (0..40).map(|_| keys[rng.next_u32() as usize % keys.len()]).collect();
            OutboxGroup { fresh: rng.next_u32().is_multiple_of(2), ..group(1, lane, some) }
        });
        let groups: Vec<OutboxGroup> = groups.collect();
        for (group, key) in groups.iter().flat_map(|g| g.keys.iter().map(move |key| (g, *key))) {
            let entry = expected.entry(key).or_insert((group.lane, group.fresh));
            *entry = (entry.0.min(group.lane), entry.1 && group.fresh);
        }
        writer.apply(&owing(groups), &[], 100 + round).await.unwrap();
        for peer in store.outboxes_to_compact().await.unwrap() {
            writer.apply(&Changes::default(), &[LinkChange::CompactOutbox(peer)], 900).await.unwrap();
            let backlog = store.backlog(PeerId(1)).await.unwrap();
            assert_eq!(
                backlog.urgent.count + backlog.normal.count + backlog.bulk.count,
                expected.len() as u64
            );
            assert_eq!(backlog.urgent.oldest_ms, Some(100), "it does not look younger than it is");
        }
        let backlog = store.backlog(PeerId(1)).await.unwrap();
        most = most.max(backlog.urgent.count + backlog.normal.count + backlog.bulk.count);
    }
    assert!((10_000..40_000).contains(&most), "{most}");
    let thrice = || group(1, Lane::Bulk, keys.clone());
    for key in &keys {
        let entry = expected.entry(*key).or_insert((Lane::Bulk, false));
        *entry = (entry.0, false);
    }
    let last = [LinkChange::CompactOutbox(PeerId(1)), LinkChange::CompactOutbox(PeerId(2))];
    writer.apply(&owing(vec![thrice(), thrice(), thrice()]), &[], 900).await.unwrap();
    writer.apply(&Changes::default(), &last, 900).await.unwrap();
    let mut found = BTreeMap::new();
    for lane in [Lane::Urgent, Lane::Normal, Lane::Bulk] {
        for row in store.owed(PeerId(1), lane, &[], usize::MAX).await.unwrap().rows {
            for key in row.keys {
                assert_eq!(found.insert(key, (lane, row.fresh)), None);
            }
        }
    }
    assert_eq!(found, expected);
    assert!(store.outboxes_to_compact().await.unwrap().is_empty());

    // Without many duplicates, rows keep their numbers: some of them may be in flight.
    writer.apply(&owing(vec![thrice()]), &[], 900).await.unwrap();
    let before = place.dump().await;
    writer.apply(&Changes::default(), &last, 900).await.unwrap();
    let rows =
        |dump: &[String]| dump.iter().filter(|row| row.starts_with("outbox:")).cloned().collect::<Vec<_>>();
    assert_eq!(rows(&place.dump().await), rows(&before));
}
