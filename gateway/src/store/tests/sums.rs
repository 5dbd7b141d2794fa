//! Checksums of links: kept by home and in all, computed page by page, and read with what must be left out.

use std::collections::{BTreeMap, BTreeSet};

use guantong_proto::v1::RefusalReason;

use super::peers::peer;
use super::*;
use crate::ingest::changes::{LinkChange, PeerState, Quarantine, Refused, SumChange};
use crate::ingest::topology::Role;
use crate::proof::Sum;
use crate::store::{LEFT_OUT_MAX, StoredRecord, SumPage};

const PARENT: PeerId = PeerId(1);
const CHILD: PeerId = PeerId(2);

fn sum_change(peer: PeerId, home: &str, kind: KindId, sums: &[(u32, u128)]) -> SumChange {
    let sums = sums.iter().map(|(field, sum)| (*field, Sum(*sum))).collect();
    SumChange { peer, home: division(home), kind, sums }
}

fn adding(sums: Vec<SumChange>) -> Changes {
    Changes { sums, ..Changes::default() }
}

/// A parent and a child whose sums hold the records up to `summed_through`.
fn links(summed_through: RecordKey) -> [LinkChange; 2] {
    [peer(PARENT.0, Role::Parent, "2208"), peer(CHILD.0, Role::Child, "220822101")]
        .map(|peer| LinkChange::Peer(PeerState { summed_through, ..peer }))
}

pub(super) async fn checksums_add_up_and_are_known_when_they_hold_all_records(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    writer.apply(&Changes::default(), &links(5), 1).await.unwrap();
    let first = vec![
        sum_change(PARENT, "220822101", CAMERA, &[(1, u128::MAX), (300, 7)]),
        sum_change(PARENT, "220822102", CAMERA, &[(1, 3)]),
        sum_change(PARENT, "220822102", CASE, &[(1, 3)]),
        sum_change(CHILD, "220822101", CAMERA, &[(1, 11)]),
    ];
    writer.apply(&adding(first), &[], 1).await.unwrap();
    assert_eq!(store.link_standing(PARENT, &[]).await.unwrap().sums, None, "not all are in it yet");
    assert_eq!(store.home_sums(PARENT, CAMERA).await.unwrap(), None);
    writer.apply(&Changes::default(), &links(RecordKey::MAX), 1).await.unwrap();
    let second = vec![
        sum_change(PARENT, "220822101", CAMERA, &[(1, 1), (2, 9)]),
        sum_change(PARENT, "220822102", CASE, &[(1, 3u128.wrapping_neg())]),
    ];
    writer.apply(&adding(second), &[], 1).await.unwrap();
    let total = store.link_standing(PARENT, &[]).await.unwrap().sums.unwrap();
    let expected = [((CAMERA, 1), Sum(3)), ((CAMERA, 2), Sum(9)), ((CAMERA, 300), Sum(7))];
    assert_eq!(total, BTreeMap::from(expected));
    let homes = store.home_sums(PARENT, CAMERA).await.unwrap().unwrap();
    let expected = [
        (division("220822101"), vec![(2, Sum(9)), (300, Sum(7))]),
        (division("220822102"), vec![(1, Sum(3))]),
    ];
    assert_eq!(homes, BTreeMap::from(expected));
    assert!(store.home_sums(PARENT, CASE).await.unwrap().unwrap().is_empty());
    let total = store.link_standing(CHILD, &[]).await.unwrap().sums.unwrap();
    assert_eq!(total, BTreeMap::from([((CAMERA, 1), Sum(11))]));
}

/// Adds one for each record, under the number of its key.
fn count(peer: PeerId, records: &[StoredRecord]) -> Vec<SumChange> {
    let mut homes: BTreeMap<Division, Vec<(u32, Sum)>> = BTreeMap::new();
    for record in records {
        homes.entry(record.name.home).or_default().push((record.key as u32, Sum(1)));
    }
    homes.into_iter().map(|(home, sums)| SumChange { peer, home, kind: CAMERA, sums }).collect()
}

pub(super) async fn a_page_finds_each_record_once_while_others_change(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    writer.apply(&Changes::default(), &links(0), 1).await.unwrap();
    let homes: Vec<&str> =
        ["220822101", "220822102", "220882101", "22"].into_iter().cycle().take(60).collect();
    let keys = writer.allocate(&homes.iter().map(|home| division(home)).collect::<Vec<_>>()).await.unwrap();
    let mut records: Vec<RecordChange> = homes
        .iter()
        .zip(&keys)
        .map(|(home, key)| change(*key, name(CAMERA, home, &format!("c{key}")), 0))
        .collect();
    // Handed on to the child: records of a township beside it and of another county.
    let handed: Vec<RecordKey> = [1, 2, 5, 6].map(|place| keys[place]).to_vec();
    for record in records.iter_mut().filter(|record| handed.contains(&record.key)) {
        record.audience_added = vec![division("220822101")];
    }
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    let concerned =
        |(home, key): &(&&str, &RecordKey)| ["220822101", "22"].contains(home) || handed.contains(key);
    let expected: BTreeSet<RecordKey> =
        homes.iter().zip(&keys).filter(concerned).map(|(_, key)| *key).collect();
    for (peer, scope, expected) in
        [(PARENT, None, keys.iter().copied().collect()), (CHILD, Some(division("220822101")), expected)]
    {
        let mut page = SumPage { peer, scope, subtree_kinds: vec![CAMERA.0], after: 0, limit: 7 };
        let mut pages = 0;
        while page.after != RecordKey::MAX {
            let stale = SumPage { after: page.after + 1, ..page.clone() };
            let refused = writer.sum_page(&stale, |records| count(peer, records)).await;
            assert_eq!(refused, Err(StoreError::Stale), "the sums hold them up to another record");
            (page.after, _) = writer.sum_page(&page, |records| count(peer, records)).await.unwrap();
            let view = store.view().await.unwrap();
            writer.decide_from(view);
            pages += 1;
        }
        assert!(pages > 2 && pages < 20, "{pages}");
        let total = store.link_standing(peer, &[]).await.unwrap().sums.unwrap();
        let expected = expected.iter().map(|key| ((CAMERA, *key as u32), Sum(1))).collect();
        assert_eq!(total, expected);
    }
}

fn refusal(key: RecordKey, field: u32) -> Quarantine {
    let detail = String::new();
    let refused = Refused { field, reason: RefusalReason::FutureStamp, detail, retry_at_ms: None };
    Quarantine { key, refused }
}

pub(super) async fn a_standing_names_what_is_owed_and_refused(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, LEFT_OUT_MAX + 10).await;
    let named = |key: &RecordKey| name(CAMERA, "220822101", &format!("c{key:05}"));
    let mut changes = links(RecordKey::MAX).to_vec();
    let refused = vec![refusal(keys[3], 0), refusal(keys[4], 9)];
    changes.push(LinkChange::Delivered { peer: PARENT, seqs: vec![], keys: vec![], refused });
    let owed = owing(vec![
        group(PARENT.0, Lane::Bulk, keys[..2].to_vec()),
        group(PARENT.0, Lane::Urgent, keys[1..3].to_vec()),
        group(CHILD.0, Lane::Bulk, keys.clone()),
    ]);
    writer.apply(&owed, &changes, 1).await.unwrap();
    let asked = [named(&keys[7]), named(&keys[0]), name(CAMERA, "220822101", "unknown")];
    let standing = store.link_standing(PARENT, &asked).await.unwrap();
    assert_eq!(standing.owed, Some(keys[..3].iter().map(named).collect()));
    assert_eq!(standing.refused, Some([(named(&keys[3]), 0), (named(&keys[4]), 9)].into()));
    let records: Vec<RecordKey> = standing.records.iter().map(|record| record.key).collect();
    assert_eq!(records, [&keys[..5], &keys[7..8]].concat());
    let standing = store.link_standing(CHILD, &[]).await.unwrap();
    assert_eq!((standing.owed, standing.refused), (None, Some(BTreeSet::new())), "too many to leave out");
    let refused = keys.iter().map(|key| refusal(*key, 9)).collect();
    let many = LinkChange::Delivered { peer: CHILD, seqs: vec![], keys: vec![], refused };
    writer.apply(&Changes::default(), &[many], 1).await.unwrap();
    assert_eq!(store.link_standing(CHILD, &[]).await.unwrap().refused, None);
}

pub(super) async fn checksums_are_forgotten(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let sums = [PARENT, CHILD].map(|peer| sum_change(peer, "220822101", CAMERA, &[(1, 1)])).to_vec();
    writer.apply(&adding(sums.clone()), &links(RecordKey::MAX), 1).await.unwrap();
    writer.apply(&Changes::default(), &[LinkChange::ForgetSums(PARENT)], 1).await.unwrap();
    let known = async |peer| store.link_standing(peer, &[]).await.unwrap().sums.map(|sums| sums.len());
    assert_eq!((known(PARENT).await, known(CHILD).await), (None, Some(1)));
    writer.apply(&Changes::default(), &links(RecordKey::MAX), 1).await.unwrap();
    assert_eq!(known(PARENT).await, Some(0));
    writer.apply(&adding(sums), &[LinkChange::ForgetJudgements], 1).await.unwrap();
    assert_eq!((known(PARENT).await, known(CHILD).await), (None, None));
}
