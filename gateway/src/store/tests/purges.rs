//! Purges that wait for receipts.

use super::outbox::received;
use super::peers::peer;
use super::*;
use crate::ingest::changes::LinkChange;
use crate::ingest::topology::Role;

pub(super) async fn a_purge_waits_for_the_receipts_below(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 4).await;
    let links = [(1, Role::Parent, "2208"), (2, Role::Child, "220822101"), (3, Role::Child, "220822102")];
    let links = links.map(|(id, role, code)| LinkChange::Peer(peer(id, role, code)));
    writer.apply(&Changes::default(), &links, 1).await.unwrap();
    let outbox = vec![
        group(1, Lane::Bulk, [1, 2, 3, 4]),
        group(2, Lane::Bulk, [1, 2]),
        group(3, Lane::Urgent, [2, 4]),
    ];
    let owed = Changes { purges: vec![1, 2, 3], ..owing(outbox) };
    writer.apply(&owed, &[], 1).await.unwrap();
    writer.apply(&Changes { purges: vec![3], ..Changes::default() }, &[], 1).await.unwrap();
    assert_eq!(store.purges_ready(9).await.unwrap(), [3], "what is owed to the parent does not count");

    let again = || vec![group(2, Lane::Bulk, [1, 2]), group(3, Lane::Urgent, [2, 4])];
    writer.apply(&owing(again()), &[], 1).await.unwrap();
    writer.apply(&owing(again()), &[], 1).await.unwrap();
    let compact = [2, 3].map(|id| LinkChange::CompactOutbox(PeerId(id)));
    writer.apply(&Changes::default(), &compact, 1).await.unwrap();
    assert_eq!(store.purges_ready(9).await.unwrap(), [3], "nor does joining an outbox set anything free");
    let seq = store.owed(PeerId(2), Lane::Bulk, &[], 9).await.unwrap().rows[0].seq;
    writer.apply(&Changes::default(), &[received(2, vec![seq])], 1).await.unwrap();
    assert_eq!(store.purges_ready(9).await.unwrap(), [1, 3]);
    assert_eq!(store.purges_ready(1).await.unwrap(), [1]);

    writer.apply(&Changes { purged: vec![1, 3], ..Changes::default() }, &[], 1).await.unwrap();
    assert!(store.purges_ready(9).await.unwrap().is_empty());
    let seq = store.owed(PeerId(3), Lane::Urgent, &[], 9).await.unwrap().rows[0].seq;
    writer.apply(&Changes::default(), &[received(3, vec![seq])], 1).await.unwrap();
    assert_eq!(store.purges_ready(9).await.unwrap(), [2]);
}
