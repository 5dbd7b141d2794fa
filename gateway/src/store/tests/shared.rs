//! A store that several processes write to at once.

use super::outbox::received;
use super::peers::peer;
use super::places::PostgresPlace;
use super::*;
use crate::ingest::changes::LinkChange;
use crate::ingest::topology::Role;
use crate::ingest::writers::NewWriter;
use crate::stamp::Writer as WriterId;

async fn open(place: &PostgresPlace) -> Result<(Store, Writer), StoreError> {
    place.open(Options { processes_max: 2, ..fast() }).await
}

#[tokio::test]
async fn each_process_has_keys_writers_and_sums_of_its_own() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((one, mut first), (two, mut second)) = (open(&place).await.unwrap(), open(&place).await.unwrap());
    assert!(matches!(open(&place).await, Err(StoreError::InUse(_))), "as many as were said");
    let homes = vec![division("220822101"); 100];
    let mut keys = first.allocate(&homes).await.unwrap();
    keys.extend(second.allocate(&homes).await.unwrap());
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 200);

    let local =
        |id| NewWriter { writer: WriterId { division: division("220822"), id }, purpose: String::new() };
    first.apply(&Changes::default(), &[LinkChange::NewWriter(local(1))], 1).await.unwrap();
    let new = [LinkChange::NewWriter(local(2))];
    let outdated = second.apply(&Changes::default(), &new, 1).await;
    assert_eq!(outdated, Err(StoreError::Outdated), "it does not know yet what the first shares");
    second.decide_from(one.view().await.unwrap());
    let revision = second.apply(&Changes::default(), &new, 1).await.unwrap();
    first.decide_from(one.view().await.unwrap());
    assert_eq!((revision, one.meta().await.unwrap().revision), (2, 2), "all transactions of both");
    let current = async |store: &Store| {
        let writers = store.writers().await.unwrap();
        assert_eq!(writers.len(), 2, "both know all");
        writers.iter().filter(|w| w.slot == store.slot()).map(|w| w.writer.id).collect::<Vec<_>>()
    };
    assert_eq!((current(&one).await, current(&two).await), (vec![1], vec![2]));

    let record = |key| with_records(vec![change(key, name(CAMERA, "220822101", &format!("c{key}")), 0)]);
    first.apply(&Changes { outbox: vec![group(1, Lane::Bulk, [1])], ..record(1) }, &[], 1).await.unwrap();
    second.apply(&Changes { outbox: vec![group(1, Lane::Bulk, [2])], ..record(2) }, &[], 1).await.unwrap();
    assert_eq!(two.counts().await.unwrap().records, 2);
    assert_eq!(one.backlog(PeerId(1)).await.unwrap().bulk.count, 2);
    let rows = two.owed(PeerId(1), Lane::Bulk, &[], 9).await.unwrap().rows;
    let all = received(1, rows.iter().map(|row| row.seq).collect());
    second.apply(&Changes::default(), &[all], 1).await.unwrap();
    assert_eq!(one.backlog(PeerId(1)).await.unwrap().bulk.count, 0, "whoever delivered them");

    drop((two, second));
    let (again, _second) = open(&place).await.unwrap();
    assert_eq!(current(&again).await, [2], "a place that was left is taken again, with its writer");
}

#[tokio::test]
async fn checksums_of_links_are_added_and_none_is_decided_beside_a_page() {
    use crate::ingest::changes::{PeerState, SumChange};
    use crate::proof::Sum;
    use crate::store::SumPage;
    let Some(place) = PostgresPlace::new().await else { return };
    let ((one, mut first), (two, mut second)) = (open(&place).await.unwrap(), open(&place).await.unwrap());
    let child = PeerState { summed_through: 1, ..peer(1, Role::Child, "220822101") };
    first.apply(&Changes::default(), &[LinkChange::Peer(child)], 1).await.unwrap();
    let adding = |sum| {
        let sums = vec![(9, Sum(sum))];
        let sums = vec![SumChange { peer: PeerId(1), home: division("220822101"), kind: CAMERA, sums }];
        Changes { sums, ..Changes::default() }
    };
    second.decide_from(one.view().await.unwrap());
    first.apply(&adding(3), &[], 1).await.unwrap();
    second.apply(&adding(u128::MAX), &[], 1).await.unwrap();
    let page = SumPage {
        peer: PeerId(1),
        scope: Some(division("220822101")),
        subtree_kinds: vec![],
        after: 1,
        limit: 10,
    };
    let (through, _) = first.sum_page(&page, |_| Vec::new()).await.unwrap();
    assert_eq!(through, RecordKey::MAX);
    let outdated = second.apply(&adding(1), &[], 1).await;
    assert_eq!(outdated, Err(StoreError::Outdated), "what the sums hold has changed");
    for store in [&one, &two] {
        let sums = store.link_standing(PeerId(1), &[]).await.unwrap().sums.unwrap();
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), [((CAMERA, 9), Sum(2))]);
        let homes = store.home_sums(PeerId(1), CAMERA).await.unwrap().unwrap();
        assert_eq!(homes.into_iter().collect::<Vec<_>>(), [(division("220822101"), vec![(9, Sum(2))])]);
    }
}

#[tokio::test]
async fn of_two_changes_to_one_record_the_later_is_decided_again() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((_one, mut first), (_two, mut second)) = (open(&place).await.unwrap(), open(&place).await.unwrap());
    let keys = cameras(&mut first, 300).await;
    let named = |key: &RecordKey| name(CAMERA, "220822101", &format!("c{key:05}"));
    let forward: Vec<_> = keys.iter().map(|key| change(*key, named(key), 1)).collect();
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let (forward, backward) = (with_records(forward), with_records(backward));
    let (one, two) = tokio::join!(first.apply(&forward, &[], 1), second.apply(&backward, &[], 1));
    assert!(one.is_ok() != two.is_ok());
    assert_eq!(one.and(two), Err(StoreError::Stale), "none waits for the other for ever");
    // Two new children at once: the second is another peer.
    let child = |code| LinkChange::Peer(peer(1, Role::Child, code));
    first.apply(&Changes::default(), &[child("220822101")], 1).await.unwrap();
    let taken = second.apply(&Changes::default(), &[child("220822102")], 1).await;
    assert_eq!(taken, Err(StoreError::Outdated));
}

/// Rows get their numbers before they are committed, so that a lower number can appear after a higher one.
#[tokio::test]
async fn a_row_that_is_committed_late_is_not_passed_over() {
    let Some(place) = PostgresPlace::new().await else { return };
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 2).await;
    let mut other = place.connect().await;
    let late = "BEGIN; INSERT INTO outbox (peer, lane, fresh, count, written_ms, keys) VALUES (1, 3, 0, 1, 1, '\\x01')";
    sqlx::raw_sql(late).execute(&mut other).await.unwrap();
    writer.apply(&owing(vec![group(1, Lane::Bulk, [2])]), &[], 1).await.unwrap();
    let first = store.owed(PeerId(1), Lane::Bulk, &[], 9).await.unwrap().rows;
    assert_eq!(first.iter().map(|row| &row.keys[..]).collect::<Vec<_>>(), [[2]]);
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    let next = store.owed(PeerId(1), Lane::Bulk, &[first[0].seq], 9).await.unwrap().rows;
    assert_eq!(next.iter().map(|row| &row.keys[..]).collect::<Vec<_>>(), [[1]]);
    assert!(next[0].seq < first[0].seq);
}
