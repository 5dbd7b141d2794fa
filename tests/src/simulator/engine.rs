//! The steps of the engine: load, decide, apply, tell. A crash may come between any two; then the process forgets
//! everything, and whatever was not applied never was.

use std::sync::Arc;

use guantong_gateway::division::Division;
use guantong_gateway::ingest::Work;
use guantong_gateway::ingest::changes::{Changes, LinkChange, Quarantine, RecordKey, Refused};
use guantong_gateway::ingest::link::Sender;
use guantong_gateway::ingest::renewal::Doubt;
use guantong_gateway::ingest::writers::WriterState;
use guantong_gateway::merge;
use guantong_gateway::record::{NameError, RecordName, codec};
use guantong_gateway::schema::Schema;
use guantong_gateway::session::Inbound;
use guantong_gateway::stamp::Stamp;
use guantong_proto::v1::{self, GoodbyeReason, RefusalReason};
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
    /// Records that a transaction of this step changed.
    pub changed: Vec<RecordName>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// The disk is full: nothing was applied, and everyone is told so.
    Full,
    Crashed,
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
pub(super) enum Tell {
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
            Command::Recovered(link, refused) => {
                let peer = self.peer_of(link).and_then(|id| self.disk.peers.get(&id)).cloned();
                let own = self.own_store(&self.writers(), step.now_ms);
                let peer = peer.and_then(|peer| peer.given(refused, own));
                if peer.is_some_and(|peer| !self.commit(&Changes::default(), &[LinkChange::Peer(peer)])) {
                    self.end_links(step.now_ms, [link]);
                }
                true
            }
            Command::Owe(link, names) => self.owe(step, link, &names),
            first => {
                let mut group = vec![first];
                while group.len() < 4 && step.rng.random_bool(0.5) {
                    let groups = |c: &Command| {
                        !matches!(
                            c,
                            Command::Greet(..)
                                | Command::Welcomed(..)
                                | Command::Recovered(..)
                                | Command::Owe(..)
                        )
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
        let of: Vec<LinkId> = group.iter().filter_map(Command::link).collect();
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
        let fate = self.finish(step, &changes, &all, written, tell);
        if fate == Fate::Full {
            self.end_links(step.now_ms, of);
        }
        fate != Fate::Crashed
    }

    /// What came over these links could not be stored: without receipts the other side keeps what it sent.
    pub(super) fn end_links(&mut self, now_ms: u64, links: impl IntoIterator<Item = LinkId>) {
        for link in links {
            if let Some(end) = self.memory.ends.get_mut(&link) {
                end.session.shutdown(end.now_ms(now_ms), GoodbyeReason::Busy, "the disk is full", 0);
                end.dirty = true;
            }
        }
    }

    /// The transaction, between two chances to crash.
    pub(super) fn finish(
        &mut self,
        step: &mut Step<'_>,
        changes: &Changes,
        links: &[LinkChange],
        written: Vec<Change>,
        tell: Vec<Tell>,
    ) -> Fate {
        if step.crash == Some(Crash::BeforeCommit) {
            return Fate::Crashed;
        }
        if !self.commit(changes, links) {
            return Fate::Full;
        }
        for (key, field) in std::mem::take(&mut self.disk.let_go) {
            let name = self.disk.records.get(&key).map(|stored| stored.name.clone());
            name.map(|name| step.ledger.let_go.insert((step.index, name, field), step.ledger.step));
        }
        step.changed.extend(changes.records.iter().map(|record| record.name.clone()));
        step.ledger.trace(|| self.told(changes));
        step.ledger.wrote(step.index, written);
        if step.crash == Some(Crash::AfterCommit) {
            return Fate::Crashed;
        }
        for Tell::Ingested(link, batch, refusals) in tell {
            if let Some(end) = self.memory.ends.get_mut(&link) {
                end.session.ingested(batch, refusals);
                end.dirty = true;
            }
        }
        Fate::Done
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
            Command::Greet(..) | Command::Welcomed(..) | Command::Recovered(..) | Command::Owe(..) => None,
        }
    }

    pub(super) fn quarantined(&self, refusal: &v1::Refusal) -> Option<Quarantine> {
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

    /// What the engine looks after when nothing waits.
    pub fn look_after(&mut self, step: &mut Step<'_>, retry_all: bool) {
        let now_ms = self.now_ms(step.now_ms);
        self.mend_claim(now_ms);
        // No draw, so that seeds keep their fates.
        self.sum_next(1 + (now_ms % 15) as usize);
        let ahead = |s: &WriterState| s.clock.ran_ahead(now_ms, DRIFT_MS);
        let is_refused = self.disk.quarantine.values().any(|(_, refused)| refused.retry_at_ms.is_some());
        if is_refused && self.disk.writers.iter().any(|s| s.current && ahead(s)) {
            let mut writers = self.writers();
            let (changes, mut links, rewritten) =
                self.renew(step, &mut writers, Stamp::from_ms(now_ms), Doubt::ClockAhead, ahead);
            let own = self.own_store(&writers, step.now_ms);
            links.extend(self.disk.peers.values().filter_map(|p| p.turned_back(own)).map(LinkChange::Peer));
            self.finish(step, &changes, &links, rewritten, Vec::new());
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
            self.finish(step, &changes, &links, Vec::new(), Vec::new());
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
        if !links.is_empty() {
            self.finish(step, &Changes::default(), &links, Vec::new(), Vec::new());
        }
    }
}

enum Prepared {
    Batch(LinkId, Sender, Inbound),
    Link(LinkChange),
    Write(super::workload::Action),
}

impl Command {
    /// The link that it came over.
    pub(super) fn link(&self) -> Option<LinkId> {
        match self {
            Command::Greet(link, _)
            | Command::Welcomed(link, _)
            | Command::TokenConfirmed(link)
            | Command::Ingest(link, ..)
            | Command::Delivered(link, ..)
            | Command::Owe(link, _)
            | Command::Recovered(link, _) => Some(*link),
            Command::Write(_) => None,
        }
    }
}

/// A batch that came, in words.
pub(super) fn batch_told(node: &Node, from: Division, batch: &Inbound) -> String {
    let told = |r: &v1::BatchRecord| {
        let fields =
            codec::decode(r.state.clone()).map(|r| r.fields().iter().map(|f| f.0).collect::<Vec<_>>());
        format!("{} {:?}", r.name, fields.unwrap_or_default())
    };
    let records: Vec<String> = batch.records.iter().map(told).collect();
    format!("{} gets from {from}: {records:?}", node.division)
}

pub(super) fn take_batch(
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
