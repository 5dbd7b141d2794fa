//! By how much the running checksums of links change in one transaction: from what each record was before and is now.
//!
//! A link's sums hold the records up to a number, until all were added: what lies beyond is left alone here, whoever adds
//! it finds it as it is then.

use std::collections::BTreeMap;

use super::changes::{RecordKey, SumChange};
use super::topology::{PeerId, Topology};
use crate::division::Division;
use crate::proof::{self, Crossing, Hasher, Pair, Sum};
use crate::record::{FieldNumber, Record, RecordName};
use crate::schema::{KindId, Schema};

/// What is added to the sums of each peer, home and kind.
#[derive(Default, Debug)]
pub struct Sums {
    added: BTreeMap<(PeerId, Division, KindId), Vec<(FieldNumber, Sum)>>,
    hasher: Hasher,
}

impl Sums {
    /// Adds what the change of a record means to the links that it concerns, or did.
    pub fn change(
        &mut self,
        topology: &Topology,
        key: RecordKey,
        name: &RecordName,
        before: &Crossing<'_>,
        after: &Crossing<'_>,
    ) {
        let mut links = topology.summed_links(after.audience(), key);
        if before.audience() != after.audience() {
            links.extend(topology.summed_links(before.audience(), key));
            links.sort_unstable_by_key(|link| link.0);
            links.dedup_by_key(|link| link.0);
        }
        self.add(&links, name, before, after);
    }

    /// Adds a record that the sums of one link do not hold yet.
    pub fn join(
        &mut self,
        schema: &Schema,
        (peer, pair): (PeerId, Pair),
        name: &RecordName,
        record: &Record,
    ) {
        let (kind, nothing) = (schema.kind(name.kind), Record::default());
        let before = Crossing::of(kind, name.home, &nothing);
        self.add(&[(peer, pair)], name, &before, &Crossing::of(kind, name.home, record));
    }

    fn add(
        &mut self,
        links: &[(PeerId, Pair)],
        name: &RecordName,
        before: &Crossing<'_>,
        after: &Crossing<'_>,
    ) {
        let Sums { added, hasher } = self;
        let pairs: Vec<Pair> = links.iter().map(|link| link.1).collect();
        proof::differences(name, before, after, &pairs, hasher, |place, field, difference| {
            let sums = added.entry((links[place].0, name.home, name.kind)).or_default();
            match sums.binary_search_by_key(&field, |sum| sum.0) {
                Ok(at) => sums[at].1 = sums[at].1 + difference,
                Err(at) => sums.insert(at, (field, difference)),
            }
        });
    }

    /// What a transaction writes.
    pub fn into_changes(self) -> Vec<SumChange> {
        let change = |((peer, home, kind), mut sums): (_, Vec<(FieldNumber, Sum)>)| {
            sums.retain(|(_, sum)| *sum != Sum::ZERO);
            (!sums.is_empty()).then_some(SumChange { peer, home, kind, sums })
        };
        self.added.into_iter().filter_map(change).collect()
    }
}
