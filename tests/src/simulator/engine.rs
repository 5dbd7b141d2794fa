//! The steps of the engine: load, decide, apply, tell. A crash may come between any two; then the process forgets
//! everything, and whatever was not applied never was.

use std::sync::Arc;

use guantong_gateway::ingest::Work;
use guantong_gateway::ingest::changes::{Changes, LinkChange, PeerState, Quarantine, RecordKey, Refused};
use guantong_gateway::ingest::link::Sender;
use guantong_gateway::ingest::renewal::{self, Doubt};
use guantong_gateway::ingest::topology::Role;
use guantong_gateway::ingest::writers::{WriterState, Writers};
use guantong_gateway::merge;
use guantong_gateway::peering::{self, OwnStore, Plan};
use guantong_gateway::record::{NameError, RecordName, codec};
use guantong_gateway::schema::Schema;
use guantong_gateway::session::Inbound;
use guantong_gateway::session::greeting::Token;
use guantong_gateway::stamp::Stamp;
use guantong_proto::v1::{self, GoodbyeReason, Recognition, RefusalReason};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::disk::Disk;
use super::ledger::{Change, Ledger, changes_between};
use super::link::LinkId;
use super::node::{Command, DRIFT_MS, Node};

/// What a step needs besides the node.
pub struct Step<'a> {
    /// The one source of chance.
    pub rng: &'a mut ChaCha8Rng,
    /// The world's clock.
    pub now_ms: u64,
    /// What was written.
    pub ledger: &'a mut Ledger,
    /// The number of the node.
    pub index: usize,
    /// The process crashes before, or after, this step's transaction.
    pub crash: Option<Crash>,
}

/// Where a crash comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Everything was decided and nothing applied.
    BeforeCommit,
    /// Everything was applied and nobody told.
    AfterCommit,
}

/// What to tell a session after the commit.
enum Tell {
    Ingested(LinkId, u64, Vec<v1::Refusal>),
}

/// Brings a record in, once.
pub(super) fn bring(
    work: &mut Work<'_>,
    disk: &mut Disk,
    name: &RecordName,
) -> guantong_gateway::ingest::Slot {
    if let Some(slot) = work.slot(name) {
        return slot;
    }
    let loaded = disk.load(name).map(|(key, stored)| (key, stored.revision, stored.state.clone()));
    let (key, stored) = match loaded {
        Some((key, revision, state)) => (key, Some((revision, state))),
        None => (disk.allocate(), None),
    };
    match work.bring(name.clone(), key, stored) {
        Ok(slot) => slot,
        Err(error) => panic!("a stored record cannot be read: {error}"),
    }
}

impl Node {
    /// Takes what waits, up to a few commands, and carries it out in one transaction. Returns whether the process
    /// survived.
    pub fn step(&mut self, step: &mut Step<'_>) -> bool {
        let Some(command) = self.memory.inbox.pop_front() else { return true };
        match command {
            Command::Greet(link, hello) => self.greet(step, link, &hello),
            Command::Welcomed(link, welcome) => self.welcomed(step, link, &welcome),
            Command::Recovered(link) => {
                let peer = self.peer_of(link).and_then(|id| self.disk.peers.get(&id)).cloned();
                if let Some(peer) = peer.filter(|p| p.recovering_to.is_some()) {
                    let peer = PeerState { recovering_to: None, ..peer };
                    self.commit(&Changes::default(), &[LinkChange::Peer(peer)]);
                }
                true
            }
            first => {
                let mut group = vec![first];
                while group.len() < 4 && step.rng.random_bool(0.5) {
                    let groups = |c: &Command| {
                        !matches!(c, Command::Greet(..) | Command::Welcomed(..) | Command::Recovered(..))
                    };
                    if !self.memory.inbox.front().is_some_and(groups) {
                        break;
                    }
                    group.extend(self.memory.inbox.pop_front());
                }
                self.run_group(step, group)
            }
        }
    }

    fn run_group(&mut self, step: &mut Step<'_>, group: Vec<Command>) -> bool {
        let mut writers = self.writers();
        let mut links = Vec::new();
        let mut tell = Vec::new();
        let mut written: Vec<Change> = Vec::new();
        let prepared: Vec<Prepared> = group.into_iter().filter_map(|c| self.prepare(c)).flatten().collect();
        let schema = self.schema.clone();
        let mut seed: u64 = step.rng.random();
        let (_, changes, created) = self.decide(step.now_ms, step.rng, &mut writers, |work, disk| {
            for command in prepared {
                match command {
                    Prepared::Batch(link, sender, batch) => {
                        let refusals = take_batch(work, disk, &schema, &sender, &batch, &mut written);
                        tell.push(Tell::Ingested(link, batch.batch_id, refusals));
                    }
                    Prepared::Link(change) => links.push(change),
                    Prepared::Write(action) => {
                        seed = seed.wrapping_add(1);
                        written.extend(action.take(work, disk, seed));
                    }
                }
            }
        });
        let all: Vec<LinkChange> = created.into_iter().chain(links).collect();
        self.finish(step, &changes, &all, written, tell)
    }

    /// The transaction, between two chances to crash.
    fn finish(
        &mut self,
        step: &mut Step<'_>,
        changes: &Changes,
        links: &[LinkChange],
        written: Vec<Change>,
        tell: Vec<Tell>,
    ) -> bool {
        if step.crash == Some(Crash::BeforeCommit) {
            return false;
        }
        self.commit(changes, links);
        step.ledger.trace(|| self.told(changes));
        step.ledger.wrote(step.index, written);
        if step.crash == Some(Crash::AfterCommit) {
            return false;
        }
        for Tell::Ingested(link, batch, refusals) in tell {
            if let Some(end) = self.memory.ends.get_mut(&link) {
                end.session.ingested(batch, refusals);
                end.dirty = true;
            }
        }
        true
    }

    /// A transaction in words.
    fn told(&self, changes: &Changes) -> String {
        let name =
            |key: &RecordKey| self.disk.records.get(key).map(|s| format!("{:?}", s.name)).unwrap_or_default();
        let changed: Vec<String> = changes.records.iter().map(|r| name(&r.key)).collect();
        let division = |id| self.disk.peers.get(&id).map(|p| p.division);
        let owed: Vec<String> = changes
            .outbox
            .iter()
            .map(|g| format!("{:?}: {:?}", division(g.peer), g.keys.iter().map(name).collect::<Vec<_>>()))
            .collect();
        let watched: String = changed.iter().filter_map(|name| self.watched(name)).collect();
        format!("{} at {} changed {changed:?}, owes {owed:?}{watched}", self.division, self.disk.revision)
    }

    /// What the node has of a field that somebody wants to follow: `GUANTONG_SIM_WATCH=RECORD:FIELD`.
    fn watched(&self, name: &str) -> Option<String> {
        let watch = std::env::var("GUANTONG_SIM_WATCH").ok()?;
        let field: u32 = watch.strip_prefix(name)?.strip_prefix(':')?.parse().ok()?;
        let stored = self.disk.records.values().find(|s| format!("{:?}", s.name) == name)?;
        let record = codec::decode(stored.state.clone()).ok()?;
        Some(format!("\n      {name} {field}: {:?}", record.get(field)))
    }

    fn prepare(&self, command: Command) -> Option<Vec<Prepared>> {
        match command {
            Command::Ingest(link, batch, revision) => {
                let peer = self.disk.peers.get(&self.peer_of(link)?)?;
                let seen = LinkChange::Seen { peer: peer.id, revision };
                let sender = Sender {
                    peer: peer.id,
                    role: peer.role,
                    division: peer.division,
                    recovering_to: peer.recovering_to,
                    same_epoch: batch.same_epoch,
                    bulk: batch.lane == v1::Lane::Bulk,
                };
                Some(vec![Prepared::Batch(link, sender, batch), Prepared::Link(seen)])
            }
            Command::Delivered(link, seqs, refusals, revision) => {
                let peer = self.peer_of(link)?;
                let rows = seqs.iter().filter_map(|seq| self.disk.outbox.get(seq));
                let keys: Vec<RecordKey> = rows.flat_map(|row| row.keys.iter().copied()).collect();
                let refused = refusals.iter().filter_map(|r| self.quarantined(r)).collect();
                let delivered = LinkChange::Delivered { peer, seqs, keys, refused };
                Some(vec![Prepared::Link(delivered), Prepared::Link(LinkChange::Seen { peer, revision })])
            }
            Command::TokenConfirmed(link) => {
                Some(vec![Prepared::Link(LinkChange::TokenConfirmed(self.peer_of(link)?))])
            }
            Command::Write(action) => Some(vec![Prepared::Write(action)]),
            Command::Greet(..) | Command::Welcomed(..) | Command::Recovered(_) => None,
        }
    }

    fn quarantined(&self, refusal: &v1::Refusal) -> Option<Quarantine> {
        let name = RecordName::parse(&self.schema, &refusal.record).ok()?;
        let (key, _) = self.disk.load(&name)?;
        let refused = Refused {
            field: refusal.field,
            reason: refusal.reason(),
            detail: refusal.detail.clone(),
            retry_at_ms: u64::try_from(refusal.retry_at_ms).ok().filter(|ms| *ms > 0),
        };
        Some(Quarantine { key, refused })
    }

    fn own_store(&self, writers: &Writers, now_ms: u64) -> OwnStore {
        let revision = self.disk.revision;
        OwnStore { revision, latest: writers.latest(), now_ms: self.now_ms(now_ms), drift_ms: DRIFT_MS }
    }

    fn greet(&mut self, step: &mut Step<'_>, link: LinkId, hello: &v1::Hello) -> bool {
        let Some(end) = self.memory.ends.get(&link) else { return true };
        let child = end.other;
        let known = self.disk.peer(child).cloned();
        let id = known.as_ref().map_or_else(|| self.disk.next_peer(), |p| p.id);
        let own = self.own_store(&self.writers(), step.now_ms);
        let (plan, token) = peering::welcome(known, id, child, hello, own, step.rng.random());
        let older = self.memory.ends.iter().find(|(l, e)| **l != link && e.other == child && e.current);
        let older = older.map(|(l, _)| *l);
        let right = matches!(plan.recognition, Recognition::Known | Recognition::ParentRestored);
        if let Some(older) = older {
            let (gone, reason) = if right {
                (older, GoodbyeReason::Replaced)
            } else {
                (link, GoodbyeReason::DuplicateIdentity)
            };
            let now_ms = self.now_ms(step.now_ms);
            if let Some(end) = self.memory.ends.get_mut(&gone) {
                end.session.shutdown(now_ms, reason, "", 1_000);
                end.current = false;
                end.dirty = true;
            }
            if !right {
                return true;
            }
            self.memory.inbox.retain(|c| !c.is_of(older));
        }
        self.carry_out(step, link, plan, Some(token))
    }

    fn welcomed(&mut self, step: &mut Step<'_>, link: LinkId, welcome: &v1::Welcome) -> bool {
        let Some(peer) = self.peer_of(link).and_then(|id| self.disk.peers.get(&id)).cloned() else {
            return true;
        };
        let own = self.own_store(&self.writers(), step.now_ms);
        let plan = peering::welcomed(&peer, welcome, own);
        self.carry_out(step, link, plan, None)
    }

    /// What a greeting means, in one transaction.
    fn carry_out(&mut self, step: &mut Step<'_>, link: LinkId, plan: Plan, token: Option<Token>) -> bool {
        let Plan { recognition, mut peer, renew_after, recover, backfill, first_welcome } = plan;
        let mut writers = self.writers();
        let mut changes = Changes::default();
        let mut links = Vec::new();
        let mut rewritten = Vec::new();
        if let Some(after) = renew_after {
            (changes, links, rewritten) = self.renew(step, &mut writers, after, Doubt::Copied, |_| true);
            links.push(LinkChange::NewEpoch(step.rng.random()));
        }
        peer.clock_at_token = writers.latest();
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
        step.ledger.trace(|| format!("node {} greets {} as {recognition:?}", self.division, peer.division));
        if !self.finish(step, &changes, &links, rewritten, Vec::new()) {
            return false;
        }
        if renew_after.is_some() || backfill && peer.role == Role::Parent {
            self.forget_claims();
        }
        let now_ms = self.now_ms(step.now_ms);
        let epoch = self.disk.epoch;
        if let Some(end) = self.memory.ends.get_mut(&link) {
            match token {
                Some(token) => end.session.welcome(now_ms, epoch, recognition, token),
                None => end.session.token_stored(epoch),
            }
            end.current = true;
            end.dirty = true;
        }
        if renew_after.is_some() {
            // The other links were greeted by the store as it was: they are greeted anew.
            for end in self.memory.ends.iter_mut().filter(|(l, _)| **l != link).map(|(_, e)| e) {
                end.session.shutdown(now_ms, GoodbyeReason::Shutdown, "", 0);
                end.dirty = true;
            }
        }
        true
    }

    /// Gives up writers and writes again, as new ones, what they wrote after `after`.
    fn renew(
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

    /// What the engine looks after when nothing waits.
    pub fn look_after(&mut self, step: &mut Step<'_>, retry_all: bool) -> bool {
        let now_ms = self.now_ms(step.now_ms);
        self.mend_claim(now_ms);
        // No draw, so that seeds keep their fates.
        self.sum_next(1 + (now_ms % 15) as usize);
        let ahead = |s: &WriterState| s.clock.ran_ahead(now_ms, DRIFT_MS);
        if self.disk.writers.iter().any(|s| s.current && ahead(s)) {
            let mut writers = self.writers();
            let (changes, links, rewritten) =
                self.renew(step, &mut writers, Stamp::from_ms(now_ms), Doubt::ClockAhead, ahead);
            if !self.finish(step, &changes, &links, rewritten, Vec::new()) {
                return false;
            }
        }
        let due = self.disk.purges_ready();
        if !due.is_empty() {
            let mut writers = self.writers();
            let names: Vec<RecordName> =
                due.iter().filter_map(|k| Some(self.disk.records.get(k)?.name.clone())).collect();
            let (_, changes, links) = self.decide(step.now_ms, step.rng, &mut writers, |work, disk| {
                for name in &names {
                    let slot = bring(work, disk, name);
                    work.purge(slot);
                }
            });
            if !self.finish(step, &changes, &links, Vec::new(), Vec::new()) {
                return false;
            }
        }
        let due_ms = (!retry_all).then_some(now_ms);
        let mut links: Vec<LinkChange> = Vec::new();
        for peer in self.disk.peers.keys() {
            let due = |r: &Refused| due_ms.is_none_or(|now| r.retry_at_ms.is_some_and(|at| at <= now));
            if self.disk.quarantine.iter().any(|((p, ..), (_, r))| p == peer && due(r)) {
                links.push(LinkChange::RetryQuarantine { peer: *peer, due_ms });
            }
            let (keys, distinct) = self.disk.owed(*peer);
            if keys > 2 * distinct + 4 {
                links.push(LinkChange::CompactOutbox(*peer));
            }
        }
        links.is_empty() || self.finish(step, &Changes::default(), &links, Vec::new(), Vec::new())
    }
}

enum Prepared {
    Batch(LinkId, Sender, Inbound),
    Link(LinkChange),
    Write(super::workload::Action),
}

impl Command {
    /// Whether it came over a link.
    fn is_of(&self, link: LinkId) -> bool {
        match self {
            Command::Greet(l, _)
            | Command::Welcomed(l, _)
            | Command::TokenConfirmed(l)
            | Command::Ingest(l, ..)
            | Command::Delivered(l, ..)
            | Command::Recovered(l) => *l == link,
            Command::Write(_) => false,
        }
    }
}

fn take_batch(
    work: &mut Work<'_>,
    disk: &mut Disk,
    schema: &Arc<Schema>,
    sender: &Sender,
    batch: &Inbound,
    written: &mut Vec<Change>,
) -> Vec<v1::Refusal> {
    let mut refusals = Vec::new();
    for record in &batch.records {
        let mut refuse = |field: u32, reason: RefusalReason, detail: String, retry_at_ms: Option<u64>| {
            let (record, reason) = (record.name.clone(), reason.into());
            let retry_at_ms = retry_at_ms.unwrap_or(0) as i64;
            refusals.push(v1::Refusal { record, field, reason, detail, retry_at_ms });
        };
        let name = match RecordName::parse(schema, &record.name) {
            Ok(name) => name,
            Err(error) => {
                let unknown = matches!(error, NameError::Kind(_));
                let reason = if unknown { RefusalReason::UnknownKind } else { RefusalReason::Malformed };
                refuse(0, reason, error.to_string(), None);
                continue;
            }
        };
        match codec::decode(record.state.clone()) {
            Ok(decoded) => {
                let slot = bring(work, disk, &name);
                let mut before = work.record(slot).clone();
                merge::merge_record(&mut before, &decoded);
                let accepted = work.accept(sender, slot, decoded.clone(), &record.state, None);
                // What the node itself had to say to that.
                let own = |c: &Change| decoded.get(c.field).and_then(|r| r.seen(c.writer)) < Some(c.stamp);
                written.extend(
                    changes_between(schema, &name, &before, work.record(slot)).into_iter().filter(own),
                );
                for r in accepted.refused {
                    refuse(r.field, r.reason, r.detail, r.retry_at_ms);
                }
            }
            Err(error) => refuse(0, RefusalReason::Malformed, error.to_string(), None),
        }
    }
    refusals
}
