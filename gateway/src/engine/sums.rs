//! Computing the checksums of links: for a new peer, in a store of an older format, and after the rules have changed. It
//! goes page by page between everything else, each page in a transaction of its own that nobody writes beside, so that
//! no record is counted twice or not at all; it goes on where it was when the process ended.

use super::EngineError;
use super::catch_up::abreast;
use super::command::SumRepair;
use super::task::Task;
use crate::ingest::changes::{Changes, LinkChange, PeerState, RecordKey};
use crate::ingest::sums::Sums;
use crate::ingest::topology::{PeerId, Role};
use crate::outgoing::Route;
use crate::record::codec;
use crate::store::{StoredRecord, SumPage};

/// Records that are added in one transaction: it holds up writes for about a hundredth of a second.
const PAGE_RECORDS: usize = 1_000;

impl Task {
    /// Whether the sums of a link are to be computed now. One gateway does it for all.
    pub(super) fn is_summing(&self) -> bool {
        !self.sums_rest && self.has_duty() && self.unsummed().is_some()
    }

    /// A link whose sums are not known.
    fn unsummed(&self) -> Option<&PeerState> {
        let topology = self.shared.topology();
        let linked = |peer: &&PeerState| match peer.role {
            Role::Parent => topology.parent().is_some_and(|parent| parent.0 == peer.id),
            Role::Child => true,
            Role::Partner => false,
        };
        self.peers.values().filter(|peer| peer.summed_through != RecordKey::MAX).find(linked)
    }

    /// Adds the next records to the sums of a link that does not hold all of them.
    pub(super) async fn sum_next(&mut self) {
        if !self.is_summing() {
            return;
        }
        let done = abreast!(self, self.sum_page());
        // What other gateways decided before a page they decide again: they must get to write in between.
        self.sums_rest = done.is_err() || self.has_company().await.unwrap_or(true);
        if let Err(error) = done
            && !error.passes_by_itself()
        {
            let why = "the checksums of a link could not be computed; it is tried again (链路校验和计算失败，将重试)";
            tracing::warn!(%error, "{why}");
        }
    }

    async fn sum_page(&mut self) -> Result<(), EngineError> {
        let Some(peer) = self.unsummed().cloned() else { return Ok(()) };
        let page = SumPage {
            peer: peer.id,
            scope: (peer.role == Role::Child).then_some(peer.division),
            subtree_kinds: self.subtree_kinds(),
            after: peer.summed_through,
            limit: PAGE_RECORDS,
        };
        let shared = self.shared.clone();
        let route = Route { schema: &shared.schema, own: shared.own(), role: peer.role, peer: peer.division };
        let sum = |records: &[StoredRecord]| {
            let mut sums = Sums::default();
            for stored in records {
                // What cannot be read is not shared either.
                if let Ok(record) = codec::decode(stored.state.clone()) {
                    sums.join(route.schema, (peer.id, route.pair()), &stored.name, &record);
                }
            }
            sums.into_changes()
        };
        match self.store.sum_page(&page, sum).await {
            Ok((through, revision)) => {
                self.shared.raise_revision(revision);
                self.wrote = true;
                if let Some(peer) = self.peers.get_mut(&peer.id) {
                    peer.summed_through = through;
                }
                self.refresh_topology(None);
                if through == RecordKey::MAX {
                    self.shared.compare_now(page.peer);
                }
                Ok(())
            }
            Err(error) => {
                self.doubt(&error);
                Err(error.into())
            }
        }
    }

    /// Nobody keeps up the sums of a parent that is not configured: they are not known when it is so again.
    pub(super) async fn forget_former_parents(&mut self) -> Result<(), EngineError> {
        let parent = self.shared.topology().parent().map(|parent| parent.0);
        let former = |peer: &&PeerState| peer.role == Role::Parent && Some(peer.id) != parent;
        let summed = |peer: &&PeerState| peer.summed_through != 0;
        let former: Vec<PeerId> = self.peers.values().filter(former).filter(summed).map(|p| p.id).collect();
        self.forget_sums(&former).await
    }

    /// Adds to the sums of links what a recount found missing: that goes beside writes, and no record is read again. Where
    /// others may have put the same right, or the sums are not those that were compared, they are computed anew.
    pub(super) async fn repair_sums(&mut self, repair: &SumRepair) -> Result<(), EngineError> {
        let SumRepair { missing, anew, forgotten } = repair;
        let mut anew = anew.clone();
        if self.shared.store.is_for_many() || *forgotten != self.shared.sums_forgotten() {
            anew.extend(missing.iter().map(|change| change.peer));
            anew.sort_unstable();
            anew.dedup();
        } else if !missing.is_empty() {
            let changes = Changes { sums: missing.clone(), ..Changes::default() };
            self.commit(&changes, &[]).await?;
        }
        self.forget_sums(&anew).await
    }

    /// The sums of these links are computed anew.
    pub(super) async fn forget_sums(&mut self, peers: &[PeerId]) -> Result<(), EngineError> {
        let forget: Vec<LinkChange> = peers.iter().map(|peer| LinkChange::ForgetSums(*peer)).collect();
        if !forget.is_empty() {
            self.commit(&Changes::default(), &forget).await?;
            self.note(&forget, true);
        }
        Ok(())
    }
}
