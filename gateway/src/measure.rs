//! The catalogue of measures: what can be asked for, by which dimensions, what it means, and of which kept counts it is
//! made. Definitions only: nothing here reads records or a store.
//!
//! A *count* is kept with each write, as a total and by the classes of its dimensions, each on its own (marginals, no
//! cross products). A *measure* is what people ask for: a count, a balance of counts, or a rate.

use smallvec::SmallVec;

mod catalogue;
mod classes;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use catalogue::MEASURES;
pub use classes::{Class, Dimension, UNLISTED};

/// Raised whenever what a record adds to a count changes, so that stores count anew.
const COUNTING: u32 = 1;
/// How many names are offered in place of an unknown one.
const NEAR_MAX: usize = 3;

/// What is kept. The numbers are stored, and travel in snapshots: they are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Count {
    /// Active grids.
    Grids = 1,
    /// Grids, retired ones included.
    GridsRegistered = 2,
    /// Staff of active grids.
    Staff = 3,
    /// Active grids of each village unit of a township; kept for townships only.
    VillageGrids = 4,
    /// Cameras.
    Cameras = 5,
    /// Cameras whose latest observation says "on".
    CamerasOnline = 6,
    /// Cameras whose latest observation says "video lost" or "defect".
    CamerasFaulty = 7,
    /// Cameras that are connected.
    CamerasConnected = 8,
    /// Cameras that are filed.
    CamerasFiled = 9,
    /// Cameras that need not be filed.
    CamerasExempt = 10,
    /// Grids, cases and cameras.
    Records = 11,
    /// Those whose every required field is present.
    RecordsComplete = 12,
    /// Village units with an active grid; in snapshots only, since it is counted from `VillageGrids`.
    VillagesCovered = 13,
    /// Village units; in snapshots only, since it is counted from the divisions known.
    Villages = 14,
    /// Snapshots of a day.
    Snapshots = 15,
    /// Cases, by the day on which they were received.
    Received = 32,
    /// Cases, by the day on which they were first accepted.
    Accepted = 33,
    /// Concluded cases, by the day of the conclusion.
    Concluded = 34,
    /// Those of them that were settled.
    Succeeded = 35,
    /// Escalations, by day; a case may have several.
    Escalated = 36,
    /// Returns, by day; a case may have several.
    Returned = 37,
    /// Ended cases, by the day of the end.
    Ended = 38,
    /// Cases, by the day on which they are due.
    Due = 39,
    /// Those of them that were concluded on that day or before.
    DueConcluded = 40,
    /// Cases that had not ended when they were due, by the day after.
    TurnedOverdue = 41,
    /// Those of them that ended later, by the day of the end.
    OverdueEnded = 42,
}

impl Count {
    /// All of them.
    pub const ALL: [Count; 26] = [
        Count::Grids,
        Count::GridsRegistered,
        Count::Staff,
        Count::VillageGrids,
        Count::Cameras,
        Count::CamerasOnline,
        Count::CamerasFaulty,
        Count::CamerasConnected,
        Count::CamerasFiled,
        Count::CamerasExempt,
        Count::Records,
        Count::RecordsComplete,
        Count::VillagesCovered,
        Count::Villages,
        Count::Snapshots,
        Count::Received,
        Count::Accepted,
        Count::Concluded,
        Count::Succeeded,
        Count::Escalated,
        Count::Returned,
        Count::Ended,
        Count::Due,
        Count::DueConcluded,
        Count::TurnedOverdue,
        Count::OverdueEnded,
    ];

    /// The name in lists of kept counts.
    pub const fn name(self) -> &'static str {
        match self {
            Count::Grids => "grids",
            Count::GridsRegistered => "grids_registered",
            Count::Staff => "staff",
            Count::VillageGrids => "village_grids",
            Count::Cameras => "cameras",
            Count::CamerasOnline => "cameras_online",
            Count::CamerasFaulty => "cameras_faulty",
            Count::CamerasConnected => "cameras_connected",
            Count::CamerasFiled => "cameras_filed",
            Count::CamerasExempt => "cameras_exempt",
            Count::Records => "records",
            Count::RecordsComplete => "records_complete",
            Count::VillagesCovered => "villages_covered",
            Count::Villages => "villages",
            Count::Snapshots => "snapshots",
            Count::Received => "cases_received",
            Count::Accepted => "cases_accepted",
            Count::Concluded => "cases_concluded",
            Count::Succeeded => "cases_succeeded",
            Count::Escalated => "cases_escalated",
            Count::Returned => "cases_returned",
            Count::Ended => "cases_ended",
            Count::Due => "cases_due",
            Count::DueConcluded => "cases_due_concluded",
            Count::TurnedOverdue => "cases_turned_overdue",
            Count::OverdueEnded => "cases_overdue_ended",
        }
    }

    /// The dimensions that it is kept by.
    pub const fn dimensions(self) -> &'static [Dimension] {
        use Dimension as D;
        match self {
            Count::Grids => &[D::GridType],
            Count::GridsRegistered => &[D::GridState],
            Count::Staff => &[D::StaffKind],
            Count::VillageGrids => &[D::Village],
            Count::Cameras
            | Count::CamerasOnline
            | Count::CamerasFaulty
            | Count::CamerasConnected
            | Count::CamerasFiled
            | Count::CamerasExempt => &[D::Ownership, D::PointClass, D::Function, D::Network],
            Count::Records | Count::RecordsComplete => &[D::RecordKind],
            Count::VillagesCovered | Count::Villages | Count::Snapshots => &[],
            _ => &[D::CaseKind, D::Category, D::Channel, D::Risk, D::Unit],
        }
    }

    /// Whether it is dated by the records; otherwise it says how many there are now.
    pub const fn is_flow(self) -> bool {
        self as u8 >= Count::Received as u8
    }

    fn of_number(number: u32) -> Option<Count> {
        Count::ALL.into_iter().find(|count| *count as u32 == number)
    }
}

/// What one kept number is: a count's total, or its part in one class of one dimension.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(u32);

impl Code {
    /// The total of a count.
    pub const fn total(count: Count) -> Code {
        Code((count as u32) << 16)
    }

    /// The part of a count in a class, of which only 12 bits count.
    pub const fn part(count: Count, dimension: Dimension, class: u16) -> Code {
        Code((count as u32) << 16 | (dimension as u32) << 12 | class as u32 & 0xfff)
    }

    /// From its number, whether or not it is known here.
    pub const fn of_number(number: u32) -> Code {
        Code(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The count; `None`: one of another program.
    pub fn count(self) -> Option<Count> {
        Count::of_number(self.0 >> 16)
    }

    /// Dimension and class; `None`: the total, or of another program.
    pub fn class(self) -> Option<(Dimension, u16)> {
        let dimension = Dimension::ALL.into_iter().find(|d| *d as u32 == self.0 >> 12 & 0xf)?;
        Some((dimension, (self.0 & 0xfff) as u16))
    }
}

/// A count with its sign in a formula.
pub type Term = (i64, Count);

/// How a measure is made of counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Formula {
    /// Dated by the records: what happened in the period.
    Flow(&'static [Term]),
    /// How many there were at the end of the period's last day; while it is not over, how many there are now.
    Stock(&'static [Term]),
    /// What came minus what went, up to the end of the period's last day, or of today while it is not over.
    Balance {
        /// What came.
        came: Count,
        /// What went.
        went: Count,
    },
    /// One sum over another.
    Rate {
        /// What is over the line.
        numerator: &'static [Term],
        /// What is under it.
        denominator: &'static [Term],
        /// Both are flows; otherwise stocks.
        flow: bool,
        /// What it is a share of, in English and Chinese.
        basis: (&'static str, &'static str),
    },
}

impl Formula {
    /// Whether it is about what happened in a period; otherwise about its end.
    pub const fn is_flow(self) -> bool {
        match self {
            Formula::Flow(_) => true,
            Formula::Rate { flow, .. } => flow,
            Formula::Stock(_) | Formula::Balance { .. } => false,
        }
    }

    /// Whether past days of it come from snapshots: how many there were then, or a share of that.
    pub const fn is_of_snapshots(self) -> bool {
        !self.is_flow() && !matches!(self, Formula::Balance { .. })
    }

    /// What a rate is a share of, in English and Chinese; empty for what is no rate.
    pub const fn basis(self) -> (&'static str, &'static str) {
        match self {
            Formula::Rate { basis, .. } => basis,
            _ => ("", ""),
        }
    }

    /// The counts that it needs.
    pub fn counts(self) -> SmallVec<[Count; 4]> {
        match self {
            Formula::Flow(terms) | Formula::Stock(terms) => terms.iter().map(|t| t.1).collect(),
            Formula::Balance { came, went } => SmallVec::from_slice(&[came, went]),
            Formula::Rate { numerator, denominator, .. } => {
                numerator.iter().chain(denominator).map(|t| t.1).collect()
            }
        }
    }
}

/// Something that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measure {
    /// Its name in requests.
    pub name: &'static str,
    /// Chinese label.
    pub label: &'static str,
    /// Unit in Chinese: 个, 人, 件, 件次, %.
    pub unit: &'static str,
    /// How it is made of counts.
    pub formula: Formula,
    /// What exactly it says, in English.
    pub meaning: &'static str,
    /// The same in Chinese.
    pub meaning_label: &'static str,
}

impl Measure {
    /// The measure of a name.
    pub fn named(name: &str) -> Option<&'static Measure> {
        MEASURES.iter().find(|measure| measure.name == name)
    }

    /// Names of measures that look like `name`, the nearest first.
    pub fn near(name: &str) -> Vec<&'static str> {
        let name: String = name.chars().take(64).collect();
        let mut found: Vec<(usize, &str)> = MEASURES
            .iter()
            .map(|m| (distance(&name, m.name), m.name))
            .filter(|(distance, known)| *distance <= 3 || known.contains(&name) && name.len() >= 3)
            .collect();
        found.sort_unstable();
        found.into_iter().take(NEAR_MAX).map(|f| f.1).collect()
    }

    /// The dimensions that it can be asked by: those of every count in it.
    pub fn dimensions(&self) -> Vec<Dimension> {
        let counts = self.formula.counts();
        let Some((first, others)) = counts.split_first() else { return Vec::new() };
        let all = |d: &&Dimension| others.iter().all(|count| count.dimensions().contains(d));
        first.dimensions().iter().filter(all).copied().collect()
    }

    /// Whether it is a rate.
    pub const fn is_rate(&self) -> bool {
        matches!(self.formula, Formula::Rate { .. })
    }
}

/// What a measure came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Value {
    /// So many.
    Number(i64),
    /// One number over another; of 0 over 0 nothing can be said.
    Rate {
        /// Over the line.
        numerator: i64,
        /// Under the line.
        denominator: i64,
    },
    /// It cannot be told here: no list of villages is loaded, or no snapshot of the day was taken.
    #[default]
    Unknown,
}

impl Value {
    /// As one number: a rate of 0.5 for 50 %.
    pub fn number(self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(number as f64),
            Value::Rate { numerator, denominator } if denominator != 0 => {
                Some(numerator as f64 / denominator as f64)
            }
            Value::Rate { .. } | Value::Unknown => None,
        }
    }

    /// The change from `base`: (x − x₀) ÷ x₀; `None` where x₀ is 0 or one of them is not known.
    pub fn change_from(self, base: Value) -> Option<f64> {
        let (now, base) = (self.number()?, base.number()?);
        (base != 0.0).then(|| (now - base) / base)
    }
}

/// The rank of each value, greatest first, beginning with 1. Equal values share a rank, and the one after them counts
/// them all (1, 2, 2, 4). What is not known has none.
pub fn ranks(values: &[Value]) -> Vec<Option<u32>> {
    let mut sorted: Vec<f64> = values.iter().filter_map(|v| v.number()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let rank = |value: f64| sorted.partition_point(|other| *other > value) as u32 + 1;
    values.iter().map(|v| v.number().map(rank)).collect()
}

/// Hash over all that decides what is counted: another one means that every record must be counted anew.
pub fn fingerprint() -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(&COUNTING.to_le_bytes());
    for count in Count::ALL {
        hash.update(&[count as u8]);
        for dimension in count.dimensions() {
            hash.update(&[*dimension as u8]);
            for class in dimension.classes() {
                hash.update(format!("{} {}\n", class.number, class.name).as_bytes());
            }
        }
    }
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    fingerprint
}

/// How many letters must be put in, taken out or replaced to get from one name to another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != y));
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
