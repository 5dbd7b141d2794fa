//! By how much the running checksums of links change in one transaction: from what each record was before and is now.
//!
//! A link's sums hold the records up to a number, until all were added: what lies beyond is left alone here, whoever adds
//! it finds it as it is then.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::changes::{RecordKey, SumChange};
use super::topology::{PeerId, Topology};
use crate::division::Division;
use crate::proof::{self, Crossing, Hasher, Pair, Sum};
use crate::record::{FieldNumber, Record, RecordName};
use crate::schema::{KindId, Schema};

/// What is added to the sums of each peer, home and kind.
#[derive(Default, Debug)]
pub struct Sums {
    /// Where in `added` a peer, home and kind stand: looked up once a record, not once a field.
    places: HashMap<(PeerId, Division, KindId), usize>,
    added: Vec<Vec<(FieldNumber, Sum)>>,
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
        let Sums { places, added, hasher } = self;
        let mut at: SmallVec<[usize; 4]> = SmallVec::new();
        for (peer, _) in links {
            at.push(*places.entry((*peer, name.home, name.kind)).or_insert_with(|| {
                added.push(Vec::new());
                added.len() - 1
            }));
        }
        let pairs: SmallVec<[Pair; 4]> = links.iter().map(|link| link.1).collect();
        proof::differences(name, before, after, &pairs, hasher, |link, field, difference| {
            let sums = &mut added[at[link]];
            match sums.binary_search_by_key(&field, |sum| sum.0) {
                Ok(at) => sums[at].1 = sums[at].1 + difference,
                Err(at) => sums.insert(at, (field, difference)),
            }
        });
    }

    /// What a transaction writes, in the order of peers, homes and kinds.
    pub fn into_changes(mut self) -> Vec<SumChange> {
        let mut changes = Vec::with_capacity(self.added.len());
        for ((peer, home, kind), at) in self.places {
            let mut sums = std::mem::take(&mut self.added[at]);
            sums.retain(|(_, sum)| *sum != Sum::ZERO);
            if !sums.is_empty() {
                changes.push(SumChange { peer, home, kind, sums });
            }
        }
        changes.sort_unstable_by_key(|change| (change.peer, change.home, change.kind));
        changes
    }
}
