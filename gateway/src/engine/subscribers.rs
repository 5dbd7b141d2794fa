//! Subscriptions: begun, filled anew and ended, each in a transaction of its own.

use super::EngineError;
use super::command::NewSubscription;
use super::task::Task;
use crate::audit::Event;
use crate::ingest::changes::{Changes, CoveredKinds, LinkChange, PeerState, Subscription};
use crate::ingest::topology::{PeerId, Role};

/// Subscriptions of one node. Every changed record is compared with each.
const SUBSCRIPTIONS_MAX: usize = 200;
/// Those of one partner, so that none takes the places of the others.
const PARTNER_SUBSCRIPTIONS_MAX: usize = 20;

impl Task {
    /// Begins a subscription.
    pub(super) async fn subscribe(&mut self, new: NewSubscription) -> Result<Subscription, EngineError> {
        if self.subscriptions.values().any(|s| s.id == new.id) {
            return Err(EngineError::SubscriptionExists);
        }
        let own = self.subscriptions.values().filter(|s| new.owner.is_some() && s.owner == new.owner).count();
        for (count, most) in [(self.subscriptions.len(), SUBSCRIPTIONS_MAX), (own, PARTNER_SUBSCRIPTIONS_MAX)]
        {
            if count >= most {
                return Err(EngineError::TooManySubscriptions(most));
            }
        }
        let NewSubscription { id, owner, interest, personal, filled_for } = new;
        let peer = PeerState::new(self.next_peer(), Role::Partner, interest.scope);
        let created_ms = (self.shared.environment.now_ms)();
        let subscription =
            Subscription { peer: peer.id, id, owner, interest, personal, filled_for, created_ms };
        let links = [LinkChange::Peer(peer.clone()), self.fill(subscription.clone())];
        let audit = vec![
            Event::Subscribed {
                subscription: subscription.id.clone(),
                owner: subscription.owner.clone().unwrap_or_default(),
                personal: subscription.personal,
            }
            .into(),
        ];
        self.commit(&Changes { audit, ..Changes::default() }, &links).await?;
        self.peers.insert(peer.id, peer);
        self.subscriptions.insert(subscription.peer, subscription.clone());
        self.refresh_topology(None);
        Ok(subscription)
    }

    /// Ends a subscription. One that is gone already is no error.
    pub(super) async fn unsubscribe(&mut self, peer: PeerId) -> Result<(), EngineError> {
        let Some(known) = self.subscriptions.get(&peer) else { return Ok(()) };
        let audit = vec![Event::Unsubscribed { subscription: known.id.clone() }.into()];
        let changes = Changes { audit, ..Changes::default() };
        self.commit(&changes, &[LinkChange::Unsubscribe(peer)]).await?;
        self.subscriptions.remove(&peer);
        self.peers.remove(&peer);
        self.refresh_topology(None);
        Ok(())
    }

    /// Owes a subscription everything anew, if it was filled for something else or its reader asked for it.
    pub(super) async fn refill(
        &mut self,
        peer: PeerId,
        filled_for: u64,
        asked: bool,
    ) -> Result<(), EngineError> {
        let due = |known: &&Subscription| asked || known.filled_for != filled_for;
        let Some(known) = self.subscriptions.get(&peer).filter(due) else { return Ok(()) };
        let subscription = Subscription { filled_for, ..known.clone() };
        self.commit(&Changes::default(), &[self.fill(subscription.clone())]).await?;
        self.subscriptions.insert(peer, subscription);
        Ok(())
    }

    /// Owes every subscription everything anew: the store has lost what it had sent since it was copied.
    pub(super) fn fill_all(&self) -> Vec<LinkChange> {
        self.subscriptions.values().map(|s| self.fill(s.clone())).collect()
    }

    fn fill(&self, subscription: Subscription) -> LinkChange {
        let all = self.shared.schema.kinds().iter().map(|k| k.id);
        let asked = &subscription.interest.kinds;
        let all: Vec<u32> =
            all.filter(|kind| asked.is_empty() || asked.contains(kind)).map(|kind| kind.0).collect();
        let mut subtree = self.subtree_kinds();
        subtree.retain(|kind| all.contains(kind));
        LinkChange::Subscribe { subscription, kinds: CoveredKinds { all, subtree } }
    }
}
