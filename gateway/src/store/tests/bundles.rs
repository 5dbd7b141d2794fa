//! Exchange by bundles: what is remembered of it, for as long as it must be.

use super::*;
use crate::bundle::PublicKey;
use crate::bundle::keeping::{BundleChange, MADE_MAX, Made, ReceiptState, TAKEN_MAX, TakenIn};
use crate::bundle::standing::{Mark, PeerKey, Standing};
use crate::ingest::changes::LinkChange;

fn mark(number: u64) -> Mark {
    // All 64 bits are used.
    Mark { epoch: u64::MAX - 7, number, random: u64::MAX - number }
}

fn made(number: u64) -> Made {
    Made { mark: mark(number), made_ms: 10 * number, whole: true, records: 3, clock: u64::MAX - 1 }
}

async fn apply(
    writer: &mut Writer,
    changes: impl IntoIterator<Item = BundleChange>,
) -> Result<u64, StoreError> {
    let division = division("220822101");
    let links: Vec<LinkChange> =
        changes.into_iter().map(|change| LinkChange::Bundle { division, change }).collect();
    writer.apply(&Changes::default(), &links, 1).await
}

fn made_with(number: u64, seqs: Vec<i64>) -> BundleChange {
    BundleChange::Made { made: made(number), seqs, receipts_until_ms: 10 * number }
}

async fn rows(store: &Store, number: u64) -> Vec<i64> {
    let (mut found, mut after) = (Vec::new(), -1);
    while let Some((part, seqs)) = store.bundle_rows(division("220822101"), number, after).await.unwrap() {
        after = part;
        found.extend(seqs);
    }
    found
}

pub(super) async fn what_is_remembered_of_an_exchange_is_kept_as_it_is(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let of = division("220822101");
    assert_eq!(store.bundle_standing(of).await.unwrap(), Standing::default());
    let standing = Standing {
        version: 0,
        key: Some(PeerKey { key: PublicKey([7; 32]), time_ms: 5, certificates: vec![1, 2].into() }),
        sent: Some((mark(4), 6)),
        sent_through: 99,
        confirmed_number: 3,
        confirmed_ms: 7,
        confirmed_to_ms: 8,
        told: vec![1, u64::MAX],
        peer_epoch: mark(1).epoch,
        peer_time_ms: 9,
        past: vec![2, 3],
        seen: Some((mark(2), 11)),
        one_way: true,
        restored_epoch: u64::MAX - 3,
        clock: u64::MAX - 4,
    };
    apply(&mut writer, [BundleChange::Standing(Box::new(standing.clone()))]).await.unwrap();
    let stored = store.bundle_standing(of).await.unwrap();
    assert_eq!(stored, Standing { version: 1, ..standing });
    let less = Standing { key: None, sent: None, seen: None, told: vec![], ..stored };
    apply(&mut writer, [BundleChange::Standing(Box::new(less.clone()))]).await.unwrap();
    assert_eq!(store.bundle_standing(of).await.unwrap(), Standing { version: 2, ..less });
}

pub(super) async fn a_version_is_stored_once(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let change = || BundleChange::Standing(Box::default());
    apply(&mut writer, [change()]).await.unwrap();
    assert_eq!(apply(&mut writer, [change()]).await, Err(StoreError::Stale), "decided from an older one");
    assert_eq!(store.bundle_standing(division("220822101")).await.unwrap().version, 1);
}

pub(super) async fn rows_of_a_bundle_go_with_its_receipt(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let many: Vec<i64> = (1..=1_500).collect();
    let small =
        BundleChange::Made { made: Made { whole: false, ..made(3) }, seqs: vec![9], receipts_until_ms: 0 };
    apply(&mut writer, [made_with(1, many.clone()), made_with(2, vec![5, 7]), small]).await.unwrap();
    let of = division("220822101");
    assert_eq!(rows(&store, 1).await, many);
    assert_eq!(store.bundle_made(of, 2).await.unwrap(), Some(made(2)));
    assert_eq!(store.last_bundle_made(of).await.unwrap().unwrap().mark, mark(3));
    apply(&mut writer, [BundleChange::Confirmed { number: 3, whole: false }]).await.unwrap();
    assert!(rows(&store, 3).await.is_empty());
    assert_eq!(rows(&store, 2).await, [5, 7], "the small one did not hold what these hold");
    apply(&mut writer, [BundleChange::Confirmed { number: 2, whole: true }]).await.unwrap();
    assert!(rows(&store, 1).await.is_empty(), "whatever was still owed was in the later one too");
    assert!(store.bundle_made(of, 1).await.unwrap().is_some(), "it is still known");
}

pub(super) async fn receipts_wait_until_they_have_arrived(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let of = division("220822101");
    let taking = |number, previous| {
        BundleChange::Taking(TakenIn { mark: mark(number), previous, ..TakenIn::default() })
    };
    let progress = |number, batch_id| BundleChange::Progress {
        mark: mark(number),
        batch_id,
        refused: 2,
        refusals: vec![batch_id as u8].into(),
    };
    let arrived = |number, newest| BundleChange::ReceiptsArrived { number, newest };
    let took = |number, taken_ms, one_way| BundleChange::Took { mark: mark(number), taken_ms, one_way };
    apply(&mut writer, [taking(1, None), progress(1, 1), progress(1, 2), progress(1, 2)]).await.unwrap();
    assert!(store.bundle_receipts(of).await.unwrap().is_empty(), "not all of it is on disk");
    apply(&mut writer, [took(1, 5, false), taking(2, Some(mark(1))), took(2, 6, true)]).await.unwrap();
    let owed = store.bundle_receipts(of).await.unwrap();
    assert_eq!((owed.len(), owed[0].mark, owed[0].refused, owed[0].batches), (1, mark(1), 4, 2));
    let second = store.bundles_taken(of, mark(1).epoch, 2..=2).await.unwrap().remove(0);
    assert_eq!((second.previous, second.receipt), (Some(mark(1)), ReceiptState::Done), "nobody takes it");
    apply(&mut writer, [made_with(4, vec![])]).await.unwrap();
    let carried = store.bundle_receipts(of).await.unwrap();
    assert_eq!(carried[0].receipt, ReceiptState::Carried(4), "until it is known to have arrived");
    apply(&mut writer, [made_with(5, vec![]), arrived(3, false)]).await.unwrap();
    let first = store.bundle_refusals(of, mark(1), 0).await.unwrap();
    assert_eq!(first, Some((1, vec![1].into())));
    assert_eq!(store.bundle_refusals(of, mark(1), 1).await.unwrap(), Some((2, vec![2].into())));
    apply(&mut writer, [arrived(4, true)]).await.unwrap();
    assert!(store.bundle_receipts(of).await.unwrap().is_empty());
    apply(&mut writer, [arrived(3, false)]).await.unwrap();
    assert!(store.bundle_receipts(of).await.unwrap().is_empty(), "an old bundle says nothing new");
    apply(&mut writer, [arrived(3, true)]).await.unwrap();
    let again = store.bundle_receipts(of).await.unwrap();
    assert_eq!(
        (again.len(), again[0].mark),
        (1, mark(1)),
        "the other side was put back: it is carried again"
    );
    apply(&mut writer, [arrived(4, true)]).await.unwrap();
    assert_eq!(store.bundle_refusals(of, mark(1), 0).await.unwrap(), None);
    // Another bundle with the number of the first: from a store that was put back.
    let other = Mark { random: 1, ..mark(1) };
    let again = BundleChange::Taking(TakenIn { mark: other, ..TakenIn::default() });
    apply(&mut writer, [again, took(1, 9, false)]).await.unwrap();
    let known = store.bundles_taken(of, other.epoch, 1..=1).await.unwrap().remove(0);
    assert_eq!(
        (known.mark, known.taken_ms, known.batches),
        (other, 0, 0),
        "what is said of the former is not of it"
    );
}

pub(super) async fn old_bundles_are_forgotten(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let of = division("220822101");
    for number in 1..=MADE_MAX + 3 {
        apply(&mut writer, [made_with(number, vec![number as i64])]).await.unwrap();
    }
    assert!(store.bundle_made(of, 3).await.unwrap().is_none() && rows(&store, 3).await.is_empty());
    assert!(store.bundle_made(of, 4).await.unwrap().is_some() && !rows(&store, 4).await.is_empty());
    let taken = |number| TakenIn { mark: mark(number), ..TakenIn::default() };
    let done = |number| BundleChange::Took { mark: mark(number), taken_ms: 1, one_way: true };
    for number in [1, 2, TAKEN_MAX + 2] {
        apply(&mut writer, [BundleChange::Taking(taken(number)), done(number)]).await.unwrap();
    }
    let known = store.bundles_taken(of, mark(1).epoch, 0..=u64::MAX >> 1).await.unwrap();
    assert_eq!(known.iter().map(|t| t.mark.number).collect::<Vec<_>>(), [2, TAKEN_MAX + 2]);
    let last = mark(TAKEN_MAX + 2);
    assert_eq!(store.bundles_missing(of, last).await.unwrap(), 0, "what came long ago is not compared");
    apply(&mut writer, [BundleChange::Taking(taken(TAKEN_MAX)), done(TAKEN_MAX)]).await.unwrap();
    assert_eq!(store.bundles_missing(of, last).await.unwrap(), 1);
    let made = store.bundles_made(of).await.unwrap();
    assert_eq!((made.len() as u64, made[0]), (MADE_MAX, mark(MADE_MAX + 3)));
}
