//! How one record stands with one peer.

use super::quarantine::refused;
use super::*;
use crate::ingest::changes::LinkChange;

pub(super) async fn it_says_in_which_lane_a_record_waits_since_when_and_what_was_refused(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 900).await;
    let mut owe = async |lane, keys: std::ops::RangeInclusive<i64>, at_ms| {
        writer.apply(&owing(vec![group(1, lane, keys)]), &[], at_ms).await.unwrap();
    };
    owe(Lane::Bulk, 1..=899, 10).await;
    owe(Lane::Bulk, 700..=899, 20).await;
    owe(Lane::Urgent, 899..=899, 30).await;
    let waiting = async |peer, key| store.record_standing(PeerId(peer), key).await.unwrap().waiting;
    assert_eq!(waiting(1, 1).await, Some((Lane::Bulk, 10)));
    assert_eq!(waiting(1, 700).await, Some((Lane::Bulk, 10)));
    assert_eq!(waiting(1, 899).await, Some((Lane::Urgent, 10)), "the earliest, in the most urgent lane");
    assert_eq!((waiting(1, 900).await, waiting(2, 1).await), (None, None));

    let both = vec![refused(900, 92, Some(77)), refused(900, 12, None)];
    let links = [LinkChange::Delivered { peer: PeerId(1), seqs: vec![], keys: vec![], refused: both }];
    writer.apply(&Changes::default(), &links, 40).await.unwrap();
    let refusals = store.record_standing(PeerId(1), 900).await.unwrap().refused;
    assert_eq!(refusals, [(refused(900, 12, None).refused, 40), (refused(900, 92, Some(77)).refused, 40)]);
    assert_eq!(store.record_standing(PeerId(2), 900).await.unwrap(), Default::default());
}
