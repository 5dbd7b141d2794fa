//! What peers refused.

use guantong_proto::v1::RefusalReason;

use super::outbox::{owed_keys, received};
use super::*;
use crate::ingest::changes::{LinkChange, Quarantine, Refused};

pub(super) fn refused(key: RecordKey, field: u32, retry_at_ms: Option<u64>) -> Quarantine {
    let detail = format!("field {field}");
    Quarantine { key, refused: Refused { field, reason: RefusalReason::FutureStamp, detail, retry_at_ms } }
}

async fn receive(writer: &mut Writer, seqs: Vec<i64>, refused: Vec<Quarantine>) {
    let delivered = LinkChange::Delivered { peer: PeerId(1), seqs, keys: vec![], refused };
    writer.apply(&Changes::default(), &[delivered], 50).await.unwrap();
}

/// Owes a group and gives its number.
async fn owe(store: &Store, writer: &mut Writer, lane: Lane, keys: Vec<RecordKey>) -> i64 {
    writer.apply(&owing(vec![group(1, lane, keys)]), &[], 40).await.unwrap();
    store.owed(PeerId(1), lane, &[], usize::MAX).await.unwrap().rows.last().unwrap().seq
}

async fn held(store: &Store) -> Vec<(RecordKey, u32)> {
    let all = store.quarantine(None, 99).await.unwrap();
    all.iter().map(|q| (q.key, q.refused.field)).collect()
}

pub(super) async fn what_is_refused_stays_until_it_is_taken(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3).await;
    let seq = owe(&store, &mut writer, Lane::Urgent, vec![1, 2, 3]).await;
    receive(&mut writer, vec![seq], vec![refused(1, 4, Some(99)), refused(1, 5, None), refused(2, 0, None)])
        .await;
    let all = store.quarantine(None, 2).await.unwrap();
    assert_eq!((all.len(), all[0].peer, all[0].lane, all[0].refused_ms), (2, PeerId(1), Lane::Urgent, 50));
    assert_eq!(all[0].refused, refused(1, 4, Some(99)).refused);
    assert_eq!(all[0].name, name(CAMERA, "220822101", "c00001"));
    let next = store.quarantine(Some((all[1].peer, all[1].key, all[1].refused.field)), 9).await.unwrap();
    assert_eq!(next.iter().map(|q| q.key).collect::<Vec<_>>(), [2]);
    assert_eq!(store.backlog(PeerId(1)).await.unwrap().quarantined, 3);
    assert_eq!(store.counts().await.unwrap().quarantined, 3);

    // The record changed, and one of its fields is still refused, for another reason.
    let seq = owe(&store, &mut writer, Lane::Bulk, vec![1]).await;
    receive(&mut writer, vec![seq], vec![refused(1, 6, None)]).await;
    assert_eq!(held(&store).await, [(1, 6), (2, 0)]);
    let seq = owe(&store, &mut writer, Lane::Bulk, vec![1, 3]).await;
    receive(&mut writer, vec![seq], vec![]).await;
    assert_eq!(held(&store).await, [(2, 0)]);
}

pub(super) async fn the_last_receipt_of_an_older_row_ends_no_quarantine(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 2).await;
    let seq = owe(&store, &mut writer, Lane::Bulk, vec![1, 2]).await;
    // The row went in two batches: the receipt of the first refuses, that of the second completes the row.
    receive(&mut writer, vec![], vec![refused(1, 4, None)]).await;
    receive(&mut writer, vec![seq], vec![]).await;
    assert_eq!(held(&store).await, [(1, 4)]);
    writer.apply(&Changes::default(), &[received(1, vec![seq])], 1).await.unwrap();
    assert_eq!(held(&store).await, [(1, 4)], "nor does a receipt that comes twice");
}

pub(super) async fn what_is_refused_is_owed_again(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3).await;
    let seq = owe(&store, &mut writer, Lane::Urgent, vec![1]).await;
    receive(&mut writer, vec![seq], vec![refused(1, 4, Some(99)), refused(1, 5, Some(70))]).await;
    let seq = owe(&store, &mut writer, Lane::Bulk, vec![2, 3]).await;
    receive(&mut writer, vec![seq], vec![refused(2, 0, None), refused(3, 1, Some(200))]).await;
    assert_eq!(store.next_retry_ms(PeerId(1)).await.unwrap(), Some(70));
    assert_eq!(store.next_retry_ms(PeerId(2)).await.unwrap(), None);

    let retry = |due_ms| LinkChange::RetryQuarantine { peer: PeerId(1), due_ms };
    writer.apply(&Changes::default(), &[retry(Some(69))], 69).await.unwrap();
    assert!(owed_keys(&store, 1, Lane::Urgent).await.is_empty());
    writer.apply(&Changes::default(), &[retry(Some(120)), retry(Some(120))], 120).await.unwrap();
    assert_eq!(owed_keys(&store, 1, Lane::Urgent).await, [1], "in its lane, once");
    assert!(owed_keys(&store, 1, Lane::Bulk).await.is_empty());
    assert_eq!(store.next_retry_ms(PeerId(1)).await.unwrap(), Some(200));
    assert_eq!(held(&store).await.len(), 4, "it stays until it is taken");

    writer.apply(&Changes::default(), &[retry(None)], 130).await.unwrap();
    assert_eq!(owed_keys(&store, 1, Lane::Bulk).await, [2, 3]);
    let rows = store.owed(PeerId(1), Lane::Bulk, &[], 9).await.unwrap().rows;
    receive(&mut writer, rows.iter().map(|r| r.seq).collect(), vec![]).await;
    assert_eq!(held(&store).await, [(1, 4), (1, 5)]);
}
