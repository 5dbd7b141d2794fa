//! Whether the kept checksums of links are those of the records: computed anew by the same pass as the counts. Which link
//! is wrong is remembered, so that its sums can be computed anew; nothing is put right here.

use std::collections::{BTreeMap, BTreeSet};

use guantong_proto::v1;

use super::NAMED_MAX;
use crate::division::Division;
use crate::engine::Shared;
use crate::ingest::changes::{RecordKey, SumChange};
use crate::ingest::sums::Sums;
use crate::ingest::topology::{PeerId, Role, Topology};
use crate::proof::{Crossing, Sum};
use crate::record::{FieldNumber, Record};
use crate::schema::KindId;
use crate::store::{Frozen, StoreError, StoredRecord};

/// Sums by peer, home, kind and field; without a home: of all homes together.
type Kept = BTreeMap<(PeerId, Option<Division>, KindId, FieldNumber), Sum>;

pub(super) struct Checksums {
    /// The links whose sums are known.
    links: Topology,
    /// Of the county that is being read.
    fresh: Sums,
    /// Of all counties so far.
    totals: Kept,
    wrong: BTreeSet<PeerId>,
}

impl Checksums {
    pub(super) async fn begin(shared: &Shared, frozen: &mut Frozen) -> Result<Checksums, StoreError> {
        let linked = shared.topology();
        let mut links = Topology::new(shared.own());
        for peer in frozen.summed_peers().await? {
            match linked.peer(peer) {
                Some((Role::Parent, division)) => links.set_parent(peer, division),
                Some((Role::Child, division)) => links.add_child(peer, division),
                Some((Role::Partner, _)) | None => continue,
            }
            links.set_summed(peer, RecordKey::MAX);
        }
        Ok(Checksums { links, fresh: Sums::default(), totals: Kept::new(), wrong: BTreeSet::new() })
    }

    /// Adds a record of the county.
    pub(super) fn add(&mut self, shared: &Shared, stored: &StoredRecord, record: &Record) {
        let (kind, nothing) = (shared.schema.kind(stored.name.kind), Record::default());
        let before = Crossing::of(kind, stored.name.home, &nothing);
        let after = Crossing::of(kind, stored.name.home, record);
        self.fresh.change(&self.links, stored.key, &stored.name, &before, &after);
    }

    /// Compares what was kept of a county with what its records gave.
    pub(super) async fn compare(
        &mut self,
        shared: &Shared,
        frozen: &mut Frozen,
        county: Division,
        said: &mut v1::RecountAggregatesResponse,
    ) -> Result<(), StoreError> {
        let fresh = std::mem::take(&mut self.fresh).into_changes();
        let mut kept = Kept::new();
        for peer in self.peers() {
            for change in frozen.sums(peer, county).await? {
                gather(&mut kept, &change, Some(change.home));
            }
        }
        let mut counted = Kept::new();
        for change in &fresh {
            gather(&mut counted, change, Some(change.home));
            gather(&mut self.totals, change, None);
        }
        self.judge(shared, kept, counted, said);
        Ok(())
    }

    /// Compares the sums of all homes, and says which links are wrong.
    pub(super) async fn end(
        mut self,
        shared: &Shared,
        frozen: &mut Frozen,
        said: &mut v1::RecountAggregatesResponse,
    ) -> Result<Vec<PeerId>, StoreError> {
        let peers = self.peers();
        said.link_count = peers.len() as u32;
        let mut kept = Kept::new();
        for peer in peers {
            let total = frozen.total_sums(peer).await?;
            kept.extend(total.into_iter().map(|((kind, field), sum)| ((peer, None, kind, field), sum)));
        }
        let counted = std::mem::take(&mut self.totals);
        self.judge(shared, kept, counted, said);
        Ok(self.wrong.into_iter().collect())
    }

    fn peers(&self) -> Vec<PeerId> {
        self.links.parent().into_iter().chain(self.links.children()).map(|peer| peer.0).collect()
    }

    fn judge(
        &mut self,
        shared: &Shared,
        mut kept: Kept,
        mut counted: Kept,
        said: &mut v1::RecountAggregatesResponse,
    ) {
        kept.retain(|_, sum| *sum != Sum::ZERO);
        counted.retain(|_, sum| *sum != Sum::ZERO);
        let missing = counted.keys().filter(|key| !kept.contains_key(key));
        let differ = kept.iter().filter(|(key, sum)| counted.get(key) != Some(sum)).map(|(key, _)| key);
        let mut places: BTreeMap<(PeerId, Option<Division>, KindId), Vec<FieldNumber>> = BTreeMap::new();
        for (peer, home, kind, field) in missing.chain(differ) {
            places.entry((*peer, *home, *kind)).or_default().push(*field);
        }
        for ((peer, home, kind), mut fields) in places {
            self.wrong.insert(peer);
            fields.sort_unstable();
            if said.checksum_difference_count < NAMED_MAX as u64 {
                said.checksum_differences.push(v1::ChecksumDifference {
                    peer: self.links.peer(peer).map(|(_, division)| division.to_string()).unwrap_or_default(),
                    home: home.map(|home| home.to_string()).unwrap_or_default(),
                    kind: shared.schema.kind(kind).rule.name.into(),
                    fields,
                });
            }
            said.checksum_difference_count += 1;
        }
    }
}

fn gather(all: &mut Kept, change: &SumChange, home: Option<Division>) {
    for (field, sum) in &change.sums {
        let held = all.entry((change.peer, home, change.kind, *field)).or_default();
        *held = *held + *sum;
    }
}
