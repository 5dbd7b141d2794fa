//! What the writing task looks after by itself: purges that have become due, refused fields to try again, rows held
//! for an unknown division, a clock that was wrong, outboxes to compact. Each does a bounded piece of work at a time.

use super::EngineError;
use super::catch_up::abreast;
use super::greet::bring_one;
use super::task::Task;
use crate::ingest::changes::{Changes, LinkChange, PeerState};
use crate::ingest::renewal::Doubt;
use crate::ingest::topology::PeerId;
use crate::stamp::Stamp;

/// Records purged at a time.
const PURGES_AT_ONCE: usize = 500;
/// Seconds between looks at refused fields that fall due.
const RETRY_EVERY: u64 = 5;
/// Seconds between retries of everything that was refused.
const RETRY_ALL_EVERY: u64 = 3_600;
/// Seconds between looks at what outboxes and the store's memory hold twice or no more need.
const TIDY_EVERY: u64 = 10;

impl Task {
    /// Once a second, when nothing else is waiting.
    pub(super) async fn tick(&mut self) {
        self.ticks += 1;
        self.sums_rest = false;
        if let Err(error) = abreast!(self, self.look_after())
            && !error.passes_by_itself()
        {
            self.shared.alarm(format!("the store could not be looked after: {error}"));
        }
    }

    async fn look_after(&mut self) -> Result<(), EngineError> {
        // A gateway that has nothing to write must notice, too, that its line broke.
        self.store.check().await?;
        self.write_notes(false).await?;
        self.mend_clock().await?;
        if self.unscrubbed || self.purged {
            let done = self.store.scrub(self.unscrubbed).await?;
            (self.unscrubbed, self.purged) = (self.unscrubbed && !done, !done);
        }
        // One gateway sweeps for all.
        if self.has_duty() {
            self.sweep().await?;
        }
        // Last: what is said of all this must not keep it from being done.
        self.attend_claims().await
    }

    async fn sweep(&mut self) -> Result<(), EngineError> {
        self.purge_due().await?;
        self.take_snapshots().await?;
        self.count_losses().await?;
        if self.divisions_learned {
            self.release_held().await?;
            self.divisions_learned = false;
        }
        if self.ticks.is_multiple_of(RETRY_EVERY) {
            self.retry_refused().await?;
        }
        if self.ticks.is_multiple_of(TIDY_EVERY) {
            self.compact_outboxes().await?;
            if std::mem::take(&mut self.wrote) {
                self.store.shrink().await?;
            }
        }
        Ok(())
    }

    /// A writer whose clock ran ahead is given up once a peer has refused something for its time, or all peers would refuse
    /// what it writes until that time has come. This clock alone may as well be behind now.
    async fn mend_clock(&mut self) -> Result<(), EngineError> {
        let environment = self.shared.environment;
        let now_ms = (environment.now_ms)();
        if Stamp::from_ms(self.writers.floor_ms()).beyond(now_ms, environment.drift_ms) {
            self.withdraw_claim(now_ms).await?;
        }
        let ahead = |s: &crate::ingest::writers::WriterState| s.clock.ran_ahead(now_ms, environment.drift_ms);
        if !self.writers.states().iter().any(|s| s.current && ahead(s)) || !self.is_refused_for_time().await?
        {
            return Ok(());
        }
        self.shared.alarm(
            "the clock of this machine was ahead; what was written meanwhile is written again with the right time \
             (本机时钟曾经超前，期间写入的数据已按正确时间重新登记)"
                .into(),
        );
        let (changes, mut links) = self.renew(Stamp::from_ms(now_ms), Doubt::ClockAhead, ahead).await?;
        let own = self.own_store();
        let turned_back: Vec<PeerState> = self.peers.values().filter_map(|p| p.turned_back(own)).collect();
        links.extend(turned_back.iter().cloned().map(LinkChange::Peer));
        self.commit(&changes, &links).await?;
        self.peers.extend(turned_back.into_iter().map(|peer| (peer.id, peer)));
        Ok(())
    }

    async fn is_refused_for_time(&self) -> Result<bool, EngineError> {
        for peer in self.peers.keys() {
            if self.shared.store.next_retry_ms(*peer).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn purge_due(&mut self) -> Result<(), EngineError> {
        let due = self.shared.store.purges_ready(PURGES_AT_ONCE).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut loaded = self.store.load_keys(&due).await?;
        // Asked again after reading: whoever owes one of them below since then has also changed it, or will find it changed.
        let still_due = self.shared.store.purges_ready(PURGES_AT_ONCE).await?;
        loaded.retain(|stored| still_due.contains(&stored.key));
        let (_, changes, links) = self.decide(loaded.len(), |work| {
            for stored in loaded {
                if let Some(slot) = bring_one(work, stored) {
                    work.purge(slot);
                }
            }
        });
        self.commit(&changes, &links).await
    }

    /// What peers refused is owed again when its time has come, and all of it once an hour.
    async fn retry_refused(&mut self) -> Result<(), EngineError> {
        let now_ms = (self.shared.environment.now_ms)();
        let all = self.ticks.is_multiple_of(RETRY_ALL_EVERY);
        let mut retries = Vec::new();
        for peer in self.peers.keys() {
            if all || self.shared.store.next_retry_ms(*peer).await?.is_some_and(|due_ms| due_ms <= now_ms) {
                retries.push(LinkChange::RetryQuarantine { peer: *peer, due_ms: (!all).then_some(now_ms) });
            }
        }
        if retries.is_empty() { Ok(()) } else { self.commit(&Changes::default(), &retries).await }
    }

    async fn compact_outboxes(&mut self) -> Result<(), EngineError> {
        let crowded: Vec<PeerId> = self.shared.store.outboxes_to_compact().await?;
        let compact: Vec<LinkChange> = crowded.into_iter().map(LinkChange::CompactOutbox).collect();
        if compact.is_empty() { Ok(()) } else { self.commit(&Changes::default(), &compact).await }
    }
}
