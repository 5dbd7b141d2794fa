//! Greetings: what `peering` decides, carried out in one transaction before the session goes on.

use guantong_proto::v1;

use super::command::LinkBatch;
use super::group::bring_all;
use super::task::{SCAN_RECORDS, Task};
use super::{EngineError, Greeted};
use crate::audit::{Event, Note};
use crate::division::Division;
use crate::ingest::Work;
use crate::ingest::changes::{Changes, LinkChange, PeerState, RecordKey};
use crate::ingest::link::Sender;
use crate::ingest::renewal::{self, Doubt};
use crate::ingest::topology::{PeerId, Role};
use crate::peering::{self, OwnStore, Plan};
use crate::record::{Record, RecordName, codec};
use crate::session::greeting::Token;
use crate::stamp::Stamp;
use crate::store::{Loaded, StoredRecord};

/// A greeting that is understood, over a line or in a bundle.
pub(super) struct Meeting {
    plan: Plan,
    /// A child's.
    scope: Option<Division>,
    /// Tokens were exchanged: the clock is stored with them.
    on_line: bool,
    /// What else belongs into the transaction.
    pub(super) also: Vec<LinkChange>,
    pub(super) audit: Vec<Note>,
}

impl Meeting {
    pub(super) fn of(plan: Plan, scope: Option<Division>) -> Meeting {
        Meeting { plan, scope, on_line: false, also: Vec::new(), audit: Vec::new() }
    }
}

impl Task {
    pub(super) fn own_store(&self) -> OwnStore {
        OwnStore {
            revision: self.shared.revision(),
            latest: self.writers.latest(),
            now_ms: (self.shared.environment.now_ms)(),
            drift_ms: self.shared.environment.drift_ms,
            renewed_ms: self.renewed_ms,
        }
    }

    /// As a parent: what a Hello means.
    pub(super) async fn welcome(
        &mut self,
        child: Division,
        hello: &v1::Hello,
    ) -> Result<Greeted, EngineError> {
        let known = self.peers.values().find(|p| p.role == Role::Child && p.division == child).cloned();
        let id = known.as_ref().map_or_else(|| self.next_peer(), |p| p.id);
        let random = (self.shared.environment.random)();
        let (plan, token) = peering::welcome(known, id, child, hello, self.own_store(), random);
        self.refuse_clock_behind(&plan, hello.clock_ms)?;
        self.carry_out(plan, Some(child), Some(token)).await
    }

    /// As a child: what a Welcome means.
    pub(super) async fn welcomed(&mut self, welcome: &v1::Welcome) -> Result<Greeted, EngineError> {
        let parent = self.shared.topology().parent().and_then(|(id, _)| self.peers.get(&id).cloned());
        let parent = parent.ok_or(EngineError::Stopped)?;
        let plan = peering::welcomed(&parent, welcome, self.own_store());
        self.refuse_clock_behind(&plan, welcome.clock_ms)?;
        self.carry_out(plan, None, None).await
    }

    fn refuse_clock_behind(&self, plan: &Plan, peer_clock_ms: i64) -> Result<(), EngineError> {
        let Some(behind_ms) = plan.clock_behind_ms(peer_clock_ms, self.own_store()) else { return Ok(()) };
        let error = EngineError::ClockBehind { peer: plan.peer.division, behind_s: behind_ms / 1_000 };
        self.shared.alarm(error.to_string());
        Err(error)
    }

    async fn carry_out(
        &mut self,
        plan: Plan,
        scope: Option<Division>,
        token: Option<Token>,
    ) -> Result<Greeted, EngineError> {
        let recognition = plan.recognition;
        let mut meeting = Meeting::of(plan, scope);
        meeting.audit.push(Event::LinkUp { peer: meeting.plan.peer.division, recognition }.into());
        meeting.on_line = true;
        let peer = self.settle_meeting(meeting).await?;
        let (epoch, revision) = (self.shared.epoch(), self.shared.revision());
        Ok(Greeted { peer, recognition, token, epoch, revision })
    }

    /// Puts on disk what a greeting means, in one transaction, and keeps it in memory too. Gives the peer as it is stored.
    pub(super) async fn settle_meeting(&mut self, meeting: Meeting) -> Result<PeerState, EngineError> {
        let Meeting { plan, scope, on_line, also, audit } = meeting;
        let Plan { mut peer, renew_after, recover, backfill, first_welcome, .. } = plan;
        peer.slot = self.shared.store.slot();
        let mut links: Vec<LinkChange> = Vec::new();
        let mut changes = Changes::default();
        let mut epoch = None;
        let recovery = renew_after.map(|_| {
            let was_known =
                self.peers.get(&peer.id).is_some_and(|p| p.token.is_some() || p.issued.newest.is_some());
            self.recovery_begun(peer.role, was_known)
        });
        links.extend(recovery.clone().map(LinkChange::Recovery));
        if let Some(after) = renew_after {
            let why = "this store was restored or copied: it becomes a new writer (本节点数据曾被恢复或复制，已更换写入身份)";
            self.shared.alarm(why.into());
            let (renewed, renewal) = self.renew(after, Doubt::Copied, |_| true).await?;
            changes = renewed;
            links.extend(renewal);
            let fresh = (self.shared.environment.random)();
            let at_ms = (self.shared.environment.now_ms)();
            links.push(LinkChange::NewEpoch { epoch: fresh, at_ms });
            links.extend(self.fill_all());
            epoch = Some((fresh, at_ms));
            changes.audit.push(Event::StoreRenewed { epoch: format!("{fresh:016x}") }.into());
        }
        changes.audit.extend(audit);
        if on_line {
            peer.clock_at_token = self.writers.latest();
        }
        if first_welcome {
            changes.purges.extend(self.excess_of_scope(peer.id, peer.division).await?);
            links.push(self.know_child(peer.division));
        }
        let mut recovering: Vec<_> = Vec::new();
        if recover {
            let to = Some(self.own_store().recovering_to());
            recovering
                .extend(self.peers.values().filter(|p| p.role == Role::Child && p.id != peer.id).cloned());
            recovering.iter_mut().for_each(|child| child.recovering_to = to);
            links.extend(recovering.iter().cloned().map(LinkChange::Peer));
        }
        links.push(LinkChange::Peer(peer.clone()));
        links.push(if backfill {
            LinkChange::Backfill { peer: peer.id, scope, subtree_kinds: self.subtree_kinds() }
        } else {
            LinkChange::RetryQuarantine { peer: peer.id, due_ms: None }
        });
        links.extend(also);
        self.commit(&changes, &links).await?;
        for peer in recovering.into_iter().chain([peer.clone()]) {
            self.peers.insert(peer.id, peer);
        }
        if let Some((epoch, at_ms)) = epoch {
            self.shared.epoch.store(epoch, std::sync::atomic::Ordering::Release);
            self.renewed_ms = Some(at_ms);
        }
        if first_welcome {
            self.refresh_topology(None);
        }
        if recovery.is_some() {
            self.know_recovery(recovery);
        }
        self.note_recovering();
        self.note_elsewhere();
        if epoch.is_some() || backfill && peer.role == Role::Parent {
            self.forget_claims();
        }
        Ok(peer)
    }

    /// Gives up writers and writes again, as new ones, what they wrote after `after`. Nothing is committed yet.
    pub(super) async fn renew(
        &mut self,
        after: Stamp,
        doubt: Doubt,
        give_up: impl FnMut(&crate::ingest::writers::WriterState) -> bool,
    ) -> Result<(Changes, Vec<LinkChange>), EngineError> {
        let renewed = self.writers.renew(give_up);
        let given_up: std::collections::HashSet<crate::stamp::Writer> =
            self.writers.states().iter().filter(|s| !s.current).map(|s| s.writer).collect();
        let suspect = |_: &RecordName, record: &Record| {
            let entries = record.fields().iter().flat_map(|(_, register)| register.entries());
            entries.into_iter().any(|entry| entry.stamp > after && given_up.contains(&entry.writer))
        };
        let found = self.scan(None, suspect).await?;
        let count = found.len();
        let (_, changes, created) = self.decide(count, |work| {
            let names: Vec<RecordName> = found.iter().map(|(name, _)| name.clone()).collect();
            bring_all(work, found);
            for name in names {
                if let Some(slot) = work.slot(&name) {
                    work.restamp(slot, after, doubt);
                }
            }
        });
        let mut links: Vec<LinkChange> = renewed.into_iter().map(LinkChange::GiveUp).collect();
        links.extend(created);
        Ok((changes, links))
    }

    /// The records in a new child's scope of which this node held more than its tier may hold, because it acted for
    /// them.
    async fn excess_of_scope(
        &mut self,
        child: PeerId,
        scope: Division,
    ) -> Result<Vec<RecordKey>, EngineError> {
        let mut topology = crate::ingest::topology::Topology::clone(&self.shared.topology());
        topology.add_child(child, scope);
        let schema = &self.shared.clone().schema;
        let excess = |name: &RecordName, record: &Record| {
            !renewal::excess(&topology, schema.kind(name.kind), name.home, record).is_empty()
        };
        let found = self.scan(Some(scope), excess).await?;
        Ok(found.into_iter().map(|(_, loaded)| loaded.key).collect())
    }

    /// Reads the store through and keeps the records for which `keep` says so.
    async fn scan(
        &mut self,
        scope: Option<Division>,
        keep: impl Fn(&RecordName, &Record) -> bool,
    ) -> Result<Vec<(RecordName, Loaded)>, EngineError> {
        let mut kept = Vec::new();
        let mut after: RecordKey = 0;
        loop {
            let page = self.shared.store.scan(after, SCAN_RECORDS).await?;
            let Some(last) = page.last() else { return Ok(kept) };
            after = last.key;
            for stored in page.into_iter().filter(|s| scope.is_none_or(|scope| scope.contains(s.name.home))) {
                if codec::decode(stored.state.clone()).is_ok_and(|record| keep(&stored.name, &record)) {
                    kept.push((stored.name.clone(), loaded(stored)));
                }
            }
        }
    }

    /// A peer has given all that this store lacked: from now on a child speaks for its own scope only.
    pub(super) async fn recovered(&mut self, id: PeerId, refused: bool) -> Result<(), EngineError> {
        let own = self.own_store();
        let known = self.peers.get(&id);
        let peer = known.and_then(|peer| peer.given(refused, own));
        if peer.is_none() && known.is_some_and(|peer| peer.recovering_to.is_some()) {
            return Ok(());
        }
        let recovery = self.recovery_after(id);
        let links = peer.clone().map(LinkChange::Peer).into_iter();
        let links: Vec<_> = links.chain(recovery.clone().map(LinkChange::Recovery)).collect();
        if links.is_empty() {
            return Ok(());
        }
        let given = known.map(|peer| Event::RecoveryEnded { peer: peer.division }.into());
        let changes = Changes { audit: given.into_iter().collect(), ..Changes::default() };
        self.commit(&changes, &links).await?;
        self.peers.extend(peer.map(|peer| (id, peer)));
        if recovery.is_some() {
            self.know_recovery(recovery);
        }
        self.note_recovering();
        Ok(())
    }

    /// Whose batch this is.
    pub(super) fn sender(&self, batch: &LinkBatch) -> Option<Sender> {
        let peer = self.peers.get(&batch.peer).filter(|peer| self.serves(peer.id))?;
        Some(Sender {
            peer: peer.id,
            role: peer.role,
            division: peer.division,
            recovering_to: peer.recovering_to,
            same_epoch: batch.same_epoch,
            bulk: batch.bulk,
        })
    }

    /// Keeps what a transaction stored of peers in memory too.
    pub(super) fn note(&mut self, links: &[LinkChange], done: bool) {
        for link in links.iter().filter(|_| done) {
            match link {
                LinkChange::Seen { peer, revision } => {
                    if let Some(peer) = self.peers.get_mut(peer) {
                        peer.revision = peer.revision.max(*revision);
                    }
                }
                LinkChange::TokenConfirmed(peer) => {
                    if let Some(peer) = self.peers.get_mut(peer) {
                        peer.issued = peer.issued.confirmed();
                    }
                }
                LinkChange::ForgetJudgements => {
                    self.shared.note_sums_forgotten();
                    self.peers.values_mut().for_each(|peer| peer.summed_through = 0);
                    self.refresh_topology(None);
                }
                LinkChange::ForgetSums(peer) => {
                    self.shared.note_sums_forgotten();
                    if let Some(peer) = self.peers.get_mut(peer) {
                        peer.summed_through = 0;
                    }
                    self.refresh_topology(None);
                }
                _ => {}
            }
        }
    }

    /// Loads records by name, each once; those that are new get a key.
    pub(super) async fn load_records(
        &mut self,
        mut names: Vec<RecordName>,
    ) -> Result<Vec<(RecordName, Loaded)>, EngineError> {
        names.sort_unstable();
        names.dedup();
        let loaded = self.store.load(&names).await?;
        let missing = names.iter().zip(&loaded).filter(|(_, found)| found.is_none());
        let missing: Vec<Division> = missing.map(|(name, _)| name.home).collect();
        let mut keys = self.store.allocate(&missing).await?.into_iter();
        let mut records = Vec::with_capacity(names.len());
        for (name, found) in names.into_iter().zip(loaded) {
            let new =
                || Loaded { key: keys.next().unwrap_or_default(), revision: 0, state: bytes::Bytes::new() };
            records.push((name, found.unwrap_or_else(new)));
        }
        Ok(records)
    }
}

/// A record that was read by key, as one that was read by name.
fn loaded(stored: StoredRecord) -> Loaded {
    Loaded { key: stored.key, revision: stored.revision, state: stored.state }
}

/// Lets a work of one record be decided: for single records read by key.
pub(super) fn bring_one(work: &mut Work<'_>, stored: StoredRecord) -> Option<crate::ingest::Slot> {
    work.bring(stored.name, stored.key, Some((stored.revision, stored.state))).ok()
}
