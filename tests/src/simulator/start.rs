//! What a process does before anything else, and what an operator may do to it: start, upgrade, restore, copy.

use std::sync::Arc;

use guantong_gateway::ingest::changes::{Changes, LinkChange, PeerState};
use guantong_gateway::ingest::topology::Role;
use guantong_gateway::record::RecordName;
use guantong_gateway::schema::Schema;
use rand::Rng;

use super::engine::{Step, bring};
use super::node::{Memory, Node};

impl Node {
    /// Starts the process.
    pub fn start(&mut self, step: &mut Step<'_>) {
        self.up = true;
        self.memory = Memory::default();
        self.disk.open();
        if self.disk.epoch == 0 {
            self.disk.epoch = step.rng.random();
            self.disk.fingerprint = self.schema.fingerprint();
        }
        if self.disk.put_back {
            self.begin_as_restored(step);
        }
        if let Some(parent) = self.parent.filter(|p| self.disk.peer(*p).is_none()) {
            let peer = PeerState::new(self.disk.next_peer(), Role::Parent, parent);
            let backfill =
                LinkChange::Backfill { peer: peer.id, scope: None, subtree_kinds: self.subtree_kinds() };
            let _ = self.commit(&Changes::default(), &[LinkChange::Peer(peer), backfill]);
        }
        if self.disk.fingerprint != self.schema.fingerprint() {
            self.relearn(step);
        }
        self.count_own();
        self.know_claims();
    }

    /// An operator put the store back: it writes as another from now on, before anything is decided.
    fn begin_as_restored(&mut self, step: &mut Step<'_>) {
        let given_up = self.writers().renew(|_| true);
        let mut links: Vec<LinkChange> = given_up.into_iter().map(LinkChange::GiveUp).collect();
        links.push(LinkChange::NewEpoch { epoch: step.rng.random(), at_ms: self.now_ms(step.now_ms) });
        // By bundle nobody else sees that something is lost here.
        let to = Some(self.own_store(&self.writers(), step.now_ms).recovering_to());
        let by_bundle =
            |p: &&PeerState| p.role == Role::Child && self.disk.bundles.standing(p.division).peer_epoch != 0;
        let children = self.disk.peers.values().filter(by_bundle);
        links.extend(children.map(|p| LinkChange::Peer(PeerState { recovering_to: to, ..p.clone() })));
        if self.commit(&Changes::default(), &links) {
            self.disk.put_back = false;
        }
    }

    /// Another program: what it knows more, or less, is judged anew.
    fn relearn(&mut self, step: &mut Step<'_>) {
        self.disk.forget_sums(|_| true);
        let mut writers = self.writers();
        let names: Vec<RecordName> = self.disk.names.keys().cloned().collect();
        let (written, changes, links) = self.decide(step.now_ms, step.rng, &mut writers, |work, disk| {
            let mut written = Vec::new();
            for name in &names {
                let slot = bring(work, disk, name);
                let before = work.record(slot).clone();
                work.relearn(slot);
                written.extend(super::ledger::changes_between(
                    work.context().schema,
                    name,
                    &before,
                    work.record(slot),
                ));
            }
            written
        });
        self.disk.tallies.clear();
        self.disk.fingerprint = self.schema.fingerprint();
        let _ = self.commit(&changes, &links);
        step.ledger.wrote(step.index, written);
    }

    /// Stops the process, however far it was.
    pub fn stop(&mut self) {
        self.up = false;
        self.memory = Memory::default();
    }

    /// Puts another program in place.
    pub fn install(&mut self, schema: Arc<Schema>) {
        self.schema = schema;
    }
}
