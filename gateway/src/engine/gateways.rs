//! Beside other gateways of the same store: what they write wakes links here, what they change of what all keep in
//! memory is read again, and one of all of them has the duty of dialling the parent and of sweeping.
//!
//! Nothing here is needed for what is written to be right: the store refuses what was decided from an earlier state, and
//! it is decided again. It is needed so that nobody waits.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::command::Command;
use super::outage::Seen;
use super::task::Task;
use super::{EngineError, Shared};
use crate::ingest::topology::{PeerId, Role};
use crate::stamp::Stamp;
use crate::store::{Notice, StoreError, View};

/// Without a notice the store is asked so often what others did, and whether a duty is still this gateway's.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A program of another version that has just ended is waited for so often, a `LOOK_EVERY` each time.
const LEAVING_LOOKS: usize = 3;

impl Shared {
    /// Whether this gateway dials the parent and does the sweeping, now and whenever it changes. Of several gateways of
    /// one store, at most one does.
    pub fn duty(&self) -> watch::Receiver<bool> {
        self.duty.subscribe()
    }

    /// Whether a peer was greeted by another gateway of this store since it was here.
    pub fn is_elsewhere(&self, peer: PeerId) -> bool {
        self.elsewhere.read().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    /// Wakes whoever sends what another gateway wrote.
    fn heed(&self, notice: &Notice) {
        if notice.all {
            self.wake_all();
        }
        let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, lane) in &notice.woken {
            if let Some(wake) = wakes.get(peer) {
                wake.send_modify(|lanes| lanes[*lane] += 1);
            }
        }
        self.figures_changed();
        if notice.all || !notice.woken.is_empty() {
            self.others_wrote.store(true, Ordering::Release);
        }
    }

    /// Wakes everyone who sends, in every lane.
    pub(super) fn wake_all(&self) {
        for wake in self.wakes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            wake.send_modify(|lanes| lanes.iter_mut().for_each(|lane| *lane += 1));
        }
    }

    /// How far the store has come by whatever others did.
    pub(super) fn raise_revision(&self, revision: u64) -> bool {
        self.revision.fetch_max(revision, Ordering::AcqRel) < revision
    }
}

/// Hears what other gateways do, until the engine ends.
pub(super) async fn watch_others(shared: Weak<Shared>, commands: mpsc::WeakSender<Command>) {
    let Some(store) = shared.upgrade().map(|shared| shared.store.clone()) else { return };
    loop {
        let mut notices = store.notices().await.ok().flatten();
        // What was said before is not known.
        let (mut seen, mut looked) = (None, None::<Instant>);
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                let Some(shared) = shared.upgrade() else { return };
                if look(&shared, &commands, &mut seen).await.is_err() {
                    break;
                }
                looked = Some(Instant::now());
            }
            let Some(notices) = &mut notices else { break };
            match tokio::time::timeout(LOOK_EVERY, notices.next()).await {
                Ok(Ok(notice)) if notice.slot == store.slot() => {}
                Ok(Ok(notice)) => {
                    let Some(shared) = shared.upgrade() else { return };
                    shared.heed(&notice);
                    if notice.shares {
                        ask_to_read(&commands);
                    }
                }
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What others did, whether or not it was heard.
async fn look(
    shared: &Shared,
    commands: &mpsc::WeakSender<Command>,
    seen: &mut Option<View>,
) -> Result<(), StoreError> {
    let view = shared.store.view().await?;
    if shared.raise_revision(shared.store.meta().await?.revision) || seen.is_none() {
        shared.wake_all();
        shared.figures_changed();
    }
    if *seen != Some(view) && ask_to_read(commands) {
        *seen = Some(view);
    }
    Ok(())
}

/// Whether it will be read again; if the queue is full, the next look asks once more.
fn ask_to_read(commands: &mpsc::WeakSender<Command>) -> bool {
    commands.upgrade().is_none_or(|commands| commands.try_send(Command::ReadAgain).is_ok())
}

/// Takes the duty when nobody has it, and leaves it at once when it may be another's, until the engine ends.
pub(super) async fn keep_duty(shared: Weak<Shared>) {
    let Some(store) = shared.upgrade().map(|shared| shared.store.clone()) else { return };
    let say = |has: bool| {
        let shared = shared.upgrade()?;
        let changed = shared.duty.send_replace(has) != has;
        if changed {
            tracing::info!(
                has,
                "this gateway's duty to dial the parent and to sweep changed (上联与清理职责变更)"
            );
        }
        Some(())
    };
    loop {
        let asked = store.hold_duty().await;
        let Some(here) = shared.upgrade() else { return };
        match &asked {
            Ok(_) => here.store_answers(Seen::Keeping),
            Err(error) => here.store_failed(Seen::Keeping, error),
        }
        drop(here);
        if let Ok(Some(mut hold)) = asked {
            if say(true).is_none() {
                return;
            }
            while hold.check().await.is_ok() {
                if shared.strong_count() == 0 {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if say(false).is_none() {
                return;
            }
        }
        if shared.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Task {
    /// Whether a peer's link is here: whatever came over one of before counts no more.
    pub(super) fn serves(&self, peer: PeerId) -> bool {
        let here = self.shared.store.slot();
        self.peers.get(&peer).is_some_and(|p| p.role == Role::Partner || p.slot == here)
    }

    pub(super) fn has_duty(&self) -> bool {
        *self.shared.duty.borrow()
    }

    /// Peers may have greeted another gateway: their links here end.
    pub(super) fn note_elsewhere(&self) {
        let elsewhere: HashSet<PeerId> =
            self.peers.keys().filter(|peer| !self.serves(**peer)).copied().collect();
        let mut known = self.shared.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        if *known != elsewhere {
            *known = elsewhere;
            drop(known);
            self.shared.wake_all();
        }
    }

    /// Whatever is stamped from now on is later than what any gateway stored with a token.
    pub(super) fn keep_above_tokens(&mut self) {
        let environment = self.shared.environment;
        let now_ms = (environment.now_ms)();
        let given = self.peers.values().map(|peer| peer.clock_at_token);
        let given = given.filter(|stamp: &Stamp| !stamp.beyond(now_ms, environment.drift_ms));
        self.writers.keep_above(given.max().unwrap_or_default());
    }

    /// All gateways of one store judge by the same rules.
    ///
    /// # Errors
    /// Others that are there judge by other rules.
    pub(super) async fn refuse_mixed_programs(&self, judged_by: Option<[u8; 16]>) -> Result<(), EngineError> {
        if judged_by.is_none_or(|rules| rules == super::task::judging_rules(&self.shared.schema)) {
            return Ok(());
        }
        for _ in 0..LEAVING_LOOKS {
            if !self.has_company().await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let why = "gateways of another version serve this database; end all of them, then start those of this version \
                   (同一数据库上运行着其他版本的网关，请全部停止后统一升级)";
        Err(StoreError::Unusable(why.into()).into())
    }

    /// Whether other gateways of this store are there.
    pub(super) async fn has_company(&self) -> Result<bool, EngineError> {
        let here = self.shared.store.slot();
        Ok(self.shared.store.live_slots().await?.iter().any(|slot| *slot != here))
    }
}

/// Begins what runs beside the writing task, where there can be other gateways.
pub(super) fn begin(shared: &Arc<Shared>, commands: &mpsc::Sender<Command>) {
    if !shared.store.is_for_many() {
        return;
    }
    tokio::spawn(watch_others(Arc::downgrade(shared), commands.downgrade()));
    tokio::spawn(keep_duty(Arc::downgrade(shared)));
}
