//! Claims, carried out: what links bring is kept and stored with the next round; rounds begin and end with the task's
//! ticks; what may be said is published for the link to the parent. When something may be said is `claiming`'s to decide.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use guantong_proto::v1;
use tokio::sync::watch;

use super::task::Task;
use super::{EngineError, Shared};
use crate::claiming::{self, CLAIMS_MAX, ClaimError, Claimed, Claims, Spoken};
use crate::completeness::{self, Completeness};
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange};
use crate::ingest::topology::Role;

/// Claims as readers and links share them with the task.
#[derive(Default)]
pub(super) struct Board {
    /// Of nodes below.
    known: RwLock<Arc<Claims>>,
    /// Came over links and are not stored yet.
    arrived: Mutex<Claims>,
    /// What may be said to the parent.
    spoken: watch::Sender<Arc<Spoken>>,
}

impl Shared {
    /// The claims of all nodes below that were ever linked, directly or further down.
    pub fn claims(&self) -> Arc<Claims> {
        self.board.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How complete a division is at a moment, Unix milliseconds.
    pub fn completeness(&self, scope: Division, at_ms: u64) -> Completeness {
        let at = (at_ms, (self.environment.now_ms)());
        completeness::of(self.own(), scope, at, &self.claims(), &self.divisions())
    }

    /// How complete several divisions are together at a moment, Unix milliseconds. What never had a node is listed where
    /// it was asked about, not where it lies below.
    pub fn completeness_of(&self, scopes: &[Division], at_ms: u64) -> Completeness {
        match scopes {
            [scope] => self.completeness(*scope, at_ms),
            _ => {
                completeness::of_all(self.own(), scopes, (at_ms, (self.environment.now_ms)()), &self.claims())
            }
        }
    }

    /// Takes a claim that a child's link brought. Everything that it speaks of is on disk here: the child has receipts.
    ///
    /// # Errors
    /// The claim is not taken; the link goes on.
    pub fn claimed(&self, child: Division, claim: &v1::Claim) -> Result<(), ClaimError> {
        let division = Division::parse(&claim.division).map_err(|_| ClaimError::OutOfScope)?;
        let through_ms = u64::try_from(claim.through_ms).map_err(|_| ClaimError::Future)?;
        let now_ms = (self.environment.now_ms)();
        let mut arrived = self.board.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.claims();
        let before = arrived.get(&division).or_else(|| known.get(&division)).copied();
        if before.is_none() && known.len() + arrived.len() >= CLAIMS_MAX {
            return Err(ClaimError::TooMany);
        }
        let claim = (division, through_ms, claim.quarantined_count);
        let taken = claiming::take(child, claim, before, now_ms, self.environment.drift_ms)?;
        arrived.insert(division, taken);
        Ok(())
    }

    /// What may be said to the parent, now and whenever it changes.
    pub fn spoken(&self) -> watch::Receiver<Arc<Spoken>> {
        self.board.spoken.subscribe()
    }

    pub(super) fn know(&self, known: Claims) {
        *self.board.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }
}

impl Task {
    /// What was claimed before this process began, and children that claimed nothing.
    pub(super) fn know_claims(&mut self, mut known: Claims) {
        known.remove(&self.shared.own());
        let now_ms = (self.shared.environment.now_ms)();
        for (_, child) in self.shared.topology().children() {
            known.entry(child).or_insert(Claimed { arrived_ms: now_ms, ..Claimed::default() });
        }
        known.iter().for_each(|(division, claimed)| self.claiming.arrived(*division, *claimed));
        self.shared.know(known);
        self.speak();
    }

    /// The store was read again. If it has lost transactions, what came since counts no more: neither what was claimed
    /// here nor what was said.
    pub(super) fn read_claims_again(&mut self, mut stored: Claims, lost: bool) {
        if lost {
            self.take_arrived();
            self.unstored_claims.clear();
            self.claiming.forget();
        }
        let unstored = self.unstored_claims.iter().map(|(division, claimed)| (*division, *claimed));
        stored.extend(unstored);
        self.know_claims(stored);
    }

    /// A child was welcomed for the first time: this node does not speak for it any more, and everyone above is told
    /// before the next claim says so.
    pub(super) fn know_child(&mut self, child: Division) -> LinkChange {
        let mut known = Claims::clone(&self.shared.claims());
        let now_ms = (self.shared.environment.now_ms)();
        let claimed = *known.entry(child).or_insert(Claimed { arrived_ms: now_ms, ..Claimed::default() });
        self.shared.know(known);
        self.claiming.arrived(child, claimed);
        self.speak();
        LinkChange::Claims(vec![(child, claimed)])
    }

    /// The parent is owed everything anew, or this store was put back: what was said counts no more.
    pub(super) fn forget_claims(&mut self) {
        self.claiming.forget();
        self.speak();
    }

    fn speak(&self) {
        let spoken = self.claiming.spoken().clone();
        self.shared.board.spoken.send_if_modified(|before| {
            let changed = before.serial() != spoken.serial();
            *before = Arc::new(spoken);
            changed
        });
    }

    /// With each tick: ends a round that nothing is owed for any more, begins the next, stores what came.
    pub(super) async fn attend_claims(&mut self) -> Result<(), EngineError> {
        let now_ms = (self.shared.environment.now_ms)();
        let parent = self.shared.topology().parent().filter(|_| self.has_duty());
        if self.shared.others_wrote.swap(false, Ordering::AcqRel) {
            self.claiming.written();
        }
        let Some((parent, _)) = parent else {
            return self.store_arrived(now_ms).await;
        };
        if let Some(position) = self.claiming.waits_for()
            && !self.shared.store.is_owed_up_to(parent, position).await?
        {
            let refused = self.shared.store.refused_count(parent).await?;
            self.claiming.over(refused);
        }
        self.take_arrived();
        let recovering = self.peers.values().any(|p| p.role == Role::Child && p.recovering_to.is_some());
        if let Some(own) = self.claiming.due(now_ms, !recovering) {
            let through_ms = own.then(|| self.writers.raise_floor(now_ms));
            let mut rows = self.unstored_claims.clone();
            rows.extend(through_ms.map(|through_ms| {
                (self.shared.own(), Claimed { through_ms, arrived_ms: now_ms, quarantined_count: 0 })
            }));
            self.store_claims(now_ms, rows).await?;
            let position = self.shared.store.newest_owed(parent).await?;
            self.claiming.begin(now_ms, through_ms, &self.shared.claims(), position);
        }
        self.speak();
        Ok(())
    }

    /// A node without a parent only keeps claims, a few seconds' worth at a time.
    async fn store_arrived(&mut self, now_ms: u64) -> Result<(), EngineError> {
        self.take_arrived();
        if self.unstored_claims.is_empty() || self.claiming.due(now_ms, false).is_none() {
            return Ok(());
        }
        self.store_claims(now_ms, self.unstored_claims.clone()).await?;
        self.claiming.begin(now_ms, None, &Claims::default(), 0);
        self.claiming.over(0);
        Ok(())
    }

    /// What links brought since the last look becomes known.
    fn take_arrived(&mut self) {
        let arrived =
            std::mem::take(&mut *self.shared.board.arrived.lock().unwrap_or_else(PoisonError::into_inner));
        if arrived.is_empty() {
            return;
        }
        let mut known = Claims::clone(&self.shared.claims());
        for (division, claimed) in arrived {
            self.claiming.arrived(division, claimed);
            known.insert(division, claimed);
            self.unstored_claims.insert(division, claimed);
        }
        self.shared.know(known);
    }

    /// What cannot be stored is tried again with the next round, and that is not at once.
    async fn store_claims(&mut self, now_ms: u64, rows: Claims) -> Result<(), EngineError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<(Division, Claimed)> = rows.into_iter().collect();
        let stored = self.commit(&Changes::default(), &[LinkChange::Claims(rows)]).await;
        match &stored {
            Ok(()) => self.unstored_claims.clear(),
            Err(_) => self.claiming.postpone(now_ms),
        }
        stored
    }

    /// The clock of this machine was ahead, and so is what was claimed by it: it is withdrawn, and stamps begin again.
    pub(super) async fn withdraw_claim(&mut self, now_ms: u64) -> Result<(), EngineError> {
        self.writers.lower_floor(now_ms);
        self.claiming.turned_back(now_ms);
        self.speak();
        let own = Claimed { through_ms: now_ms, arrived_ms: now_ms, quarantined_count: 0 };
        self.commit(&Changes::default(), &[LinkChange::Claims(vec![(self.shared.own(), own)])]).await
    }
}
