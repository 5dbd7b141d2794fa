//! Keeping what the task has in memory equal to what is stored. Before each decision it asks whether the store may have
//! changed without it: a transaction failed and nobody knows how, the connection was lost, or a database was away. Then
//! everything is read again first, and while that cannot be done nothing is decided.
//!
//! A stamp is never given out twice: what was written last is the later of what is stored and what memory knows, and
//! reading begins only after whatever the former connection had begun is over.

use std::time::{Duration, Instant};

use super::EngineError;
use super::outage::Seen;
use super::task::Task;
use crate::audit::Event;
use crate::ingest::changes::{Changes, Lineage, PeerState, Subscription};
use crate::store::{StoreError, View};

/// How often something is decided anew because others changed the same records meanwhile.
const DECISIONS_MAX: usize = 6;
/// A database that could not be reached is not asked again before.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// How far the task is abreast of its store.
#[derive(Default)]
pub(super) struct Abreast {
    /// How often the store's connection had been opened when everything was read last; 0: never.
    openings: u64,
    /// A transaction failed since.
    doubted: bool,
    /// Why the last attempt to read failed, and when the next may be made.
    failed: Option<(EngineError, Instant)>,
    /// The tables of divisions and thresholds are those of this number.
    tables: Option<u64>,
    /// Where the store was met last.
    pub(super) lineage: Option<Lineage>,
}

impl EngineError {
    /// Records were changed by others meanwhile, so that it must be decided again.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, EngineError::Store(error) if error.is_stale())
    }

    /// Nobody need do anything: others were faster, or the database is away, which is logged when it begins.
    pub(super) fn passes_by_itself(&self) -> bool {
        let EngineError::Store(error) = self else { return false };
        error.is_stale() || matches!(**error, StoreError::Unreachable(_))
    }
}

/// Decides something with the store as it is now, and once more if others changed the same records meanwhile. The
/// second argument is a future that is made anew for each attempt, and gives a `Result`.
macro_rules! abreast {
    ($task:expr, $decision:expr) => {{
        let mut attempts = $crate::engine::catch_up::Attempts::default();
        loop {
            let outcome = match $task.catch_up().await {
                Ok(()) => $decision.await,
                Err(error) => Err(error),
            };
            if !attempts.again(&outcome) {
                break outcome;
            }
        }
    }};
}
pub(super) use abreast;

/// How often something was decided.
#[derive(Default)]
pub(super) struct Attempts(usize);

impl Attempts {
    /// Whether it must be decided again.
    pub(super) fn again<T>(&mut self, outcome: &Result<T, EngineError>) -> bool {
        self.0 += 1;
        self.0 < DECISIONS_MAX && outcome.as_ref().is_err_and(EngineError::is_stale)
    }
}

impl Task {
    /// The store refused a transaction, or nobody knows whether it did.
    pub(super) fn doubt(&mut self, error: &StoreError) {
        if error.is_stale() {
            tracing::debug!(%error, "it is decided again");
        } else {
            tracing::error!(%error, "a transaction failed; nobody was told that it was kept");
        }
        self.abreast.doubted = true;
        self.shared.found_damaged(error);
    }

    /// Whether the connection is still the one that everything was read by: else what was decided counts no more.
    pub(super) fn is_abreast(&self) -> bool {
        self.abreast.openings == self.store.openings()
    }

    /// Everything was read just now, after this view.
    pub(super) fn note_abreast(&mut self, view: View) {
        self.store.decide_from(view);
        let Abreast { tables, lineage, .. } = self.abreast;
        self.abreast = Abreast { openings: self.store.openings(), tables, lineage, ..Abreast::default() };
    }

    /// What is decided next must be decided from what other gateways stored, down to what they do not tell of.
    pub(super) fn doubt_others(&mut self) {
        self.abreast.doubted |= self.shared.store.is_for_many();
    }

    /// Reads everything again where it may have changed.
    pub(super) async fn catch_up(&mut self) -> Result<(), EngineError> {
        if let Some(damage) = self.shared.damage.get() {
            return Err(damage.clone().into());
        }
        if let Some((error, next)) = &self.abreast.failed
            && Instant::now() < *next
        {
            return Err(error.clone());
        }
        let was_away = self.abreast.failed.is_some();
        match self.read_again().await {
            Ok(()) => {
                self.shared.store_answers(Seen::Writing);
                if was_away {
                    tracing::info!("the store is back; the node goes on (数据存储已恢复)");
                }
                Ok(())
            }
            Err(error) if error.is_stale() => {
                // Others changed what is shared while it was read.
                self.abreast.doubted = true;
                Err(error)
            }
            Err(error) => {
                if !was_away {
                    tracing::error!(%error, "the store is away; nothing is decided until it is back (数据存储不可用)");
                }
                if let EngineError::Store(error) = &error {
                    self.shared.found_damaged(error);
                    self.shared.store_failed(Seen::Writing, error);
                }
                self.abreast.failed = Some((error.clone(), Instant::now() + NEXT_TRY));
                Err(error)
            }
        }
    }

    async fn read_again(&mut self) -> Result<(), EngineError> {
        let openings = self.store.settle().await?;
        if openings == self.abreast.openings && !self.abreast.doubted && self.abreast.failed.is_none() {
            return Ok(());
        }
        // A line that broke unnoticed is noticed here, at once; readers wait for a server that does not answer.
        self.store.check().await?;
        let store = self.shared.store.clone();
        // Before all else: what is read after it is at least as new.
        let before = self.shared.revision();
        let view = store.view().await?;
        let meta = store.meta().await?;
        if self.settled {
            self.refuse_mixed_programs(meta.schema_fingerprint).await?;
        }
        let claims = store.claims().await?;
        let floor_ms = claims.get(&self.shared.own()).map_or(0, |own| own.through_ms);
        self.writers.read_again(store.writers().await?, store.slot(), floor_ms);
        let peers: Vec<PeerState> = store.peers().await?;
        let subscriptions: Vec<Subscription> = store.subscriptions().await?;
        self.peers = peers.into_iter().map(|p| (p.id, p)).collect();
        self.subscriptions = subscriptions.into_iter().map(|s| (s.peer, s)).collect();
        self.know_recovery(store.recovery().await?);
        self.shared.load_grants().await?;
        self.refresh_topology(None);
        if self.abreast.tables != Some(view.tables) {
            self.shared.load_tables().await?;
            self.abreast.tables = Some(view.tables);
            self.divisions_learned = true;
        }
        self.keep_above_tokens();
        self.note_elsewhere();
        let lost = self.shared.read_again(meta.epoch, meta.revision, before);
        self.read_claims_again(claims, lost);
        // Before whatever may be committed below.
        self.note_abreast(view);
        if lost {
            self.shared.alarm(format!(
                "the database went back from transaction {before} to {}: it was restored, or a standby took over that \
                 lacked the last ones; peers are greeted again and send what is missing \
                 (数据库回退到较早状态，正在与上下级重新核对)",
                meta.revision
            ));
            self.shared.audit(Event::StoreWentBack { from: before, to: meta.revision });
            self.note_opening().await?;
            // Subscribers may have more than this store: they get everything that it has.
            let fills = self.fill_all();
            if !fills.is_empty() {
                self.commit(&Changes::default(), &fills).await?;
            }
        }
        self.meet_lineage().await
    }
}
