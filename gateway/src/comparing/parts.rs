//! Parts of the records in which a difference lies, and what is read of them: the sums of homes as they are kept, and the
//! records of a home page by page. Only the fields that differ count, without the keys that were left out.

use std::sync::Arc;

use super::left_out::LeftOut;
use super::sums::{Part, Shares};
use crate::division::Division;
use crate::proof::{self, Pair, Sum};
use crate::record::{FieldNumber, Record, RecordName};
use crate::schema::{KindId, Schema};

/// Records read at a time.
pub const PAGE_RECORDS: usize = 500;
/// Records that one probe makes the other end read, about.
pub(super) const PROBE_RECORDS_MAX: usize = 16 * PAGE_RECORDS;
/// Entries of a probe or a finding.
pub(super) const ENTRIES_MAX: usize = 512;

/// What differs of a link, as both ends judged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of the comparison.
    pub comparison: u64,
    /// The ends.
    pub pair: Pair,
    /// Kinds, and their fields that differ.
    pub parts: Vec<Part>,
    /// Left out of all sums.
    pub left_out: LeftOut,
    /// What the records that something is left out of add here.
    pub shares: Shares,
}

/// What is wanted from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The total sums of the link, what is owed and refused, and the shares of these records and of `named`, all of one
    /// moment.
    Standing {
        /// Records that the peer leaves out.
        named: Vec<RecordName>,
    },
    /// The kept sums of all homes for a kind.
    Homes {
        /// Which.
        kind: KindId,
    },
    /// Records of a home, `PAGE_RECORDS` of them in the order of their ids: what `Difference::digest` gives for each.
    Page {
        /// What counts of them.
        difference: Arc<Difference>,
        /// Their kind.
        kind: KindId,
        /// Their home.
        home: Division,
        /// Those after this id; empty: from the first.
        after_id: Box<str>,
    },
}

/// Records of a home as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Ids and sums of those of which something counts, ascending.
    pub digests: Vec<(Box<str>, Sum)>,
    /// The id of the last one read; `None`: there are no more.
    pub more_after: Option<Box<str>>,
    /// How many were read.
    pub records: usize,
}

/// The kept sums of the records of one kind, by home, ascending.
pub type HomeSums = Vec<(Division, Vec<(FieldNumber, Sum)>)>;

impl Difference {
    /// The fields of a kind that differ.
    pub(super) fn part(&self, kind: KindId) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind)
    }

    /// What a record adds to the sums that differ; `None`: nothing.
    pub fn digest(&self, schema: &Schema, name: &RecordName, record: &Record) -> Option<Sum> {
        let part = self.part(name.kind)?;
        let counts = |field: FieldNumber| part.fields.contains(&field) && !self.left_out.has(name, field);
        let shared = proof::shared(schema, self.pair, name, record).into_iter();
        shared.filter(|(field, _)| counts(*field)).map(|(_, sum)| sum).reduce(|all, sum| all + sum)
    }

    /// The same of each home, from what is kept; homes without any are left out.
    pub(super) fn homes(&self, part: &Part, kept: HomeSums) -> Vec<(Division, Sum)> {
        let whole = |(home, sums): (Division, Vec<(FieldNumber, Sum)>)| {
            let mut sum = Sum::ZERO;
            for (_, one) in sums.iter().filter(|(field, _)| part.fields.contains(field)) {
                sum = sum + *one;
            }
            let of_home = |name: &&RecordName| name.kind == part.kind && name.home == home;
            for name in self.left_out.names().filter(of_home) {
                for (field, one) in self.shares.get(name).into_iter().flatten() {
                    if part.fields.contains(field) && self.left_out.has(name, *field) {
                        sum = sum - *one;
                    }
                }
            }
            (home, sum)
        };
        let mut homes: Vec<(Division, Sum)> = kept.into_iter().map(whole).collect();
        homes.retain(|(_, sum)| *sum != Sum::ZERO);
        homes.sort_unstable_by_key(|(home, _)| *home);
        homes
    }
}

/// Reads a page from records in the order of their ids, beginning after one, as many as a page has or all.
pub fn page<'r>(
    schema: &Schema,
    difference: &Difference,
    records: impl IntoIterator<Item = (&'r RecordName, Record)>,
) -> Page {
    let mut page = Page::default();
    let mut last = None;
    for (name, record) in records {
        page.records += 1;
        last = Some(name.id.clone());
        if let Some(sum) = difference.digest(schema, name, &record) {
            page.digests.push((name.id.clone(), sum));
        }
    }
    page.more_after = last.filter(|_| page.records >= PAGE_RECORDS);
    page
}
