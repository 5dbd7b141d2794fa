//! A database of PostgreSQL on another timeline than the one it was written on last: a standby took over, or a backup was
//! put back. Transactions may be lost whose stamps others hold, whatever the store's revisions say by now. So it counts
//! as a restore, before anything is decided: the store takes a new random number and new writers, links are greeted
//! anew, and peers are met as by a process that has just opened the store.
//!
//! Nothing is written again: nobody writes on the new timeline before this is done, so no stamp of the former writers
//! stands for two contents. Where the timeline cannot be read, what is lost shows by revisions and tokens alone.

use std::sync::atomic::Ordering;

use super::EngineError;
use super::task::Task;
use crate::audit::Event;
use crate::ingest::changes::{Changes, LinkChange};

impl Task {
    /// Compares the timeline of the connection that writes with the store's.
    pub(super) async fn meet_timeline(&mut self) -> Result<(), EngineError> {
        let Some(now) = self.store.timeline() else { return Ok(()) };
        match self.shared.store.timeline().await? {
            Some(before) if before == now => {
                // Another gateway may have been faster: here, too, an operator is told.
                if let Some(known) = self.abreast.timeline.filter(|known| *known != now) {
                    self.tell(known, now);
                }
            }
            Some(before) => {
                self.begin_as_restored(now).await?;
                self.tell(before, now);
            }
            None => self.commit(&Changes::default(), &[LinkChange::Timeline(now)]).await?,
        }
        self.abreast.timeline = Some(now);
        Ok(())
    }

    async fn begin_as_restored(&mut self, now: i64) -> Result<(), EngineError> {
        self.note_opening().await?;
        // Later than all that anyone wrote, as ever.
        self.writers.keep_above(self.writers.latest());
        let given_up = self.writers.renew(|_| true);
        let epoch = (self.shared.environment.random)();
        let mut links: Vec<LinkChange> = given_up.into_iter().map(LinkChange::GiveUp).collect();
        links.extend([LinkChange::NewEpoch(epoch), LinkChange::Timeline(now)]);
        // Subscribers may have more than this store: they get everything that it has.
        links.extend(self.fill_all());
        let renewed = Event::StoreRenewed { epoch: format!("{epoch:016x}") };
        let changes = Changes { audit: vec![renewed.into()], ..Changes::default() };
        self.commit(&changes, &links).await?;
        self.shared.epoch.store(epoch, Ordering::Release);
        self.forget_claims();
        Ok(())
    }

    fn tell(&self, before: i64, now: i64) {
        self.shared.alarm(format!(
            "the database runs on timeline {now}, before on {before}: a standby took over, or a backup was put back; this \
             counts as a restore: peers are greeted again and send what is missing \
             (数据库时间线已由{before}变为{now}，按恢复处理，正在与上下级重新核对)"
        ));
    }
}
