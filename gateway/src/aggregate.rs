//! What a record adds to the counts of its divisions. A count is kept in the transaction that changes a record, from the
//! difference of what the record added before and adds now; a recount over all records must give the same numbers.
//!
//! Counts come from what readers are shown. Nothing here reads a clock: flows are dated by the record itself, and what
//! depends on the day (open, overdue) is a balance of flows.

use guantong_proto::rules::fields;
use smallvec::SmallVec;

use crate::division::Division;
use crate::measure::{Code, Count, Dimension};
use crate::period::Day;
use crate::record::{FieldNumber, Record};
use crate::schema::Kind;

mod camera;
mod case;
mod cells;
mod facets;
mod grid;
pub mod snapshot;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use cells::{Cell, Entries, Malformed, Sheet, TallyChange, day_key, merge_packed, pack};
use facets::Facets;

/// When something counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum When {
    /// At no day of its own: how many there are, or a flow whose day nobody gave.
    Undated,
    /// It happened on this day.
    On(Day),
    /// How many there were on this day, as its snapshot says.
    AsOf(Day),
}

/// One number that a record adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addend {
    /// When it counts.
    pub when: When,
    /// What it adds to.
    pub code: Code,
    /// How much.
    pub amount: i64,
}

/// All that a record adds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contribution {
    /// To the counts of its home and the county around it.
    pub addends: SmallVec<[Addend; 8]>,
    /// A village unit that has it as an active grid.
    pub village: Option<Division>,
}

impl Contribution {
    fn add(&mut self, when: When, code: Code, amount: i64) {
        if amount != 0 {
            self.addends.push(Addend { when, code, amount });
        }
    }

    /// Adds one to the total of a count and to each class.
    fn count(&mut self, when: When, count: Count, classes: &[(Dimension, u16)]) {
        self.add(when, Code::total(count), 1);
        for (dimension, class) in classes {
            self.add(when, Code::part(count, *dimension, *class), 1);
        }
    }

    /// Counts it among the records, and among the complete ones.
    fn record(&mut self, kind: &Kind, complete: bool) {
        let class = [(Dimension::RecordKind, kind.rule.number as u16)];
        self.count(When::Undated, Count::Records, &class);
        if complete {
            self.count(When::Undated, Count::RecordsComplete, &class);
        }
    }
}

/// What a record adds. Deleted records, and kinds that nothing is counted of, add nothing.
pub fn contribution_of(kind: &Kind, home: Division, record: &Record) -> Contribution {
    let facets = Facets { kind, home, record };
    let mut out = Contribution::default();
    if record.is_empty() || counted_fields(kind).is_empty() || facets.flag(fields::DELETED) {
        return out;
    }
    match kind.rule.name {
        "grid" => grid::count(&facets, &mut out),
        "case" => case::count(&facets, &mut out),
        "camera" => camera::count(&facets, &mut out),
        "snapshot" => snapshot::count(&facets, &mut out),
        _ => {}
    }
    out
}

/// The fields of a kind that contributions are computed from.
fn counted_fields(kind: &Kind) -> &'static [FieldNumber] {
    match kind.rule.name {
        "grid" => grid::FIELDS,
        "case" => case::FIELDS,
        "camera" => camera::FIELDS,
        "snapshot" => snapshot::FIELDS,
        _ => &[],
    }
}

/// Whether two forms of a record may add different numbers: most changes touch no field that is counted.
pub fn may_differ(kind: &Kind, before: &Record, after: &Record) -> bool {
    let fields = counted_fields(kind);
    before.is_empty() && !fields.is_empty()
        || fields.iter().any(|field| before.get(*field) != after.get(*field))
}
