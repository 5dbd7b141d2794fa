//! What a record adds to the sums of its divisions. A sum is kept in the transaction that changes a record, from the
//! difference of what the record added before and adds now; a recount over all records must give the same numbers.
//!
//! Sums are counted from what readers are shown. Nothing here reads a clock: a sum that depends on the day belongs
//! to whoever asks for it.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use smallvec::SmallVec;

use crate::division::Division;
use crate::record::{FieldNumber, Record, raw, view};
use crate::schema::Kind;

/// What one sum counts, and where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TallyKey {
    /// The division whose records are summed, those of the divisions inside it included.
    pub division: Division,
    /// `grids`, `staff`, `cameras`, `cases`.
    pub measure: &'static str,
    /// What is counted within the measure.
    pub class: &'static str,
}

/// What one record adds: measure, class, amount.
pub type Contribution = SmallVec<[(&'static str, &'static str, i64); 8]>;

/// What a record adds to the sums of every division that encloses its home. Deleted records add nothing.
pub fn contribution_of(kind: &Kind, home: Division, record: &Record) -> Contribution {
    let facets = Facets { kind, home, record };
    if record.is_empty() {
        return Contribution::new();
    }
    if facets.flag(fields::DELETED) {
        return Contribution::new();
    }
    match kind.rule.name {
        "grid" => grid(&facets),
        "case" => case(&facets),
        "camera" => camera(&facets),
        _ => Contribution::new(),
    }
}

/// Adds a contribution, times `sign`, for every division from the home up to `own`.
pub fn spread(
    contribution: &Contribution,
    home: Division,
    own: Division,
    sign: i64,
    mut add: impl FnMut(TallyKey, i64),
) {
    for division in home.enclosing().filter(|d| own.contains(*d)) {
        for (measure, class, amount) in contribution {
            add(TallyKey { division, measure, class }, sign * amount);
        }
    }
}

/// Reads single values of what is shown, without decoding the rest.
struct Facets<'a> {
    kind: &'a Kind,
    home: Division,
    record: &'a Record,
}

impl Facets<'_> {
    fn value(&self, field: FieldNumber) -> Option<bytes::Bytes> {
        let rule = self.kind.field(field)?;
        view::shown(rule, self.record.get(field)?, self.home).map(|s| s.value)
    }

    fn number(&self, field: FieldNumber) -> u64 {
        self.value(field).and_then(|v| raw::payloads(&v).last()?.number()).unwrap_or(0)
    }

    fn flag(&self, field: FieldNumber) -> bool {
        self.number(field) == 1
    }

    /// Numbers of a repeated enum, packed or not.
    fn numbers(&self, field: FieldNumber) -> SmallVec<[u64; 4]> {
        let Some(value) = self.value(field) else { return SmallVec::new() };
        raw::payloads(&value).flat_map(raw::Payload::numbers).collect()
    }

    /// A number inside a message field.
    fn part(&self, field: FieldNumber, part: FieldNumber) -> u64 {
        let Some(value) = self.value(field) else { return 0 };
        let message = raw::payloads(&value).filter_map(raw::Payload::bytes).last().unwrap_or_default();
        raw::find(message, part).and_then(raw::Payload::number).unwrap_or(0)
    }
}

fn grid(facets: &Facets<'_>) -> Contribution {
    use fields::grid as f;
    let mut out = Contribution::new();
    if facets.number(f::STATE) != v1::ActiveState::Retired as u64 {
        out.push(("grids", "all", 1));
        let class = match facets.number(f::GRID_TYPE) {
            n if n == v1::GridType::Comprehensive as u64 => "comprehensive",
            n if n == v1::GridType::Dedicated as u64 => "dedicated",
            n if n == v1::GridType::Micro as u64 => "micro",
            _ => "other",
        };
        out.push(("grids", class, 1));
        let staff = [(1, "chief"), (2, "full_time_member"), (3, "part_time_member")];
        for (part, class) in staff {
            out.push(("staff", class, facets.part(f::STAFFING, part) as i64));
        }
        out.push(("staff", "member", (facets.part(f::STAFFING, 2) + facets.part(f::STAFFING, 3)) as i64));
    } else {
        out.push(("grids", "retired", 1));
    }
    out.retain(|c| c.2 != 0);
    out
}

fn case(facets: &Facets<'_>) -> Contribution {
    use fields::case as f;
    let mut out = Contribution::new();
    let dispute = facets.number(f::CASE_KIND) == v1::CaseKind::Dispute as u64;
    let state = facets.part(f::LIFECYCLE, 1);
    let is = |s: v1::CaseState| state == s as u64;
    let concluded = is(v1::CaseState::Concluded) || is(v1::CaseState::Verified);
    let ended = is(v1::CaseState::Verified) || is(v1::CaseState::Filed) || is(v1::CaseState::Cancelled);
    let succeeded = facets.part(f::OUTCOME, 3) == 1;
    out.push(("cases", if dispute { "dispute" } else { "incident" }, 1));
    if concluded {
        out.push(("cases", if dispute { "dispute_concluded" } else { "incident_concluded" }, 1));
    }
    if concluded && succeeded {
        out.push(("cases", if dispute { "dispute_succeeded" } else { "incident_succeeded" }, 1));
    }
    if !ended {
        out.push(("cases", "open", 1));
    }
    out
}

fn camera(facets: &Facets<'_>) -> Contribution {
    use fields::camera as f;
    let mut out = Contribution::new();
    let public = facets.number(f::OWNERSHIP) == v1::CameraOwnership::Public as u64;
    out.push(("cameras", if public { "public" } else { "social" }, 1));
    let functions = [
        (v1::CameraFunction::Face, "face"),
        (v1::CameraFunction::Person, "person"),
        (v1::CameraFunction::Vehicle, "vehicle"),
    ];
    let installed = facets.numbers(f::FUNCTIONS);
    out.extend(
        functions.iter().filter(|(n, _)| installed.contains(&(*n as u64))).map(|(_, c)| ("cameras", *c, 1)),
    );
    if facets.flag(f::CONNECTED) {
        out.push(("cameras", "connected", 1));
    }
    if facets.flag(fields::RECORD_COMPLETE) {
        out.push(("cameras", "record_complete", 1));
    }
    out
}
