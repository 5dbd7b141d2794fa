//! The audit log beside the writing task: what is noted outside of transactions waits here, for a second at most, and
//! goes to disk with the task's next look.

use std::sync::{MutexGuard, PoisonError};

use super::task::Task;
use super::{Engine, EngineError, Shared};
use crate::audit::{Event, Gathered};
use crate::ingest::changes::Changes;

impl Shared {
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
        if !audit.is_empty() {
            let changes = Changes { audit, ..Changes::default() };
            self.commit(&changes, &[]).await?;
            self.shared.gathered().written(&changes.audit, now_ms);
        } else {
            self.shared.gathered().written(&[], now_ms);
        }
        Ok(())
    }
}

impl Engine {
    /// Notes an event that no transaction tells of: see [`Shared::audit`]. What a transaction does is noted in its
    /// `Changes::audit`.
    pub fn audit(&self, event: Event) {
        self.shared.audit(event);
    }
}
