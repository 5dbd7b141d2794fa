//! The engine: one task that writes. Everything that changes the store goes through it, grouped into transactions;
//! readers do not wait for it. It decides nothing itself: decisions are `ingest`'s and `peering`'s.
//!
//! An answer is given only after the transaction that holds the write is on disk. The queue is bounded; a caller waits
//! for a place in it, never without a limit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use guantong_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use crate::aggregate::TallyChange;
use crate::audit::Gathered;
use crate::division::{Division, Divisions};
use crate::ingest::changes::{Changes, PeerState, RecordKey, Subscription};
use crate::ingest::local::{WriteError, Written};
use crate::ingest::recovery::Recovery;
use crate::ingest::topology::{PeerId, Role, Topology};
use crate::outgoing::Route;
use crate::record::RecordName;
use crate::schema::Schema;
use crate::session::greeting::Token;
use crate::store::{Store, StoreError, Writer as StoreWriter};
use crate::threshold::Thresholds;

mod audit;
pub mod bundles;
mod catch_up;
mod claims;
mod command;
mod failover;
mod gateways;
mod grants;
mod greet;
mod group;
mod import;
mod invitations;
mod jobs;
mod outage;
mod proofs;
mod rebuild;
mod recovery;
mod reports;
mod snapshots;
mod subscribers;
mod sums;
mod tables;
mod task;
#[cfg(test)]
mod tests;

pub use audit::HandedIn;
use command::Command;
pub use command::{
    Begun, Import, ImportProgress, LinkBatch, NewSubscription, Request, SumRepair, Write, WriteAction,
};
pub use outage::Outage;
pub use rebuild::{Rebuilt, rebuild};

/// Commands that may wait. Each holds at most a batch, so this bounds memory too.
const QUEUE_MAX: usize = 64;
/// How long a caller waits for its answer before it is told that the node is overloaded.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What the engine takes from outside, so that it can be run with other clocks and dice.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// Unix milliseconds.
    pub now_ms: fn() -> u64,
    /// 64 random bits, good enough for identities.
    pub random: fn() -> u64,
    /// How far in the future a stamp may lie.
    pub drift_ms: u64,
    /// From one comparison of both ends of an idle link to the next.
    pub compare_ms: u64,
}

/// Why the engine did not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The store could not take it; nothing changed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// A rule refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// The same request id came before with another content.
    #[error("the request id was used before for another request; draw a new one")]
    RequestReused,
    /// A subscription of this name exists.
    #[error("there is a subscription of this name; choose another, or delete that one")]
    SubscriptionExists,
    /// No more subscriptions are taken.
    #[error(
        "there are {0} subscriptions, and no more are taken; delete those that nobody reads (订阅数已达上限)"
    )]
    TooManySubscriptions(usize),
    /// This store was put back to an earlier state, and its clock is behind the peer's: it does not link with the peer.
    #[error(
        "this store was restored, and its clock is {behind_s} s behind that of {peer}: set the clock that is wrong; \
         until then they do not link, for what was lost could not be told from what is yet to be written \
         (本节点数据曾被恢复，且时钟落后；请校准时钟后再连接)"
    )]
    ClockBehind {
        /// Whose clock is ahead of it.
        peer: Division,
        /// By how many seconds.
        behind_s: u64,
    },
    /// The peer has greeted another gateway of this store since.
    #[error("the peer is linked to another gateway of this store now, or is not known any more")]
    Elsewhere,
    /// The node is stopping.
    #[error("the node is stopping; try again when it is back")]
    Stopped,
    /// No answer in time. Whether the write went in is not known: repeat it with its request id.
    #[error("the node is overloaded and did not answer in time; repeat the request with the same request id")]
    Overloaded,
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> EngineError {
        EngineError::Store(Arc::new(error))
    }
}

/// What a write answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The record's number.
    pub key: RecordKey,
    /// What the write did.
    pub written: Written,
}

/// What the store's side of a greeting answers.
#[derive(Clone, Debug)]
pub struct Greeted {
    /// The peer as it is stored now.
    pub peer: PeerState,
    /// What the parent makes of the child's token.
    pub recognition: v1::Recognition,
    /// Parent: the token for the Welcome.
    pub token: Option<Token>,
    /// This store's random number, which may be new.
    pub epoch: u64,
    /// Number of the last transaction.
    pub revision: u64,
}

/// Rises with each group of outbox rows for a peer, by lane.
pub type Wake = [u64; 3];

/// What readers and links share with the writing task.
pub struct Shared {
    /// Reads go straight to it.
    pub store: Store,
    /// The rules of all fields.
    pub schema: Schema,
    /// Clock and dice.
    pub environment: Environment,
    own: Division,
    divisions: RwLock<Arc<Divisions>>,
    thresholds: RwLock<Arc<Thresholds>>,
    topology: RwLock<Arc<Topology>>,
    epoch: AtomicU64,
    revision: AtomicU64,
    /// How often the store went back to an earlier state while this process ran.
    setbacks: AtomicU64,
    wakes: Mutex<HashMap<PeerId, watch::Sender<Wake>>>,
    alarms: Mutex<Vec<String>>,
    tallied: watch::Sender<u64>,
    grants: RwLock<Arc<grants::Grants>>,
    board: claims::Board,
    /// Peers that another gateway of the store greeted last.
    elsewhere: RwLock<HashSet<PeerId>>,
    /// Other gateways wrote something that peers are owed, since the task last looked.
    others_wrote: AtomicBool,
    duty: watch::Sender<bool>,
    /// Entries of the audit log that wait to be written.
    gathered: Mutex<Gathered>,
    contradictions: Mutex<audit::Contradictions>,
    outages: outage::Outages,
    /// Why nothing more is written.
    damage: OnceLock<StoreError>,
    /// How the store is filled again, or was last.
    recovery: RwLock<Option<Recovery>>,
    /// Children that have not given back everything yet.
    recovering: RwLock<Vec<Division>>,
    proofs: proofs::Proofs,
}

impl Shared {
    /// The node's own division.
    pub fn own(&self) -> Division {
        self.own
    }

    /// The peers known now.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This store's random number.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Number of the last transaction on disk.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Changes when links must be greeted anew: the store is another one, or an earlier state of itself.
    pub fn lineage(&self) -> (u64, u64) {
        (self.epoch(), self.setbacks.load(Ordering::Acquire))
    }

    /// Takes over what the store says of itself now. Whether it went back: it is behind `before`, the number of the last
    /// transaction known before it was read.
    fn read_again(&self, epoch: u64, revision: u64, before: u64) -> bool {
        self.epoch.store(epoch, Ordering::Release);
        if revision >= before {
            self.raise_revision(revision);
            return false;
        }
        self.revision.store(revision, Ordering::Release);
        self.setbacks.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Things that an operator must look at, newest last, at most 20.
    pub fn alarms(&self) -> Vec<String> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn alarm(&self, text: String) {
        tracing::error!(alarm = %text);
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.retain(|known| *known != text);
        alarms.push(text);
        if alarms.len() > 20 {
            alarms.remove(0);
        }
    }

    /// What an alarm told of is settled.
    fn end_alarm(&self, text: &str) {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != text);
    }

    /// Wakes whoever sends to a peer. Register before reading its outbox, so that nothing is missed.
    pub fn wake(&self, peer: PeerId) -> watch::Receiver<Wake> {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        wakes.entry(peer).or_insert_with(|| watch::Sender::new([0; 3])).subscribe()
    }

    /// Rises whenever figures may have changed: kept counts, the thresholds that they are judged by, the lists of
    /// villages. Register before reading them, so that nothing is missed.
    pub fn tallied(&self) -> watch::Receiver<u64> {
        self.tallied.subscribe()
    }

    fn figures_changed(&self) {
        self.tallied.send_modify(|times| *times += 1);
    }

    fn notify(&self, changes: &Changes) {
        if !changes.tallies.is_empty() || !changes.thresholds.is_empty() || !changes.divisions.is_empty() {
            self.figures_changed();
        }
        let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        for group in &changes.outbox {
            if let Some(wake) = wakes.get(&group.peer) {
                wake.send_modify(|lanes| lanes[group.lane as usize] += 1);
            }
        }
    }

    /// The way to a peer; `None`: it is not known.
    pub fn route(&self, peer: PeerId) -> Option<Route<'_>> {
        let (role, division) = self.topology().peer(peer)?;
        Some(Route { schema: &self.schema, own: self.own, role, peer: division })
    }
}

/// The way to the writing task. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the writing task on a store. `parent` is the division of the configured parent. The task ends when all
    /// `Engine`s are gone, or at `stop`, after what it was given.
    pub async fn start(
        store: Store,
        writer: StoreWriter,
        own: Division,
        parent: Option<Division>,
        environment: Environment,
    ) -> Result<(Engine, tokio::task::JoinHandle<()>), EngineError> {
        let schema = Schema::current();
        let meta = store.meta().await?;
        let shared = Arc::new(Shared {
            divisions: RwLock::new(Arc::new(Divisions::embedded())),
            thresholds: RwLock::default(),
            topology: RwLock::new(Arc::new(Topology::new(own))),
            epoch: AtomicU64::new(meta.epoch),
            revision: AtomicU64::new(meta.revision),
            setbacks: AtomicU64::new(0),
            tallied: watch::Sender::new(0),
            wakes: Mutex::default(),
            alarms: Mutex::default(),
            grants: RwLock::default(),
            board: Default::default(),
            elsewhere: RwLock::default(),
            gathered: Mutex::default(),
            contradictions: Mutex::default(),
            others_wrote: AtomicBool::new(false),
            // A file is one process's: the duty is its own from the start.
            duty: watch::Sender::new(!store.is_for_many()),
            outages: Default::default(),
            damage: OnceLock::new(),
            recovery: RwLock::default(),
            recovering: RwLock::default(),
            proofs: Default::default(),
            own,
            store,
            schema,
            environment,
        });
        let task = task::Task::load(shared.clone(), writer, parent).await?;
        let (commands, receiver) = mpsc::channel(QUEUE_MAX);
        gateways::begin(&shared, &commands);
        shared.look_for_damage();
        let handle = tokio::spawn(task.run(receiver));
        Ok((Engine { commands, shared }, handle))
    }

    /// What readers and links share with the writing task.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes in a batch from a peer. Answers with what was refused, after the rest is on disk.
    pub async fn ingest(&self, batch: LinkBatch) -> Result<Vec<v1::Refusal>, EngineError> {
        self.ask(|reply| Command::Link(batch, reply)).await
    }

    /// Writes one record.
    pub async fn write(&self, write: Write) -> Result<Answer, EngineError> {
        let answer = self.write_many(vec![write]).await.pop();
        answer.unwrap_or(Err(EngineError::Stopped))
    }

    /// Writes many records in one transaction, in their order and each by itself: one that is refused keeps no other
    /// from going in. An answer for each.
    pub async fn write_many(&self, writes: Vec<Write>) -> Vec<Result<Answer, EngineError>> {
        let count = writes.len();
        match self.ask(|reply| Command::Write(writes, reply)).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
    }

    /// Takes in rows of a ledger.
    pub async fn import(&self, import: Import) -> Result<ImportProgress, EngineError> {
        self.ask(|reply| Command::Import(import, reply)).await
    }

    /// Deletes outbox rows for which all receipts came, and quarantines what was refused.
    pub async fn delivered(
        &self,
        peer: PeerId,
        seqs: Vec<i64>,
        keys: Vec<RecordKey>,
        refusals: Vec<v1::Refusal>,
        peer_revision: u64,
    ) -> Result<(), EngineError> {
        self.ask(|reply| Command::Delivered { peer, seqs, keys, refusals, peer_revision, reply }).await
    }

    /// As a parent: decides what a Hello means, and stores it.
    pub async fn welcome(&self, child: Division, hello: v1::Hello) -> Result<Greeted, EngineError> {
        self.ask(|reply| Command::Welcome(child, Box::new(hello), reply)).await
    }

    /// As a child: acts on a Welcome, and stores its token.
    pub async fn welcomed(&self, welcome: v1::Welcome) -> Result<Greeted, EngineError> {
        self.ask(|reply| Command::Welcomed(Box::new(welcome), reply)).await
    }

    /// As a parent: the child has stored its token.
    pub async fn token_confirmed(&self, peer: PeerId) -> Result<(), EngineError> {
        self.ask(|reply| Command::TokenConfirmed(peer, reply)).await
    }

    /// Begins a subscription: from now on it is owed all that it covers.
    pub async fn subscribe(&self, new: NewSubscription) -> Result<Subscription, EngineError> {
        self.ask(|reply| Command::Subscribe(Box::new(new), reply)).await
    }

    /// Ends a subscription and forgets what it is owed.
    pub async fn unsubscribe(&self, peer: PeerId) -> Result<(), EngineError> {
        self.ask(|reply| Command::Unsubscribe(peer, reply)).await
    }

    /// Owes a subscription everything anew, since its reader may now see something else. `filled_for` is the hash over
    /// that; if it was owed everything for the same already, it is again only where the reader `asked` for it.
    pub async fn refill(&self, peer: PeerId, filled_for: u64, asked: bool) -> Result<(), EngineError> {
        self.ask(|reply| Command::Refill { peer, filled_for, asked, reply }).await
    }

    /// A peer and this node were found to hold the same, but for what was `refused`: it has given what this store lacked. A
    /// child may no longer send foreign stamps.
    pub async fn recovered(&self, peer: PeerId, refused: bool) -> Result<(), EngineError> {
        self.ask(|reply| Command::Recovered(peer, refused, reply)).await
    }

    /// The state of a configured or welcomed peer, as the writing task has it.
    pub async fn peer(&self, role: Role, division: Division) -> Result<Option<PeerState>, EngineError> {
        self.ask(|reply| Command::Peer(role, division, reply)).await
    }

    /// Adds what a recount found missing to kept counts.
    pub async fn repair_counts(&self, changes: Vec<TallyChange>) -> Result<(), EngineError> {
        self.ask(|reply| Command::RepairCounts(changes, reply)).await
    }

    /// Adds to the number of records what a recount found it to lack.
    pub async fn repair_record_count(&self, more: i64) -> Result<(), EngineError> {
        self.ask(|reply| Command::RepairRecordCount(more, reply)).await
    }

    /// Has the checksums of links computed anew: until then they are not known.
    pub async fn sum_anew(&self, peers: Vec<PeerId>) -> Result<(), EngineError> {
        self.repair_sums(SumRepair { missing: Vec::new(), anew: peers, forgotten: 0 }).await
    }

    /// Puts right the checksums of links that a recount found wrong.
    pub async fn repair_sums(&self, repair: SumRepair) -> Result<(), EngineError> {
        self.ask(|reply| Command::RepairSums(repair, reply)).await
    }

    /// Ends the task after what it was given before.
    pub async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// The name of a record, parsed.
    pub fn name(&self, name: &str) -> Result<RecordName, crate::record::NameError> {
        RecordName::parse(&self.shared.schema, name)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(reply)).await.map_err(|_| EngineError::Stopped)?;
            answer.await.map_err(|_| EngineError::Stopped)?
        };
        tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or(Err(EngineError::Overloaded))
    }
}
