//! A store that is filled again by its peers, for whoever asks what becomes of it: begun where a greeting tells, over
//! when no peer has anything left to give, and then counted what cannot come back. Nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::task::{SCAN_RECORDS, Task};
use super::{EngineError, Shared};
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange, RecordKey};
use crate::ingest::recovery::{Cause, Loss, Recovery, lacking};
use crate::ingest::topology::{PeerId, Role};
use crate::record::{FieldNumber, codec};
use crate::schema::KindId;

/// How long the task counts at a time.
const COUNT_TIME: Duration = Duration::from_millis(100);

/// What the task knows of the last time that its store was filled again.
#[derive(Default)]
pub(super) struct Recovering {
    known: Option<Recovery>,
    /// What was counted so far of what cannot come back.
    counting: Option<Counting>,
}

#[derive(Default)]
struct Counting {
    after: RecordKey,
    lacking: BTreeMap<(KindId, FieldNumber), u64>,
}

impl Shared {
    /// The last time that the store began empty or was put back; `None`: never.
    pub fn recovery(&self) -> Option<Recovery> {
        self.recovery.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Children that have not given everything yet.
    pub fn recovering(&self) -> Vec<Division> {
        self.recovering.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Task {
    /// Tells everyone else which children have not given everything yet.
    pub(super) fn note_recovering(&self) {
        let recovering = self.peers.values().filter(|p| p.role == Role::Child && p.recovering_to.is_some());
        let recovering = recovering.map(|p| p.division).collect();
        *self.shared.recovering.write().unwrap_or_else(PoisonError::into_inner) = recovering;
    }

    /// What is stored of it.
    pub(super) fn know_recovery(&mut self, recovery: Option<Recovery>) {
        *self.shared.recovery.write().unwrap_or_else(PoisonError::into_inner) = recovery.clone();
        self.recovery = Recovering { known: recovery, counting: None };
        self.note_recovering();
    }

    /// What a greeting found is to be stored: this store lacks what the peer has. `was_known`: it had greeted the peer
    /// before.
    pub(super) fn recovery_begun(&self, from: Role, was_known: bool) -> Recovery {
        let cause = if was_known { Cause::PutBack } else { Cause::Emptied };
        let now_ms = (self.shared.environment.now_ms)();
        Recovery::begun(self.recovery.known.as_ref(), cause, from == Role::Parent, now_ms)
    }

    /// What is to be stored of it once a peer has given everything; `None`: nothing changes.
    pub(super) fn recovery_after(&self, peer: PeerId) -> Option<Recovery> {
        let known = self.recovery.known.as_ref().filter(|known| known.ended_ms.is_none())?;
        let from_parent = known.from_parent && self.shared.topology().parent().map(|p| p.0) != Some(peer);
        let pending = self.peers.values().any(|p| p.id != peer && p.recovering_to.is_some());
        let ended_ms = (!from_parent && !pending).then(|| (self.shared.environment.now_ms)());
        let after = Recovery { from_parent, ended_ms, ..known.clone() };
        (after != *known).then_some(after)
    }

    /// Once it is over, counts what cannot come back, a piece at a time.
    pub(super) async fn count_losses(&mut self) -> Result<(), EngineError> {
        let due = |known: &Recovery| known.ended_ms.is_some() && known.losses.is_none();
        let Some(known) = self.recovery.known.clone().filter(due) else { return Ok(()) };
        let (topology, begun) = (self.shared.topology(), Instant::now());
        let counting = self.recovery.counting.get_or_insert_default();
        loop {
            let page = self.shared.store.scan(counting.after, SCAN_RECORDS).await?;
            let Some(last) = page.last() else { break };
            counting.after = last.key;
            for stored in page {
                let Ok(record) = codec::decode(stored.state) else { continue };
                let kind = self.shared.schema.kind(stored.name.kind);
                for field in lacking(&topology, kind, stored.name.home, &record) {
                    *counting.lacking.entry((stored.name.kind, field)).or_default() += 1;
                }
            }
            if begun.elapsed() > COUNT_TIME {
                return Ok(());
            }
        }
        let loss = |((kind, field), records): (&(KindId, FieldNumber), &u64)| Loss {
            kind: *kind,
            field: *field,
            records: *records,
        };
        let losses = Some(counting.lacking.iter().map(loss).collect());
        let counted = Recovery { losses, ..known };
        self.commit(&Changes::default(), &[LinkChange::Recovery(counted.clone())]).await?;
        self.know_recovery(Some(counted));
        Ok(())
    }
}
