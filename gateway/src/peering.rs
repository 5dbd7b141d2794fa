//! What a greeting means for the store: whether one of the two stores was restored, who becomes a new writer, and who
//! owes whom everything again. Decisions over values; the engine carries them out in one transaction, before the
//! session goes on.
//!
//! Two things betray a restored or copied store. Tokens: each Welcome carries a fresh one, so a copy that greets
//! returns one that was given to the other. Revisions: both ends remember the highest transaction that they have seen
//! of each other, so a store that fell behind it was restored, even if no Welcome came in between.

use guantong_proto::v1::{self, Recognition};

use crate::division::Division;
use crate::ingest::changes::PeerState;
use crate::ingest::topology::{PeerId, Role};
use crate::session::greeting::{Token, recognise};
use crate::stamp::Stamp;

/// How long a peer may bring what was refused of it again, while this node recovers: hourly, and once more.
const REFUSED_AGAIN_MS: u64 = 2 * 3_600_000;

/// This node's own store at the moment of a greeting.
#[derive(Clone, Copy, Debug)]
pub struct OwnStore {
    /// Number of its last transaction.
    pub revision: u64,
    /// The latest stamp of its writers.
    pub latest: Stamp,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How far in the future a stamp may lie.
    pub drift_ms: u64,
    /// When it last became another because it had been put back or copied, Unix milliseconds; `None`: never.
    pub renewed_ms: Option<u64>,
}

impl OwnStore {
    /// The latest stamp that this store can have given out and lost by now: its clock may have been ahead a little.
    pub fn recovering_to(self) -> Stamp {
        Stamp::from_ms(self.now_ms.saturating_add(self.drift_ms))
    }

    /// The latest stamp of what this store may have lost and never heard of: whom it meets for the first time since it was
    /// put back, it may have met before.
    pub fn forgotten_to(self) -> Option<Stamp> {
        self.renewed_ms.map(|ms| Stamp::from_ms(ms.saturating_add(self.drift_ms)))
    }
}

/// What must be done, and stored, before the session goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the parent makes of the child's token.
    pub recognition: Recognition,
    /// The peer as it must be stored. `clock_at_token` is filled in after any renewal.
    pub peer: PeerState,
    /// This store was restored: it takes a new random number, becomes a new writer, and writes again what it wrote
    /// after this stamp.
    pub renew_after: Option<Stamp>,
    /// Until they have sent everything again, children may send stamps that this store has forgotten.
    pub recover: bool,
    /// The peer is owed everything that concerns it.
    pub backfill: bool,
    /// The peer's scope was this node's to act for until now.
    pub first_welcome: bool,
}

impl Plan {
    /// How far the clock here is behind the peer's, where that keeps this store from recovering: by such a clock it
    /// could not tell what it has lost from what is yet to be written, and would refuse the peer's copies for ever.
    pub fn clock_behind_ms(&self, peer_clock_ms: i64, own: OwnStore) -> Option<u64> {
        let behind_ms = u64::try_from(peer_clock_ms).ok()?.checked_sub(own.now_ms)?;
        (self.recover && behind_ms > own.drift_ms).then_some(behind_ms)
    }
}

/// The parent's side: what a Hello means, and the token to answer it with.
pub fn welcome(
    known: Option<PeerState>,
    id: PeerId,
    child: Division,
    hello: &v1::Hello,
    own: OwnStore,
    random: u64,
) -> (Plan, Token) {
    let first_welcome = known.is_none();
    let mut peer = known.unwrap_or_else(|| PeerState::new(id, Role::Child, child));
    let returned = hello.token.map(Token::from);
    let mut recognition = recognise(&peer.issued, returned);
    let revision = peer.continuous(own.revision);
    // Both may have fallen behind. The child is told of itself first; the parent knows of itself anyway.
    let restored = recognition == Recognition::ParentRestored
        || recognition != Recognition::New && hello.peer_revision > revision;
    if matches!(recognition, Recognition::Known | Recognition::ParentRestored)
        && hello.revision < peer.revision
    {
        recognition = Recognition::ChildRestored;
    } else if restored {
        recognition = Recognition::ParentRestored;
    }
    let (token, issued) = peer.issued.issue(returned, recognition, random);
    let renew_after = restored.then_some(peer.clock_before_token);
    peer.issued = issued;
    peer.greeted(own);
    peer.epoch = hello.epoch;
    peer.revision = hello.revision;
    if restored {
        peer.recovering_to = Some(own.recovering_to());
    } else if recognition == Recognition::New {
        peer.recovering_to = peer.recovering_to.max(own.forgotten_to());
    }
    let backfill = recognition != Recognition::Known;
    (Plan { recognition, peer, renew_after, recover: restored, backfill, first_welcome }, token)
}

/// The child's side: what a Welcome means.
pub fn welcomed(known: &PeerState, welcome: &v1::Welcome, own: OwnStore) -> Plan {
    let recognition = welcome.recognition();
    let restored = recognition == Recognition::ChildRestored;
    let mut peer = known.clone();
    let renew_after = restored.then_some(peer.clock_before_token);
    peer.token = welcome.token.map(Token::from);
    peer.greeted(own);
    peer.epoch = welcome.epoch;
    peer.revision = welcome.revision;
    Plan {
        recognition,
        peer,
        renew_after,
        recover: restored,
        backfill: recognition != Recognition::Known,
        first_welcome: false,
    }
}

impl PeerState {
    /// The last of this store's transactions up to which the peer has met this very copy of it. If the peer has seen a
    /// later one, the store was put back since, however much was written after that. `revision` is the present one.
    pub fn continuous(&self, revision: u64) -> u64 {
        self.opened_revision.unwrap_or(revision)
    }

    /// A peer that this node recovers from, once it holds the same, but for what was `refused`: it has given what this node
    /// lacked. What was refused may be taken later: once another peer has brought what it stands on, or its time has come.
    /// `None`: nothing changes.
    pub fn given(&self, refused: bool, own: OwnStore) -> Option<PeerState> {
        let begun_ms = self.recovering_to?.ms().saturating_sub(own.drift_ms);
        let waits = refused && own.now_ms < begun_ms.saturating_add(REFUSED_AGAIN_MS);
        (!waits).then(|| PeerState { recovering_to: None, ..self.clone() })
    }

    /// A peer that this node recovers from since a moment that is yet to come: it does so since now. `None`: nothing changes.
    pub fn turned_back(&self, own: OwnStore) -> Option<PeerState> {
        let to = own.recovering_to();
        let ahead = self.recovering_to.is_some_and(|at| at > to);
        ahead.then(|| PeerState { recovering_to: Some(to), ..self.clone() })
    }

    fn greeted(&mut self, own: OwnStore) {
        self.clock_before_token = self.clock_at_token;
        self.clock_at_token = own.latest;
        self.opened_revision = None;
    }

    /// A peer that was never greeted.
    pub fn new(id: PeerId, role: Role, division: Division) -> PeerState {
        PeerState {
            id,
            role,
            division,
            issued: Default::default(),
            token: None,
            clock_at_token: Stamp::default(),
            clock_before_token: Stamp::default(),
            opened_revision: None,
            epoch: 0,
            revision: 0,
            recovering_to: None,
            slot: 0,
            summed_through: 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn own(revision: u64) -> OwnStore {
        OwnStore {
            revision,
            latest: Stamp::from_ms(revision),
            now_ms: 1_000,
            drift_ms: 300,
            renewed_ms: None,
        }
    }

    fn child() -> Division {
        Division::parse("220822101").unwrap()
    }

    /// Greets and confirms; gives both sides as they are stored then.
    fn greeted(revision: u64) -> (PeerState, v1::Token) {
        let hello = v1::Hello { revision, ..v1::Hello::default() };
        let (plan, token) = welcome(None, PeerId(1), child(), &hello, own(revision), 7);
        (PeerState { issued: plan.peer.issued.confirmed(), ..plan.peer }, token.into())
    }

    #[test]
    fn a_child_that_fell_behind_what_was_seen_of_it_was_restored_whatever_its_token() {
        let (mut peer, token) = greeted(10);
        peer.revision = 15;
        let hello = |revision| v1::Hello { revision, token: Some(token), ..v1::Hello::default() };
        let made = |revision| welcome(Some(peer.clone()), PeerId(1), child(), &hello(revision), own(10), 8).0;
        assert_eq!(made(15).recognition, Recognition::Known);
        assert_eq!(made(14).recognition, Recognition::ChildRestored);
    }

    #[test]
    fn a_new_child_of_a_parent_that_was_put_back_may_have_what_it_lost_until_then() {
        let hello = v1::Hello { revision: 10, ..v1::Hello::default() };
        let met = |own| welcome(None, PeerId(1), child(), &hello, own, 8).0;
        assert_eq!(met(own(10)).peer.recovering_to, None);
        let plan = met(OwnStore { renewed_ms: Some(400), ..own(10) });
        assert_eq!(plan.peer.recovering_to, Some(Stamp::from_ms(700)));
        assert!(!plan.recover && plan.renew_after.is_none(), "nothing shows that it lost anything");
    }

    #[test]
    fn a_parent_that_has_caught_up_with_its_lost_life_still_notices() {
        let (mut peer, token) = greeted(10);
        let hello = v1::Hello { revision: 10, peer_revision: 15, token: Some(token), ..v1::Hello::default() };
        let made = |peer: &PeerState| welcome(Some(peer.clone()), PeerId(1), child(), &hello, own(40), 8).0;
        assert_eq!(made(&peer).recognition, Recognition::Known);
        peer.opened_revision = Some(12);
        let plan = made(&peer);
        assert_eq!(plan.recognition, Recognition::ParentRestored);
        assert_eq!(plan.peer.opened_revision, None, "the child has met the store as it is now");
        assert_eq!(
            plan.peer.recovering_to,
            Some(Stamp::from_ms(1_300)),
            "its lost clock may have been ahead"
        );
    }

    #[test]
    fn a_store_that_was_put_back_does_not_recover_by_a_clock_that_is_behind() {
        let known = PeerState::new(PeerId(1), Role::Parent, child().county());
        let welcome = |recognition: Recognition| v1::Welcome {
            recognition: recognition.into(),
            clock_ms: 1_301,
            ..v1::Welcome::default()
        };
        let behind = |welcome: &v1::Welcome, own: OwnStore| {
            welcomed(&known, welcome, own).clock_behind_ms(welcome.clock_ms, own)
        };
        assert_eq!(behind(&welcome(Recognition::ChildRestored), own(20)), Some(301));
        assert_eq!(behind(&welcome(Recognition::Known), own(20)), None, "nothing is lost");
        let near = OwnStore { now_ms: 1_001, ..own(20) };
        assert_eq!(behind(&welcome(Recognition::ChildRestored), near), None);
        let ahead = OwnStore { now_ms: 90_000, ..own(20) };
        assert_eq!(behind(&welcome(Recognition::ChildRestored), ahead), None);
    }

    #[test]
    fn a_recovery_waits_for_what_was_refused_to_be_taken_later_but_not_for_ever() {
        let known = PeerState::new(PeerId(1), Role::Child, child());
        let peer = PeerState { recovering_to: Some(own(20).recovering_to()), ..known };
        let after = |ms, refused| {
            let own = OwnStore { now_ms: 1_000 + ms, ..own(20) };
            peer.given(refused, own).map(|peer| peer.recovering_to)
        };
        assert_eq!(after(0, false), Some(None));
        assert_eq!((after(0, true), after(REFUSED_AGAIN_MS - 1, true)), (None, None));
        assert_eq!(after(REFUSED_AGAIN_MS, true), Some(None));
    }

    #[test]
    fn a_recovery_that_was_begun_by_a_clock_ahead_is_begun_when_it_is_set_back() {
        let ahead = OwnStore { now_ms: 9_000_000_000, ..own(20) };
        let known = PeerState::new(PeerId(1), Role::Child, child());
        let peer = PeerState { recovering_to: Some(ahead.recovering_to()), ..known };
        assert_eq!(peer.turned_back(ahead), None);
        let later = peer.turned_back(own(20)).unwrap();
        assert_eq!(later.recovering_to, Some(own(20).recovering_to()));
        assert_eq!(later.turned_back(own(20)), None);
    }

    #[test]
    fn what_is_written_again_reaches_back_to_the_token_before_the_last() {
        let known = PeerState {
            clock_at_token: Stamp::from_ms(9),
            clock_before_token: Stamp::from_ms(4),
            ..PeerState::new(PeerId(1), Role::Parent, child().county())
        };
        let welcome =
            v1::Welcome { recognition: Recognition::ChildRestored.into(), ..v1::Welcome::default() };
        let plan = welcomed(&known, &welcome, own(20));
        assert_eq!(plan.renew_after, Some(Stamp::from_ms(4)));
        assert_eq!(plan.peer.clock_before_token, Stamp::from_ms(9));
    }
}
