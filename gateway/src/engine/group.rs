//! Commands that share a transaction: batches from links, local writes, receipts.

use std::collections::{HashMap, HashSet};

use guantong_proto::v1;
use prost::Message;

use super::audit::Exchanges;
use super::catch_up::abreast;
use super::command::{Command, Write, WriteAction};
use super::task::Task;
use super::{Answer, EngineError};
use crate::audit::{Event, Note};
use crate::casework::MoveRequest;
use crate::division::Division;
use crate::ingest::batch::Batch;
use crate::ingest::changes::{LinkChange, Quarantine, RecordKey, Refused, RequestMemory};
use crate::ingest::link::Sender;
use crate::ingest::local::{LocalWrite, WriteError, Written};
use crate::ingest::{Slot, Work};
use crate::record::RecordName;
use crate::step::Step;
use crate::store::Loaded;

/// Commands that wait for one transaction.
pub(super) struct Group {
    commands: Vec<Command>,
    weight: usize,
}

/// What became of a command, told after the commit.
enum Outcome {
    Refused(Vec<v1::Refusal>),
    Written(Vec<Result<Answer, EngineError>>),
    Noted,
    /// The peer is not known any more, or is linked elsewhere.
    Unknown,
}

impl Group {
    pub(super) fn of(command: Command) -> Group {
        Group { weight: command.weight(), commands: vec![command] }
    }

    pub(super) fn push(&mut self, command: Command) {
        self.weight += command.weight();
        self.commands.push(command);
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Decides and commits the whole group, and answers everyone in it.
    pub(super) async fn run(self, task: &mut Task) {
        Step::GroupTaken.reached();
        let mut outcomes = Vec::new();
        let done = abreast!(task, self.attempt(task, &mut outcomes));
        let mut outcomes = outcomes.into_iter();
        for command in self.commands {
            answer(command, outcomes.next(), &done);
        }
        Step::Answered.reached();
    }

    async fn attempt(&self, task: &mut Task, outcomes: &mut Vec<Outcome>) -> Result<(), EngineError> {
        outcomes.clear();
        let mut batches = HashMap::new();
        for (i, command) in self.commands.iter().enumerate() {
            if let Command::Link(batch, _) = command {
                batches.insert(i, Batch::read(&task.shared.schema, &batch.records));
            }
        }
        let prepared = self.prepare(task, &batches).await?;
        Step::RecordsLoaded.reached();
        self.decide(task, batches, prepared, outcomes).await
    }

    /// Loads the records that the group touches.
    async fn prepare(
        &self,
        task: &mut Task,
        batches: &HashMap<usize, Batch>,
    ) -> Result<Prepared, EngineError> {
        let mut names: Vec<RecordName> = Vec::with_capacity(self.weight);
        let mut requests = HashMap::new();
        for (i, command) in self.commands.iter().enumerate() {
            match command {
                Command::Link(..) => names.extend(batches[&i].names().cloned()),
                Command::Write(writes, _) => {
                    names.extend(writes.iter().map(|write| write.name.clone()));
                    for request in writes.iter().filter_map(|write| write.request.as_ref()) {
                        if let Some(done) = task.shared.store.request(&request.id).await? {
                            requests.insert(request.id.clone(), (done.content, done.key));
                        }
                    }
                }
                Command::Delivered { refusals, .. } => {
                    let parsed = |r: &v1::Refusal| RecordName::parse(&task.shared.schema, &r.record).ok();
                    names.extend(refusals.iter().filter_map(parsed));
                }
                _ => {}
            }
        }
        let records = task.load_records(names).await?;
        Ok(Prepared { records, requests })
    }

    async fn decide(
        &self,
        task: &mut Task,
        mut batches: HashMap<usize, Batch>,
        prepared: Prepared,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), EngineError> {
        let (senders, gone) = (self.senders(task), self.of_gone(task));
        let mut links: Vec<LinkChange> = Vec::new();
        let mut forks = false;
        let mut recovered: Vec<(Division, usize)> = Vec::new();
        let known = prepared.records.iter().map(|(n, l)| (n.clone(), l.key)).collect::<HashMap<_, _>>();
        let shared = task.shared.clone();
        let (decided, mut changes, created) = task.decide(self.weight, |work| {
            let unreadable = bring_all(work, prepared.records);
            let outcome = |(i, command): (usize, &Command)| match command {
                _ if gone.contains(&i) => Outcome::Unknown,
                Command::Link(batch, _) => {
                    let read = batches.remove(&i).unwrap_or_default();
                    let Some(sender) = senders.get(&i) else { return Outcome::Unknown };
                    let taken = work.take_batch(sender, read);
                    forks |= taken.forked;
                    if taken.recovered > 0 {
                        recovered.push((sender.division, taken.recovered));
                    }
                    links.push(LinkChange::Seen { peer: batch.peer, revision: batch.peer_revision });
                    Outcome::Refused(taken.refusals)
                }
                Command::Write(writes, _) => {
                    let take = |write: &Write| take_write(work, write, &prepared.requests, &unreadable);
                    Outcome::Written(writes.iter().map(take).collect())
                }
                Command::Delivered { peer, seqs, keys, refusals, peer_revision, .. } => {
                    let refused = quarantine(&shared.schema, &known, refusals);
                    let (peer, seqs, keys) = (*peer, seqs.clone(), keys.clone());
                    links.push(LinkChange::Delivered { peer, seqs, keys, refused });
                    links.push(LinkChange::Seen { peer, revision: *peer_revision });
                    Outcome::Noted
                }
                Command::TokenConfirmed(peer, _) => {
                    links.push(LinkChange::TokenConfirmed(*peer));
                    Outcome::Noted
                }
                _ => Outcome::Noted,
            };
            self.commands.iter().enumerate().map(outcome).collect::<Vec<_>>()
        });
        *outcomes = decided;
        self.note(task, outcomes, forks, &mut changes.audit);
        let mut all = created;
        all.append(&mut links);
        let done = task.commit(&changes, &all).await;
        task.note(&all, done.is_ok());
        if done.is_ok() {
            raise_alarms(&shared, forks, recovered);
        }
        done
    }
}

/// Says what a person must look at: a stamp that came with two contents, and children that brought back so many writes
/// of others.
fn raise_alarms(shared: &super::Shared, forks: bool, recovered: Vec<(Division, usize)>) {
    if forks {
        shared.alarm(
            "one stamp came with two contents: a node was copied while it ran, or a disk altered what it held; find \
             the copy and stop it, or check the disk (一个节点被复制运行，或磁盘改动了数据；请停用副本或检查磁盘)"
                .into(),
        );
    }
    for (child, count) in recovered {
        tracing::warn!(%child, count, "writes of others came back while this store recovers");
        shared.audit(Event::Recovered { peer: child });
        shared.alarm(format!(
            "while this store recovers, {child} brings back writes that are not its own; if this store was not \
             restored, stop that node (恢复期间，该节点带回了不属于它的写入；若本节点未曾恢复，请停用该节点)"
        ));
    }
}

impl Group {
    /// What was exchanged, for the audit log.
    fn note(&self, task: &Task, outcomes: &[Outcome], forks: bool, audit: &mut Vec<Note>) {
        let mut exchanges = Exchanges::default();
        for (command, outcome) in self.commands.iter().zip(outcomes) {
            match (command, outcome) {
                (Command::Link(batch, _), Outcome::Refused(refusals)) => {
                    exchanges.received(batch.peer, &batch.records, refusals);
                }
                (Command::Delivered { peer, keys, refusals, .. }, Outcome::Noted) => {
                    exchanges.delivered(*peer, keys.len(), refusals);
                }
                _ => {}
            }
        }
        exchanges.note(task, audit);
        audit.extend(forks.then(|| Event::StampForked.into()));
    }

    /// Whose batches these are, by their places; those of peers that are linked elsewhere by now are left out.
    fn senders(&self, task: &Task) -> HashMap<usize, Sender> {
        let sender = |(i, command): (usize, &Command)| match command {
            Command::Link(batch, _) => Some((i, task.sender(batch)?)),
            _ => None,
        };
        self.commands.iter().enumerate().filter_map(sender).collect()
    }

    /// The commands of links whose peers are linked elsewhere by now.
    fn of_gone(&self, task: &Task) -> HashSet<usize> {
        let is_gone = |command: &Command| match command {
            Command::Delivered { peer, .. } | Command::TokenConfirmed(peer, _) => !task.serves(*peer),
            _ => false,
        };
        self.commands.iter().enumerate().filter(|(_, command)| is_gone(command)).map(|(i, _)| i).collect()
    }
}

/// Answers a command. A write that was refused is answered so whether or not the rest of the group gets to disk;
/// without an outcome nothing was decided.
fn answer(command: Command, outcome: Option<Outcome>, done: &Result<(), EngineError>) {
    let done = done.clone();
    match (command, outcome) {
        (command, Some(Outcome::Unknown)) => fail(command, &EngineError::Elsewhere),
        (Command::Link(_, reply), Some(Outcome::Refused(refusals))) => {
            drop(reply.send(done.map(|()| refusals)));
        }
        (Command::Write(_, reply), Some(Outcome::Written(outcomes))) => {
            let answered =
                |outcome: Result<Answer, EngineError>| outcome.and_then(|a| done.clone().map(|()| a));
            drop(reply.send(Ok(outcomes.into_iter().map(answered).collect())));
        }
        (Command::Delivered { reply, .. } | Command::TokenConfirmed(_, reply), Some(Outcome::Noted)) => {
            drop(reply.send(done));
        }
        (command, _) => fail(command, &done.err().unwrap_or(EngineError::Stopped)),
    }
}

fn fail(command: Command, error: &EngineError) {
    match command {
        Command::Link(_, reply) => drop(reply.send(Err(error.clone()))),
        Command::Write(_, reply) => drop(reply.send(Err(error.clone()))),
        Command::Delivered { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::TokenConfirmed(_, reply) => drop(reply.send(Err(error.clone()))),
        _ => {}
    }
}

/// What a group needs from the store.
struct Prepared {
    records: Vec<(RecordName, Loaded)>,
    requests: HashMap<String, (u64, RecordKey)>,
}

/// Brings records into a work. Those that cannot be read are told apart: they must not be written over.
pub(super) fn bring_all(work: &mut Work<'_>, records: Vec<(RecordName, Loaded)>) -> Vec<RecordName> {
    let mut unreadable = Vec::new();
    for (name, loaded) in records {
        let stored = (loaded.revision > 0).then_some((loaded.revision, loaded.state));
        if work.bring(name.clone(), loaded.key, stored).is_err() {
            unreadable.push(name);
        }
    }
    unreadable
}

fn quarantine(
    schema: &crate::schema::Schema,
    known: &HashMap<RecordName, RecordKey>,
    refusals: &[v1::Refusal],
) -> Vec<Quarantine> {
    let row = |refusal: &v1::Refusal| {
        let name = RecordName::parse(schema, &refusal.record).ok()?;
        let key = known.get(&name)?;
        // Only what was sent can have been refused, and only fields with a rule are ever sent.
        if refusal.field != 0 && schema.kind(name.kind).field(refusal.field).is_none() {
            return None;
        }
        let refused = Refused {
            field: refusal.field,
            reason: refusal.reason(),
            detail: refusal.detail.chars().take(500).collect(),
            retry_at_ms: u64::try_from(refusal.retry_at_ms).ok().filter(|ms| *ms > 0),
        };
        Some(Quarantine { key: *key, refused })
    };
    refusals.iter().filter_map(row).collect()
}

fn take_write(
    work: &mut Work<'_>,
    write: &Write,
    requests: &HashMap<String, (u64, RecordKey)>,
    unreadable: &[RecordName],
) -> Result<Answer, EngineError> {
    if unreadable.contains(&write.name) {
        return Err(WriteError::NotFound.into());
    }
    let slot = work.slot(&write.name).ok_or(WriteError::NotFound)?;
    if let Some(request) = &write.request
        && let Some((content, key)) =
            requests.get(&request.id).copied().or_else(|| work.repeated(&request.id))
    {
        let written = Written { created: false, changed: false, conflicts: false };
        return if content == request.content {
            Ok(Answer { key, written })
        } else {
            Err(EngineError::RequestReused)
        };
    }
    let written = match &write.action {
        WriteAction::Fields(fields) => work.write(slot, fields, write.traceparent.as_ref())?,
        WriteAction::Erase(erase) => work.erase(slot, erase, write.traceparent.as_ref())?,
        WriteAction::Move { .. } => move_case(work, slot, write)?,
    };
    let key = work.key(slot);
    if let Some(request) = &write.request {
        let (request_id, content) = (request.id.clone(), request.content);
        work.remember(RequestMemory { request_id, content, key, done_ms: work.context().now_ms });
    }
    Ok(Answer { key, written })
}

fn move_case(work: &mut Work<'_>, slot: Slot, write: &Write) -> Result<Written, WriteError> {
    let WriteAction::Move { action, acting, to_division, to_unit, reason, outcome, basis, purpose, mandate } =
        &write.action
    else {
        return Err(WriteError::NotFound);
    };
    let lifecycle = work.lifecycle(slot);
    // Whoever must answer a hand-over speaks for itself, where this node acts for it.
    let addressed = lifecycle
        .as_ref()
        .and_then(|l| Division::parse(&l.pending_to).ok())
        .filter(|d| work.context().topology.acts_for(*d));
    let actor = match (*acting, addressed) {
        (Some(division), _) => work.writing_division(slot, Some(division))?,
        (None, Some(addressed)) => addressed,
        (None, None) => work.writing_division(slot, None)?,
    };
    let request = MoveRequest {
        action: *action,
        actor,
        to_division: *to_division,
        to_unit,
        reason,
        outcome: *outcome,
        now_ms: work.context().now_ms,
    };
    // Unique in the case: two moves of one case never have the same stamp and actor.
    let seed = (actor.code(), request.now_ms, lifecycle.map(|l| l.encode_to_vec()));
    let step_id = format!("{}-{:08x}", request.now_ms, blake3_32(format!("{seed:?}").as_bytes()));
    let (basis, purpose, mandate) = (basis.clone(), purpose.clone(), mandate.clone());
    let base = LocalWrite { basis, purpose, mandate, ..LocalWrite::of(Vec::new()) };
    work.move_case(slot, &request, &step_id, base, write.traceparent.as_ref())
}

fn blake3_32(bytes: &[u8]) -> u32 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
