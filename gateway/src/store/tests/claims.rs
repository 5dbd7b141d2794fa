//! Claims, and what they wait for.

use super::outbox::received;
use super::*;
use crate::claiming::{Claimed, Claims};
use crate::ingest::changes::LinkChange;

pub(super) async fn claims_are_kept_as_they_are(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    assert!(store.claims().await.unwrap().is_empty());
    let claimed = |through_ms| Claimed { through_ms, arrived_ms: through_ms + 1, quarantined_count: 2 };
    let (own, below) = (division("220822"), division("220822101"));
    let claims = |rows: &[(Division, u64)]| {
        LinkChange::Claims(rows.iter().map(|(division, ms)| (*division, claimed(*ms))).collect())
    };
    let links = [claims(&[(own, 1_700_000_000_000), (below, 0)]), claims(&[])];
    writer.apply(&Changes::default(), &links, 1).await.unwrap();
    let expected = Claims::from([(own, claimed(1_700_000_000_000)), (below, claimed(0))]);
    assert_eq!(store.claims().await.unwrap(), expected);
    writer.apply(&Changes::default(), &[claims(&[(below, 9), (own, 7)])], 1).await.unwrap();
    let expected = Claims::from([(own, claimed(7)), (below, claimed(9))]);
    assert_eq!(store.claims().await.unwrap(), expected, "a claim may be withdrawn");
    writer.close().await.unwrap();
    store.close().await;
    drop(store);
    let (store, _writer) = place.opened().await;
    assert_eq!(store.claims().await.unwrap(), expected, "and outlives the process");
}

pub(super) async fn a_claim_waits_for_all_rows_up_to_its_number_in_every_lane(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let (peer, keys) = (PeerId(1), cameras(&mut writer, 20).await);
    assert_eq!(store.newest_owed(peer).await.unwrap(), 0);
    assert!(!store.is_owed_up_to(peer, 1_000).await.unwrap());
    let mut numbers = Vec::new();
    for lane in [Lane::Urgent, Lane::Normal, Lane::Bulk] {
        let other = group(2, Lane::Bulk, [keys[1]]);
        writer.apply(&owing(vec![group(1, lane, [keys[0]]), other]), &[], 1).await.unwrap();
        numbers.push(store.newest_owed(peer).await.unwrap());
    }
    let position = store.newest_owed(peer).await.unwrap();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    writer.apply(&owing(vec![group(1, Lane::Urgent, [keys[2]])]), &[], 1).await.unwrap();
    for number in numbers.into_iter().rev() {
        assert!(store.is_owed_up_to(peer, position).await.unwrap());
        writer.apply(&Changes::default(), &[received(1, vec![number])], 1).await.unwrap();
    }
    assert!(!store.is_owed_up_to(peer, position).await.unwrap(), "what came later is not waited for");
    assert!(store.is_owed_up_to(peer, store.newest_owed(peer).await.unwrap()).await.unwrap());
    assert!(store.is_owed_up_to(PeerId(2), position).await.unwrap());
}

pub(super) async fn a_claim_waits_for_rows_that_were_joined_under_new_numbers(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let (peer, keys) = (PeerId(1), cameras(&mut writer, 5).await);
    let five = || owing(vec![group(1, Lane::Bulk, keys.clone())]);
    for _ in 0..3 {
        writer.apply(&five(), &[], 1).await.unwrap();
    }
    let position = store.newest_owed(peer).await.unwrap();
    writer.apply(&Changes::default(), &[LinkChange::CompactOutbox(peer)], 1).await.unwrap();
    let joined = store.owed(peer, Lane::Bulk, &[], 100).await.unwrap().rows;
    assert!(joined.len() == 1 && joined[0].seq > position);
    assert!(store.is_owed_up_to(peer, position).await.unwrap(), "they are the same records");
    writer.apply(&five(), &[received(1, vec![joined[0].seq])], 1).await.unwrap();
    assert!(!store.is_owed_up_to(peer, position).await.unwrap());
}
