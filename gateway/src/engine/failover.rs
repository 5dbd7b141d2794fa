//! A store that is not the one that was written last: a database of PostgreSQL on another timeline (a standby took over),
//! or in another place (a dump was put back, on this server or another), or a file that an operator put back from a
//! backup. Transactions may be lost whose stamps others hold, whatever the store's revisions say by now. So it counts
//! as a restore, before anything is decided: the store takes a new random number and new writers, links are greeted
//! anew, and peers are met as by a process that has just opened the store.
//!
//! Nothing is written again: nobody writes to such a store before this is done, so no stamp of the former writers
//! stands for two contents. Where timeline and place cannot be read, what is lost shows by revisions and tokens alone.

use std::sync::atomic::Ordering;

use super::EngineError;
use super::task::Task;
use crate::audit::Event;
use crate::ingest::changes::{Changes, Lineage, LinkChange, PeerState};
use crate::ingest::topology::Role;

impl Task {
    /// Compares what the store was written on last with where it is written now.
    pub(super) async fn meet_lineage(&mut self) -> Result<(), EngineError> {
        let stored = self.shared.store.lineage().await?;
        self.renewed_ms = stored.renewed_ms;
        let now = self.store.lineage().or(stored.last);
        let departed = departure(stored.last, now);
        if stored.put_back_ms.is_some() || departed.is_some() {
            self.begin_as_restored(now).await?;
            self.tell(departed.as_deref());
        } else if stored.last != now {
            self.commit(&Changes::default(), &[LinkChange::Lineage(now)]).await?;
        } else if let Some(departed) = self.abreast.lineage.and_then(|known| departure(known, now)) {
            // Another gateway was faster: here, too, an operator is told.
            self.tell(Some(&departed));
        }
        self.abreast.lineage = Some(now);
        Ok(())
    }

    async fn begin_as_restored(&mut self, now: Lineage) -> Result<(), EngineError> {
        self.note_opening().await?;
        // Later than all that anyone wrote, as ever.
        self.writers.keep_above(self.writers.latest());
        let given_up = self.writers.renew(|_| true);
        let epoch = (self.shared.environment.random)();
        let at_ms = (self.shared.environment.now_ms)();
        let mut links: Vec<LinkChange> = given_up.into_iter().map(LinkChange::GiveUp).collect();
        links.extend([LinkChange::NewEpoch { epoch, at_ms }, LinkChange::Lineage(now)]);
        // Subscribers may have more than this store: they get everything that it has.
        links.extend(self.fill_all());
        let recovering = self.children_by_bundle().await?;
        links.extend(recovering.iter().cloned().map(LinkChange::Peer));
        let renewed = Event::StoreRenewed { epoch: format!("{epoch:016x}") };
        let changes = Changes { audit: vec![renewed.into()], ..Changes::default() };
        self.commit(&changes, &links).await?;
        self.shared.epoch.store(epoch, Ordering::Release);
        self.renewed_ms = Some(at_ms);
        self.peers.extend(recovering.into_iter().map(|child| (child.id, child)));
        self.note_recovering();
        self.forget_claims();
        Ok(())
    }

    /// The children that bundles came from, as those that may give back what is lost here: what they say of this store is
    /// of a life that it remembers, and shows nothing. On a line their greeting tells by revisions.
    async fn children_by_bundle(&self) -> Result<Vec<PeerState>, EngineError> {
        let (mut children, to) = (Vec::new(), Some(self.own_store().recovering_to()));
        for child in self.peers.values().filter(|p| p.role == Role::Child) {
            if self.shared.store.bundle_standing(child.division).await?.peer_epoch != 0 {
                children.push(PeerState { recovering_to: to, ..child.clone() });
            }
        }
        Ok(children)
    }

    fn tell(&self, departed: Option<&str>) {
        self.shared.alarm(match departed {
            Some(departed) => format!(
                "{departed}: a standby took over, or a backup was put back; this counts as a restore: peers are greeted \
                 again and send what is missing (数据库已切换或恢复，按恢复处理，正在与上下级重新核对)"
            ),
            None => "this store was put back from a backup: it writes as another from now on, and peers are greeted again \
                     and send what is missing (数据存储已从备份恢复，正在与上下级重新核对)"
                .to_owned(),
        });
    }
}

/// What is another one now than it was, if that is known of both.
fn departure(before: Lineage, now: Lineage) -> Option<String> {
    let other = |before: Option<i64>, now: Option<i64>| before.zip(now).filter(|(before, now)| before != now);
    if let Some((before, now)) = other(before.timeline, now.timeline) {
        return Some(format!("the database runs on timeline {now}, before on {before}"));
    }
    other(before.place, now.place).map(|_| "the store stands in another database than before".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_of_both_is_another_one() {
        let lineage = |timeline, place| Lineage { timeline, place };
        assert_eq!(departure(lineage(None, None), lineage(Some(1), Some(2))), None);
        assert_eq!(departure(lineage(Some(1), Some(2)), lineage(Some(1), None)), None);
        assert!(departure(lineage(Some(1), Some(2)), lineage(Some(2), Some(2))).is_some());
        assert!(departure(lineage(Some(1), Some(2)), lineage(Some(1), Some(3))).is_some());
        let (known, now) = (lineage(Some(1), Some(2)), lineage(None, Some(2)));
        assert_eq!(now.or(known), known, "what cannot be read now is as it was");
    }
}
