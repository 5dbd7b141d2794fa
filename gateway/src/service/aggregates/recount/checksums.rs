//! Whether the kept checksums of links are those of the records: computed anew by the same pass as the counts. By how much
//! a link's are wrong is remembered, so that it can be added, or they be computed anew; nothing is put right here.

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

/// Sums that are put right by adding to them; a link of which more are wrong is computed anew.
const MISSING_MAX: usize = 100_000;

/// Sums by peer, home, kind and field; without a home: of all homes together.
type Kept = BTreeMap<(PeerId, Option<Division>, KindId, FieldNumber), Sum>;

pub(super) struct Checksums {
    /// The links whose sums are known.
    links: Topology,
    /// Of the county that is being read.
    fresh: Sums,
    /// Of all counties so far.
    totals: Kept,
    /// What the kept ones lack.
    missing: Kept,
    /// Links of which too much is missing.
    anew: BTreeSet<PeerId>,
}

/// How kept checksums are put right.
#[derive(Default)]
pub(super) struct Wrong {
    /// What is added.
    pub(super) missing: Vec<SumChange>,
    /// Links whose sums are computed anew, since their sums do not agree with each other either.
    pub(super) anew: BTreeSet<PeerId>,
}

impl Wrong {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.anew.is_empty()
    }
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
        Ok(Checksums {
            links,
            fresh: Sums::default(),
            totals: Kept::new(),
            missing: Kept::new(),
            anew: BTreeSet::new(),
        })
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

    /// Compares the sums of all homes, and says what is to be done.
    pub(super) async fn end(
        mut self,
        shared: &Shared,
        frozen: &mut Frozen,
        said: &mut v1::RecountAggregatesResponse,
    ) -> Result<Wrong, StoreError> {
        let peers = self.peers();
        said.link_count = peers.len() as u32;
        let mut kept = Kept::new();
        for peer in peers {
            let total = frozen.total_sums(peer).await?;
            kept.extend(total.into_iter().map(|((kind, field), sum)| ((peer, None, kind, field), sum)));
        }
        let counted = std::mem::take(&mut self.totals);
        self.judge(shared, kept, counted, said);
        Ok(self.wrong())
    }

    /// What homes lack, where all homes together lack the same: that is added. Everything else is computed anew.
    fn wrong(self) -> Wrong {
        let Checksums { missing, mut anew, .. } = self;
        let mut disagree = Kept::new();
        for ((peer, home, kind, field), sum) in &missing {
            let all = disagree.entry((*peer, None, *kind, *field)).or_default();
            *all = if home.is_some() { *all + *sum } else { *all - *sum };
        }
        anew.extend(disagree.iter().filter(|(_, sum)| **sum != Sum::ZERO).map(|(key, _)| key.0));
        let mut changes: BTreeMap<(PeerId, Division, KindId), Vec<(FieldNumber, Sum)>> = BTreeMap::new();
        for ((peer, home, kind, field), sum) in missing {
            if let Some(home) = home.filter(|_| !anew.contains(&peer)) {
                changes.entry((peer, home, kind)).or_default().push((field, sum));
            }
        }
        let change = |((peer, home, kind), sums)| SumChange { peer, home, kind, sums };
        Wrong { missing: changes.into_iter().map(change).collect(), anew }
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
            let key = (*peer, *home, *kind, *field);
            let of = |sums: &Kept| sums.get(&key).copied().unwrap_or_default();
            if self.missing.len() < MISSING_MAX {
                self.missing.insert(key, of(&counted) - of(&kept));
            } else {
                self.anew.insert(*peer);
            }
        }
        for ((peer, home, kind), mut fields) in places {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What is done where homes of two links lack so much, and all homes together.
    fn wrong(missing: [(PeerId, Option<&str>, u128); 4]) -> Wrong {
        let own = Division::parse("220822").unwrap();
        let key =
            |peer, home: Option<&str>| (peer, home.map(|code| Division::parse(code).unwrap()), KindId(1), 7);
        let missing = missing.into_iter().map(|(peer, home, sum)| (key(peer, home), Sum(sum))).collect();
        let (fresh, totals) = (Sums::default(), Kept::new());
        Checksums { links: Topology::new(own), fresh, totals, missing, anew: BTreeSet::new() }.wrong()
    }

    #[test]
    fn what_homes_lack_is_added_only_where_all_together_lack_the_same() {
        let (one, two) = (PeerId(1), PeerId(2));
        let home = Some("220822101");
        let found = wrong([(one, home, 5), (one, None, 5), (two, home, 5), (two, None, 6)]);
        assert_eq!(
            found.missing.iter().map(|c| (c.peer, c.sums.clone())).collect::<Vec<_>>(),
            [(one, vec![(7, Sum(5))])]
        );
        assert_eq!(found.anew, BTreeSet::from([two]));
        let found = wrong([(one, home, 5), (one, Some("220822102"), 1), (one, None, 6), (two, None, 1)]);
        assert_eq!((found.missing.len(), found.anew), (2, BTreeSet::from([two])));
    }
}
