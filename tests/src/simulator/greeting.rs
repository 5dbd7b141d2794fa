//! Greetings: what `peering` decides, carried out in one transaction, and what a store that was put back does about it.
//!
//! It must decide nothing itself: the order of the steps is the engine's.

use guantong_gateway::ingest::changes::{Changes, LinkChange, PeerState, RecordKey};
use guantong_gateway::ingest::renewal::{self, Doubt};
use guantong_gateway::ingest::topology::Role;
use guantong_gateway::ingest::writers::{WriterState, Writers};
use guantong_gateway::peering::{self, OwnStore, Plan};
use guantong_gateway::record::{RecordName, codec};
use guantong_gateway::session::greeting::Token;
use guantong_gateway::stamp::Stamp;
use guantong_proto::v1::{self, GoodbyeReason, Recognition};
use rand::Rng;

use super::engine::{Fate, Step, bring};
use super::ledger::{Change, changes_between};
use super::link::LinkId;
use super::node::{DRIFT_MS, Node};

impl Node {
    pub(super) fn own_store(&self, writers: &Writers, now_ms: u64) -> OwnStore {
        OwnStore {
            revision: self.disk.revision,
            latest: writers.latest(),
            now_ms: self.now_ms(now_ms),
            drift_ms: DRIFT_MS,
            renewed_ms: self.disk.renewed_ms,
        }
    }

    pub(super) fn greet(&mut self, step: &mut Step<'_>, link: LinkId, hello: &v1::Hello) -> bool {
        let Some(end) = self.memory.ends.get(&link) else { return true };
        let child = end.other;
        let known = self.disk.peer(child).cloned();
        let id = known.as_ref().map_or_else(|| self.disk.next_peer(), |p| p.id);
        let own = self.own_store(&self.writers(), step.now_ms);
        let (plan, token) = peering::welcome(known, id, child, hello, own, step.rng.random());
        if plan.clock_behind_ms(hello.clock_ms, own).is_some() {
            self.end_links(step.now_ms, [link]);
            return true;
        }
        let older = self.memory.ends.iter().find(|(l, e)| **l != link && e.other == child && e.current);
        let older = older.map(|(l, _)| *l);
        let right = matches!(plan.recognition, Recognition::Known | Recognition::ParentRestored);
        if let Some(older) = older {
            let (gone, reason) = if right {
                (older, GoodbyeReason::Replaced)
            } else {
                (link, GoodbyeReason::DuplicateIdentity)
            };
            if let Some(end) = self.memory.ends.get_mut(&gone) {
                end.session.shutdown(end.now_ms(step.now_ms), reason, "", 1_000);
                end.current = false;
                end.dirty = true;
            }
            if !right {
                return true;
            }
            self.memory.inbox.retain(|c| c.link() != Some(older));
        }
        self.carry_out(step, link, plan, Some(token))
    }

    pub(super) fn welcomed(&mut self, step: &mut Step<'_>, link: LinkId, welcome: &v1::Welcome) -> bool {
        let Some(peer) = self.peer_of(link).and_then(|id| self.disk.peers.get(&id)).cloned() else {
            return true;
        };
        let own = self.own_store(&self.writers(), step.now_ms);
        let plan = peering::welcomed(&peer, welcome, own);
        if plan.clock_behind_ms(welcome.clock_ms, own).is_some() {
            self.end_links(step.now_ms, [link]);
            return true;
        }
        self.carry_out(step, link, plan, None)
    }

    /// What a greeting over a line means.
    fn carry_out(&mut self, step: &mut Step<'_>, link: LinkId, plan: Plan, token: Option<Token>) -> bool {
        let recognition = plan.recognition;
        let other = plan.peer.division;
        step.ledger.trace(|| format!("node {} greets {other} as {recognition:?}", self.division));
        match self.settle_meeting(step, plan, Some(link), Vec::new()) {
            Fate::Done => {}
            Fate::Full => {
                self.end_links(step.now_ms, [link]);
                return true;
            }
            Fate::Crashed => return false,
        }
        let epoch = self.disk.epoch;
        if let Some(end) = self.memory.ends.get_mut(&link) {
            match token {
                Some(token) => end.session.welcome(end.now_ms(step.now_ms), epoch, recognition, token),
                None => end.session.token_stored(epoch),
            }
            end.current = true;
            end.dirty = true;
        }
        self.begin_comparing(link, step.now_ms);
        true
    }

    /// What a greeting means, over a line or in a bundle, in one transaction.
    pub(super) fn settle_meeting(
        &mut self,
        step: &mut Step<'_>,
        plan: Plan,
        on_line: Option<LinkId>,
        also: Vec<LinkChange>,
    ) -> Fate {
        let Plan { mut peer, renew_after, recover, backfill, first_welcome, .. } = plan;
        let mut writers = self.writers();
        let mut changes = Changes::default();
        let mut links = Vec::new();
        let mut rewritten = Vec::new();
        if let Some(after) = renew_after {
            (changes, links, rewritten) = self.renew(step, &mut writers, after, Doubt::Copied, |_| true);
            rewritten.iter_mut().for_each(|change| change.is_again = true);
            links.push(LinkChange::NewEpoch { epoch: step.rng.random(), at_ms: self.now_ms(step.now_ms) });
        }
        if on_line.is_some() {
            peer.clock_at_token = writers.latest();
        }
        let scope = (peer.role == Role::Child).then_some(peer.division);
        if first_welcome {
            changes.purges.extend(self.to_purge(&peer));
            links.push(self.know_child(peer.division));
        }
        if recover {
            let to = Some(self.own_store(&writers, step.now_ms).recovering_to());
            let others = self.disk.peers.values().filter(|p| p.role == Role::Child && p.id != peer.id);
            links.extend(others.map(|p| LinkChange::Peer(PeerState { recovering_to: to, ..p.clone() })));
        }
        links.push(LinkChange::Peer(peer.clone()));
        links.push(if backfill {
            LinkChange::Backfill { peer: peer.id, scope, subtree_kinds: self.subtree_kinds() }
        } else {
            LinkChange::RetryQuarantine { peer: peer.id, due_ms: None }
        });
        links.extend(also);
        let fate = self.finish(step, &changes, &links, rewritten, Vec::new());
        if fate != Fate::Done {
            return fate;
        }
        if renew_after.is_some() || backfill && peer.role == Role::Parent {
            self.forget_claims();
        }
        if renew_after.is_some() {
            // The other links were greeted by the store as it was: they are greeted anew.
            for end in self.memory.ends.iter_mut().filter(|(l, _)| Some(**l) != on_line).map(|(_, e)| e) {
                end.session.shutdown(end.now_ms(step.now_ms), GoodbyeReason::Shutdown, "", 0);
                end.dirty = true;
            }
        }
        fate
    }

    /// Gives up writers and writes again, as new ones, what they wrote after `after`.
    pub(super) fn renew(
        &mut self,
        step: &mut Step<'_>,
        writers: &mut Writers,
        after: Stamp,
        doubt: Doubt,
        give_up: impl FnMut(&WriterState) -> bool,
    ) -> (Changes, Vec<LinkChange>, Vec<Change>) {
        let given_up = writers.renew(give_up);
        let names: Vec<RecordName> = self.disk.names.keys().cloned().collect();
        let (rewritten, changes, created) = self.decide(step.now_ms, step.rng, writers, |work, disk| {
            let mut rewritten = Vec::new();
            for name in &names {
                let slot = bring(work, disk, name);
                let before = work.record(slot).clone();
                work.restamp(slot, after, doubt);
                rewritten.extend(changes_between(work.context().schema, name, &before, work.record(slot)));
            }
            rewritten
        });
        let mut links: Vec<LinkChange> = given_up.into_iter().map(LinkChange::GiveUp).collect();
        links.extend(created);
        (changes, links, rewritten)
    }

    fn to_purge(&self, child: &PeerState) -> Vec<RecordKey> {
        let mut topology = self.disk.topology(self.division);
        topology.add_child(child.id, child.division);
        let excess = |stored: &super::disk::Stored| {
            let Ok(record) = codec::decode(stored.state.clone()) else { return false };
            let kind = self.schema.kind(stored.name.kind);
            !renewal::excess(&topology, kind, stored.name.home, &record).is_empty()
        };
        let inside = self.disk.records.iter().filter(|(_, s)| child.division.contains(s.name.home));
        inside.filter(|(_, stored)| excess(stored)).map(|(key, _)| *key).collect()
    }
}
