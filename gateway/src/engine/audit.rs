//! The audit log beside the writing task: what is noted outside of transactions waits here, for a second at most, and
//! goes to disk with the task's next look; what was exchanged is summed up; checkpoints are judged and kept.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use guantong_proto::v1::{self, RefusalReason};

use super::command::Command;
use super::task::Task;
use super::{Engine, EngineError, Shared};
use crate::audit::{Event, Gathered, Hash, Note, Side, Signed, Standing, Untaken, judge};
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange};
use crate::ingest::topology::{PeerId, Role};
use crate::record::RecordName;

/// A checkpoint to keep.
#[derive(Clone, Debug)]
pub struct HandedIn {
    /// It.
    pub signed: Signed,
    /// A child's: the entry that it says to follow, and the digests of the lines after that. `None`: this node's own.
    pub follows: Option<(u64, Vec<Hash>)>,
}

/// What peers sent and confirmed in one transaction.
#[derive(Default)]
pub(super) struct Exchanges {
    received: BTreeMap<PeerId, Received>,
    delivered: BTreeMap<PeerId, (u64, u64)>,
    refused: BTreeMap<(PeerId, Side, i32), Refused>,
}

#[derive(Default)]
struct Received {
    records: u64,
    refused: u64,
    hash: blake3::Hasher,
}

struct Refused {
    record: String,
    field: u32,
    count: u64,
}

impl Exchanges {
    /// A batch was taken in, but for what was refused.
    pub(super) fn received(&mut self, peer: PeerId, records: &[v1::BatchRecord], refusals: &[v1::Refusal]) {
        let received = self.received.entry(peer).or_default();
        received.records += records.len() as u64;
        received.refused += refusals.len() as u64;
        for record in records {
            for part in [record.name.as_bytes(), &record.state] {
                received.hash.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
        }
        self.refused(peer, Side::Own, refusals);
    }

    /// A peer confirmed records, but for what it refused.
    pub(super) fn delivered(&mut self, peer: PeerId, records: usize, refusals: &[v1::Refusal]) {
        let delivered = self.delivered.entry(peer).or_default();
        delivered.0 += records as u64;
        delivered.1 += refusals.len() as u64;
        self.refused(peer, Side::Peer, refusals);
    }

    fn refused(&mut self, peer: PeerId, by: Side, refusals: &[v1::Refusal]) {
        for refusal in refusals {
            let first = || Refused { record: refusal.record.clone(), field: refusal.field, count: 0 };
            // A reason that is not known is none: a peer could name thousands.
            let reason = i32::from(refusal.reason());
            self.refused.entry((peer, by, reason)).or_insert_with(first).count += 1;
        }
    }

    /// As entries of the log.
    pub(super) fn note(self, task: &Task, audit: &mut Vec<Note>) {
        let division = |peer: &PeerId| task.peers.get(peer).filter(|p| p.role != Role::Partner);
        for (peer, Received { records, refused, hash }) in self.received {
            let Some(peer) = division(&peer).map(|p| p.division) else { continue };
            let checksum = hash.finalize().to_hex()[..32].to_owned();
            audit.push(Event::Received { peer, records, refused, checksum }.into());
        }
        for (peer, (records, refused)) in self.delivered {
            let node = division(&peer).map(|p| format!("node:{}", p.division));
            let subscription = || task.subscriptions.get(&peer).map(|s| format!("subscription:{}", s.id));
            if let Some(peer) = node.or_else(subscription).filter(|_| records + refused > 0) {
                audit.push(Event::Delivered { peer, records, refused }.into());
            }
        }
        for ((peer, by, reason), Refused { record, field, count: refusals }) in self.refused {
            let Some(peer) = division(&peer).map(|p| p.division) else { continue };
            let reason = RefusalReason::try_from(reason).unwrap_or_default();
            // What is no name may be anything at all.
            let readable = RecordName::parse(&task.shared.schema, &record).is_ok();
            let record = if readable { record } else { String::new() };
            audit.push(Event::Refused { peer, by, reason, record, field, refusals }.into());
        }
    }
}

/// What children sign of their logs that contradicts what is kept of them: for an operator to look at. By child and slot;
/// there are no more than children can sign for.
pub(super) type Contradictions = BTreeMap<(Division, i64), Contradiction>;

/// The last one of a chain.
pub(super) struct Contradiction {
    signed: Signed,
    alarm: String,
}

impl Shared {
    fn contradictions(&self) -> MutexGuard<'_, Contradictions> {
        self.contradictions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event that no transaction tells of. Never blocks: what finds no room is counted, and the count is
    /// written.
    pub fn audit(&self, event: Event) {
        self.gathered().put(event, (self.environment.now_ms)());
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Writes what was noted, as far as it is due.
    pub(super) async fn write_notes(&mut self, all: bool) -> Result<(), EngineError> {
        let now_ms = (self.shared.environment.now_ms)();
        let audit = self.shared.gathered().due(now_ms, all);
        let changes = Changes { audit, ..Changes::default() };
        if !changes.audit.is_empty() {
            self.commit(&changes, &[]).await?;
        }
        self.shared.gathered().written(&changes.audit, now_ms);
        Ok(())
    }

    /// Keeps a checkpoint, if it follows from what was kept before.
    pub(super) async fn keep_checkpoint(
        &mut self,
        handed: &HandedIn,
    ) -> Result<Result<Standing, Untaken>, EngineError> {
        let new = &handed.signed.checkpoint;
        let (peer, slot, number) = (new.division, new.slot, new.head.number);
        let mut changes = Changes::default();
        let mut standing = Standing::Next;
        if let Some((after, digests)) = &handed.follows {
            let newest = self.shared.store.newest_checkpoint(peer, slot).await?.map(|s| s.checkpoint);
            let kept = newest.map_or(0, |newest| newest.head.number);
            match judge(newest.as_ref(), new, *after, digests) {
                Ok(Standing::Known) => return Ok(Ok(Standing::Known)),
                Ok(Standing::Anew) => {
                    standing = Standing::Anew;
                    changes.audit.push(Event::CheckpointAnew { peer, slot, kept, signed: number }.into());
                    self.shared.alarm(format!(
                        "the store of {peer} was put back: its audit log goes on from before entry {kept}, the last one \
                         signed (下级节点数据曾被恢复，其审计日志不再包含已签名的部分记录)"
                    ));
                }
                Ok(taken) => standing = taken,
                Err(untaken) => {
                    if let Untaken::Contradicts { kept } = untaken {
                        self.shared.audit(Event::CheckpointContradicted { peer, slot, kept, signed: number });
                        let alarm = format!(
                            "the audit log of {peer} was changed: what it signs now contradicts its checkpoint at entry \
                             {kept}; once it is known why, `guantong audit accept {peer}` goes on from there \
                             (下级节点的审计日志与其先前签名不符，疑被篡改；查明后可用该命令确认)"
                        );
                        self.shared.alarm(alarm.clone());
                        let found = Contradiction { signed: handed.signed.clone(), alarm };
                        self.shared.contradictions().insert((peer, slot), found);
                    }
                    return Ok(Err(untaken));
                }
            }
        }
        self.commit(&changes, &[LinkChange::Checkpoint(handed.signed.clone())]).await?;
        // It goes on with what it signed before: there is nothing to accept, and the alarm stands.
        self.shared.contradictions().remove(&(peer, slot));
        Ok(Ok(standing))
    }

    /// Keeps what a child signed last in place of what it contradicts.
    pub(super) async fn accept_checkpoints(
        &mut self,
        child: Division,
        by: &str,
    ) -> Result<Vec<Signed>, EngineError> {
        let chains = (child, 0)..=(child, i64::MAX);
        let signed = |(_, found): (_, &Contradiction)| found.signed.clone();
        let accepted: Vec<Signed> = self.shared.contradictions().range(chains.clone()).map(signed).collect();
        let (mut audit, mut links) = (Vec::new(), Vec::new());
        for signed in &accepted {
            let (slot, new) = (signed.checkpoint.slot, signed.checkpoint.head);
            let newest = self.shared.store.newest_checkpoint(child, slot).await?;
            let old = newest.map(|newest| newest.checkpoint.head);
            let event = Event::CheckpointAccepted {
                peer: child,
                slot,
                kept: old.map_or(0, |old| old.number),
                kept_hash: old.map(|old| old.hash.to_string()).unwrap_or_default(),
                signed: new.number,
                signed_hash: new.hash.to_string(),
                by: by.to_owned(),
            };
            audit.push(event.into());
            links.push(LinkChange::CheckpointInstead(signed.clone()));
        }
        if links.is_empty() {
            return Ok(accepted);
        }
        self.commit(&Changes { audit, ..Changes::default() }, &links).await?;
        let mut contradictions = self.shared.contradictions();
        for signed in &accepted {
            if let Some(over) = contradictions.remove(&(child, signed.checkpoint.slot)) {
                self.shared.end_alarm(&over.alarm);
            }
        }
        drop(contradictions);
        Ok(accepted)
    }
}

impl Engine {
    /// Keeps a checkpoint of this node's log, or of a child's if it follows from the one kept before; if it does not, an
    /// alarm is raised. Whose it is and who signed it was checked.
    pub async fn keep_checkpoint(&self, handed: HandedIn) -> Result<Result<Standing, Untaken>, EngineError> {
        self.ask(|reply| Command::Checkpoint(Box::new(handed), reply)).await
    }

    /// Keeps what a child's gateways signed last in place of what was kept of them and contradicts it. Gives what is kept
    /// now; nothing: no contradiction is known.
    pub async fn accept_checkpoints(&self, child: Division, by: &str) -> Result<Vec<Signed>, EngineError> {
        self.ask(|reply| Command::AcceptCheckpoints(child, by.to_owned(), reply)).await
    }

    /// Notes an event that no transaction tells of: see [`Shared::audit`]. What a transaction does is noted in its
    /// `Changes::audit`.
    pub fn audit(&self, event: Event) {
        self.shared.audit(event);
    }
}
