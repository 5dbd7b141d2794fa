//! Peers and writers.

use super::*;
use crate::ingest::changes::{LinkChange, PeerState};
use crate::ingest::topology::Role;
use crate::ingest::writers::NewWriter;
use crate::session::greeting::{IssuedTokens, Token};
use crate::stamp::{Stamp, Writer as WriterId};

pub(super) fn peer(id: i64, role: Role, code: &str) -> PeerState {
    PeerState { slot: 3, ..PeerState::new(PeerId(id), role, division(code)) }
}

pub(super) async fn peers_are_kept_as_they_are(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let token = |counter| Some(Token { counter, random: u64::MAX - counter });
    let parent = PeerState {
        token: token(u64::MAX),
        clock_at_token: Stamp(u64::MAX),
        clock_before_token: Stamp(u64::MAX - 1),
        opened_revision: Some(11),
        epoch: u64::MAX - 3,
        revision: 12,
        summed_through: RecordKey::MAX,
        ..peer(1, Role::Parent, "2208")
    };
    let child = PeerState {
        issued: IssuedTokens { newest: token(8), previous: token(7), parent_restored: true },
        recovering_to: Some(Stamp::from_ms(1_700_000_000_000)),
        ..peer(2, Role::Child, "220822101")
    };
    let links = [
        LinkChange::Peer(parent.clone()),
        LinkChange::Peer(child.clone()),
        LinkChange::NewEpoch { epoch: u64::MAX, at_ms: 6 },
    ];
    writer.apply(&Changes::default(), &links, 1).await.unwrap();
    assert_eq!(store.peers().await.unwrap(), [parent.clone(), child.clone()]);
    assert_eq!(store.meta().await.unwrap().epoch, u64::MAX);
    assert_eq!(store.lineage().await.unwrap().renewed_ms, Some(6));

    let seen = |revision| LinkChange::Seen { peer: PeerId(1), revision };
    let links = [seen(15), seen(14), LinkChange::TokenConfirmed(PeerId(2))];
    writer.apply(&Changes::default(), &links, 1).await.unwrap();
    let known = store.peers().await.unwrap();
    assert_eq!(known[0], PeerState { revision: 15, ..parent });
    assert_eq!(known[1], PeerState { issued: child.issued.confirmed(), ..child });
    let changed = PeerState { revision: 3, ..peer(2, Role::Child, "220822101") };
    writer.apply(&Changes::default(), &[LinkChange::Peer(changed.clone())], 1).await.unwrap();
    assert_eq!(store.peers().await.unwrap()[1], changed);
    // Two processes that welcome two children, or one child, at the same moment.
    for taken in [peer(2, Role::Child, "220822102"), peer(3, Role::Child, "220822101")] {
        let taken = writer.apply(&Changes::default(), &[LinkChange::Peer(taken)], 1).await;
        assert_eq!(taken, Err(StoreError::Stale));
    }
    assert_eq!(store.peers().await.unwrap()[1], changed);
}

pub(super) async fn writers_keep_their_clocks(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let local = WriterId { division: division("220822"), id: u64::MAX };
    let ledger = WriterId { division: division("220822101"), id: 3 };
    let new = |writer, purpose: &str| LinkChange::NewWriter(NewWriter { writer, purpose: purpose.into() });
    let ticked = |clocks| Changes { clocks, ..Changes::default() };
    let first = ticked(vec![(local, Stamp::from_ms(5)), (ledger, Stamp(u64::MAX >> 1))]);
    writer.apply(&first, &[new(local, ""), new(ledger, "ledger")], 1).await.unwrap();
    writer.apply(&ticked(vec![(local, Stamp::from_ms(4))]), &[new(local, "")], 1).await.unwrap();
    writer.apply(&Changes::default(), &[LinkChange::GiveUp(ledger)], 1).await.unwrap();
    let known = store.writers().await.unwrap();
    let shown: Vec<_> = known.iter().map(|w| (w.writer, &*w.purpose, w.clock.last(), w.current)).collect();
    let expected = [(local, "", Stamp::from_ms(5), true), (ledger, "ledger", Stamp(u64::MAX >> 1), false)];
    assert_eq!(shown, expected, "a clock never goes back");
}

pub(super) async fn an_unknown_writer_is_refused(place: &impl Place) {
    let (_store, mut writer) = place.opened().await;
    let before = place.dump().await;
    let unknown = WriterId { division: division("220822"), id: 9 };
    let changes = Changes { clocks: vec![(unknown, Stamp(1))], ..Changes::default() };
    assert!(matches!(writer.apply(&changes, &[], 1).await, Err(StoreError::Database(_))));
    assert_eq!(place.dump().await, before);
}
