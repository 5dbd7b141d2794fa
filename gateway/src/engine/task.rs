//! The one task that writes: it takes what is waiting, groups it, decides, applies, and answers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::catch_up::{Abreast, abreast};
use super::command::{Command, NewSubscription};
use super::greet::bring_one;
use super::group::Group;
use super::recovery::Recovering;
use super::{EngineError, Shared};
use crate::audit::Event;
use crate::claiming::{Claiming, Claims, Pace};
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange, PeerState, Subscription};
use crate::ingest::topology::{PeerId, Role, Topology};
use crate::ingest::writers::Writers;
use crate::ingest::{Context, Work};
use crate::measure;
use crate::period::Day;
use crate::proof;
use crate::schema::Schema;
use crate::store::{StoreError, Writer as StoreWriter};

/// About how many records share a transaction.
const GROUP_RECORDS_MAX: usize = 4_000;
/// How often the task looks after what nobody asked for.
const TICK: Duration = Duration::from_secs(1);
/// However much is waiting, it does so at least this often.
const TICK_OVERDUE: Duration = Duration::from_secs(3);
/// Records read at a time by work over the whole store.
pub(super) const SCAN_RECORDS: usize = 1_000;

/// The state of the writing task.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) store: StoreWriter,
    pub(super) writers: Writers,
    pub(super) peers: BTreeMap<PeerId, PeerState>,
    pub(super) subscriptions: BTreeMap<PeerId, Subscription>,
    pub(super) ticks: u64,
    /// The table of divisions has grown since held rows were looked at.
    pub(super) divisions_learned: bool,
    /// Something was written since the store gave its memory back.
    pub(super) wrote: bool,
    /// Something was erased, and may still stand in unused bytes of the store.
    pub(super) unscrubbed: bool,
    /// Something was purged, and may still stand in the store's log.
    pub(super) purged: bool,
    /// The day before it has its snapshots.
    pub(super) snapshots_of: Option<Day>,
    pub(super) claiming: Claiming,
    /// Claims that are known and not on disk yet.
    pub(super) unstored_claims: Claims,
    pub(super) abreast: Abreast,
    /// When the store last became another because it had been put back or copied, Unix milliseconds.
    pub(super) renewed_ms: Option<u64>,
    /// How the store is filled again, or was last.
    pub(super) recovery: Recovering,
    /// No checksums of links are computed until the next tick.
    pub(super) sums_rest: bool,
    /// What is done at the start is done.
    pub(super) settled: bool,
}

impl Task {
    /// Reads what the task keeps in memory: writers, peers, imported divisions.
    pub(super) async fn load(
        shared: Arc<Shared>,
        store: StoreWriter,
        parent: Option<Division>,
    ) -> Result<Task, EngineError> {
        // Before all else: what is read after it is at least as new.
        let view = shared.store.view().await?;
        let claims = shared.store.claims().await?;
        // Before anything is decided: no stamp may be one that was claimed.
        let floor_ms = claims.get(&shared.own()).map_or(0, |own| own.through_ms);
        let writers =
            Writers::new(shared.store.writers().await?).in_slot(shared.store.slot()).above(floor_ms);
        let peers = shared.store.peers().await?.into_iter().map(|p| (p.id, p)).collect();
        let subscriptions = shared.store.subscriptions().await?.into_iter().map(|s| (s.peer, s)).collect();
        let claiming = Claiming::new(shared.own(), Pace::default());
        let mut task = Task {
            shared,
            store,
            writers,
            peers,
            subscriptions,
            ticks: 0,
            divisions_learned: true,
            wrote: false,
            unscrubbed: false,
            purged: false,
            snapshots_of: None,
            claiming,
            unstored_claims: Claims::default(),
            abreast: Abreast::default(),
            renewed_ms: None,
            recovery: Recovering::default(),
            sums_rest: false,
            settled: false,
        };
        task.note_abreast(view);
        task.know_recovery(task.shared.store.recovery().await?);
        task.shared.load_grants().await?;
        task.keep_above_tokens();
        task.refresh_topology(parent);
        abreast!(task, task.settle(parent))?;
        task.shared.load_tables().await?;
        task.know_claims(claims);
        task.note_elsewhere();
        task.recall_proofs().await?;
        task.unscrubbed = task.store.is_unscrubbed().await?;
        task.settled = true;
        let epoch = format!("{:016x}", task.shared.epoch());
        task.shared.audit(Event::Started { version: env!("CARGO_PKG_VERSION"), epoch });
        Ok(task)
    }

    /// What a process does when it has opened a store.
    async fn settle(&mut self, parent: Option<Division>) -> Result<(), EngineError> {
        self.meet_lineage().await?;
        // Those that are there have met the store as it is.
        if !self.has_company().await? {
            self.note_opening().await?;
        }
        self.relearn(parent).await?;
        self.adopt_parent(parent).await?;
        self.refresh_topology(parent);
        self.forget_former_parents().await
    }

    /// Judges every record anew if the program knows other rules than the one that wrote last: sums and conflicts, and
    /// what was unknown until now is owed to everyone it concerns. Interrupted, it begins again at the next start.
    async fn relearn(&mut self, parent: Option<Division>) -> Result<(), EngineError> {
        let fingerprint = judging_rules(&self.shared.schema);
        let judged_by = self.shared.store.meta().await?.schema_fingerprint;
        if judged_by == Some(fingerprint) {
            return Ok(());
        }
        self.refuse_mixed_programs(judged_by).await?;
        if judged_by.is_some() {
            tracing::info!("the program knows other rules than before: all records are judged anew");
            self.refresh_topology(parent);
            let forget = [LinkChange::ForgetJudgements];
            self.commit(&Changes::default(), &forget).await?;
            self.note(&forget, true);
            let mut after = 0;
            loop {
                let page = self.shared.store.scan(after, SCAN_RECORDS).await?;
                let Some(last) = page.last() else { break };
                after = last.key;
                let (_, changes, created) = self.decide(page.len(), |work| {
                    for stored in page {
                        if let Some(slot) = bring_one(work, stored) {
                            work.relearn(slot);
                        }
                    }
                });
                self.commit(&changes, &created).await?;
            }
        }
        self.commit(&Changes::default(), &[LinkChange::Learned(fingerprint)]).await
    }

    /// Remembers at which revision this process found the store, until each peer has met it: see
    /// `PeerState::continuous`.
    pub(super) async fn note_opening(&mut self) -> Result<(), EngineError> {
        let revision = self.shared.revision();
        let opened: Vec<PeerState> = self
            .peers
            .values()
            .filter(|p| p.role != Role::Partner && p.opened_revision.is_none())
            .map(|p| PeerState { opened_revision: Some(revision), ..p.clone() })
            .collect();
        if opened.is_empty() {
            return Ok(());
        }
        let links: Vec<LinkChange> = opened.iter().cloned().map(LinkChange::Peer).collect();
        self.commit(&Changes::default(), &links).await?;
        self.peers.extend(opened.into_iter().map(|p| (p.id, p)));
        Ok(())
    }

    /// A parent that is configured and was never greeted becomes a peer: from now on it is owed everything.
    async fn adopt_parent(&mut self, parent: Option<Division>) -> Result<(), EngineError> {
        let Some(division) = parent else { return Ok(()) };
        if self.peers.values().any(|p| p.role == Role::Parent && p.division == division) {
            return Ok(());
        }
        let state = PeerState::new(self.next_peer(), Role::Parent, division);
        let backfill =
            LinkChange::Backfill { peer: state.id, scope: None, subtree_kinds: self.subtree_kinds() };
        self.commit(&Changes::default(), &[LinkChange::Peer(state.clone()), backfill]).await?;
        self.peers.insert(state.id, state);
        Ok(())
    }

    pub(super) fn next_peer(&self) -> PeerId {
        PeerId(self.peers.keys().last().map_or(1, |id| id.0 + 1))
    }

    /// Numbers of the kinds that everyone below gets.
    pub(super) fn subtree_kinds(&self) -> Vec<u32> {
        let subtree =
            |rule: &guantong_proto::rules::Kind| rule.audience == guantong_proto::rules::Audience::Subtree;
        self.shared.schema.kinds().iter().filter(|k| subtree(k.rule)).map(|k| k.rule.number).collect()
    }

    /// Publishes the peers as everyone else sees them.
    pub(super) fn refresh_topology(&self, parent: Option<Division>) {
        let mut topology = Topology::new(self.shared.own());
        let keep = parent.or(self.shared.topology().parent().map(|p| p.1));
        for peer in self.peers.values() {
            match peer.role {
                Role::Parent if Some(peer.division) == keep => topology.set_parent(peer.id, peer.division),
                Role::Parent => {}
                Role::Child => topology.add_child(peer.id, peer.division),
                Role::Partner => {}
            }
            topology.set_summed(peer.id, peer.summed_through);
        }
        for (peer, subscription) in &self.subscriptions {
            topology.add_subscription(*peer, subscription.interest.clone());
        }
        *self.shared.topology.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(topology);
    }

    /// Runs until it is told to stop or nobody can ask any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting: Option<Command> = None;
        let mut looked_after = Instant::now();
        loop {
            if looked_after.elapsed() > TICK_OVERDUE {
                self.tick().await;
                self.sum_next().await;
                looked_after = Instant::now();
            }
            let command = match waiting.take() {
                Some(command) => command,
                None => tokio::select! {
                    biased;
                    command = commands.recv() => match command {
                        Some(command) => command,
                        None => break,
                    },
                    _ = tick.tick() => {
                        self.tick().await;
                        looked_after = Instant::now();
                        continue;
                    }
                    () = std::future::ready(()), if self.is_summing() => {
                        self.sum_next().await;
                        continue;
                    }
                },
            };
            if let Command::Stop(reply) = command {
                let _ = reply.send(());
                break;
            }
            if !command.groups() {
                self.run_alone(command).await;
                continue;
            }
            let mut group = Group::of(command);
            while group.weight() < GROUP_RECORDS_MAX {
                match commands.try_recv() {
                    Ok(next) if next.groups() => group.push(next),
                    Ok(next) => {
                        waiting = Some(next);
                        break;
                    }
                    Err(_) => break,
                }
            }
            group.run(&mut self).await;
        }
        self.shared.audit(Event::Stopped);
        if let Err(error) = self.write_notes(true).await {
            tracing::warn!(%error, "the last entries of the audit log were not written (审计日志的最后几条未写入)");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store was not closed cleanly; nothing is lost");
        }
    }

    async fn run_alone(&mut self, command: Command) {
        match command {
            Command::Import(import, reply) => {
                let _ = reply.send(self.import(import).await);
            }
            Command::Welcome(child, hello, reply) => {
                self.doubt_others();
                let _ = reply.send(abreast!(self, self.welcome(child, &hello)));
            }
            Command::Welcomed(welcome, reply) => {
                self.doubt_others();
                let _ = reply.send(abreast!(self, self.welcomed(&welcome)));
            }
            Command::Subscribe(new, reply) => {
                let _ = reply.send(abreast!(self, self.subscribe(NewSubscription::clone(&new))));
            }
            Command::Unsubscribe(peer, reply) => {
                let _ = reply.send(abreast!(self, self.unsubscribe(peer)));
            }
            Command::Refill { peer, filled_for, asked, reply } => {
                let _ = reply.send(abreast!(self, self.refill(peer, filled_for, asked)));
            }
            Command::Recovered(peer, refused, reply) => {
                let _ = reply.send(abreast!(self, self.recovered(peer, refused)));
            }
            Command::Owe(peer, names, reply) => {
                let _ = reply.send(abreast!(self, self.owe(peer, &names)));
            }
            Command::Prove(peer, proof, noted, reply) => {
                let _ = reply.send(abreast!(self, self.prove(peer, proof, noted)));
            }
            Command::Peer(role, division, reply) => {
                self.doubt_others();
                let known = self.catch_up().await.map(|()| {
                    self.peers.values().find(|p| p.role == role && p.division == division).cloned()
                });
                let _ = reply.send(known);
            }
            Command::Grant(row, reply) => {
                let grant = LinkChange::Grant(row);
                let _ = reply.send(abreast!(self, self.change_grants(grant.clone())));
            }
            Command::RepairCounts(tallies, reply) => {
                let audit = vec![Event::CountsRepaired { cells: tallies.len() as u64 }.into()];
                let changes = Changes { tallies, audit, ..Changes::default() };
                let _ = reply.send(abreast!(self, self.commit(&changes, &[])));
            }
            Command::RepairRecordCount(more, reply) => {
                let audit = vec![Event::CountsRepaired { cells: 1 }.into()];
                let changes = Changes { audit, ..Changes::default() };
                let _ = reply.send(abreast!(self, self.commit(&changes, &[LinkChange::Recounted(more)])));
            }
            Command::RepairSums(repair, reply) => {
                let _ = reply.send(abreast!(self, self.repair_sums(&repair)));
            }
            Command::Revoke(partner, reply) => {
                let revoke = LinkChange::Revoke(partner);
                let _ = reply.send(abreast!(self, self.change_grants(revoke.clone())));
            }
            Command::Invitation(change, reply) => {
                let outcome =
                    abreast!(self, self.commit(&Changes::default(), std::slice::from_ref(&*change)));
                let _ = reply.send(outcome);
            }
            Command::Report(row, reply) => {
                let report = [LinkChange::Report(*row)];
                let _ = reply.send(abreast!(self, self.commit(&Changes::default(), &report)));
            }
            Command::Checkpoint(handed, reply) => {
                let _ = reply.send(abreast!(self, self.keep_checkpoint(&handed)));
            }
            Command::AcceptCheckpoints(child, by, reply) => {
                let _ = reply.send(abreast!(self, self.accept_checkpoints(child, &by)));
            }
            Command::Bundle(division, step) => self.bundle(division, *step).await,
            Command::ReadAgain => {
                self.doubt_others();
                // If that fails, it is tried again before the next decision.
                let _ = self.catch_up().await;
            }
            // These go in groups.
            Command::Link(..)
            | Command::Write(..)
            | Command::Delivered { .. }
            | Command::TokenConfirmed(..)
            | Command::Stop(_) => {}
        }
    }

    /// Decides something as of now.
    pub(super) fn decide<T>(
        &mut self,
        writes: usize,
        decide: impl FnOnce(&mut Work<'_>) -> T,
    ) -> (T, Changes, Vec<LinkChange>) {
        let environment = self.shared.environment;
        let (topology, divisions) = (self.shared.topology(), self.shared.divisions());
        // A write makes at most two writers: its own and the one that says whether the record is complete.
        self.writers.provide_ids(2 * writes.max(1), environment.random);
        let ctx = Context {
            schema: &self.shared.schema,
            topology: &topology,
            divisions: &divisions,
            now_ms: (environment.now_ms)(),
            drift_ms: environment.drift_ms,
        };
        let mut work = Work::new(ctx, &mut self.writers);
        let decided = decide(&mut work);
        let changes = work.finish();
        let created = self.writers.take_created().into_iter().map(LinkChange::NewWriter).collect();
        (decided, changes, created)
    }

    /// Puts everything on disk in one transaction, then tells whoever waits for it. After a failure what the task keeps in
    /// memory is read again, before anything else is decided.
    pub(super) async fn commit(
        &mut self,
        changes: &Changes,
        links: &[LinkChange],
    ) -> Result<(), EngineError> {
        let now_ms = (self.shared.environment.now_ms)();
        if !self.is_abreast() {
            return Err(StoreError::Stale.into());
        }
        match self.store.apply(changes, links, now_ms).await {
            Ok(revision) => {
                self.shared.raise_revision(revision);
                self.wrote = true;
                self.unscrubbed |= !changes.erased.is_empty();
                self.purged |= !changes.purged.is_empty();
                self.shared.learn(changes);
                self.divisions_learned |= !changes.divisions.is_empty();
                self.shared.notify(changes);
                if !changes.outbox.is_empty() || links.iter().any(LinkChange::fills_outbox) {
                    self.claiming.written();
                }
                if links.iter().any(LinkChange::fills_outbox) {
                    self.shared.wake_all();
                }
                Ok(())
            }
            Err(error) => {
                self.doubt(&error);
                Err(error.into())
            }
        }
    }
}

/// Hash over the rules by which records are judged, counted and summed.
pub(super) fn judging_rules(schema: &Schema) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(&schema.fingerprint());
    hash.update(&measure::fingerprint());
    hash.update(&proof::SUMMING.to_le_bytes());
    let mut rules = [0; 16];
    rules.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    rules
}

impl LinkChange {
    /// Whether it puts rows into an outbox.
    fn fills_outbox(&self) -> bool {
        matches!(
            self,
            LinkChange::Backfill { .. }
                | LinkChange::Subscribe { .. }
                | LinkChange::RetryQuarantine { .. }
                | LinkChange::Owe { .. }
        )
    }
}
