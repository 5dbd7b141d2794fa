//! What a snapshot adds: how many of everything there were on past days. A snapshot's record is one month of one
//! division; each entry is a day, and holds the counts of the records whose home the division is.

use guantong_proto::rules::fields::snapshot as f;
use guantong_proto::v1;
use prost::Message;

use super::facets::inner;
use super::{Contribution, Facets, When};
use crate::measure::{Code, Count};
use crate::period::{Day, Period};
use crate::record::{FieldNumber, raw};

pub(super) const FIELDS: &[FieldNumber] = &[f::DAYS, guantong_proto::rules::fields::DELETED];

/// Counts by code.
pub type Counts = Vec<(Code, i64)>;

pub(super) fn count(facets: &Facets<'_>, out: &mut Contribution) {
    let Some(value) = facets.value(f::DAYS) else { return };
    for entry in raw::payloads(&value).filter_map(raw::Payload::bytes) {
        let Some(day) = inner(entry, 1).and_then(day_of_id) else { continue };
        let Ok(day_counts) = v1::SnapshotDay::decode(entry) else { continue };
        out.add(When::AsOf(day), Code::total(Count::Snapshots), 1);
        for (code, amount) in day_counts.codes.iter().zip(&day_counts.amounts) {
            let code = Code::of_number(*code);
            // Flows are counted from the records themselves, and what is not known here from nothing.
            if code.count().is_some_and(|count| !count.is_flow() && count != Count::Snapshots) {
                out.add(When::AsOf(day), code, i64::try_from(*amount).unwrap_or(0));
            }
        }
    }
}

fn day_of_id(id: &[u8]) -> Option<Day> {
    let period: Period = std::str::from_utf8(id).ok()?.parse().ok()?;
    (period == Period::day(period.first())).then_some(period.first())
}

/// The entry of one day, without its stamp.
pub fn entry(day: Day, counts: &Counts) -> v1::SnapshotDay {
    let kept = || counts.iter().filter(|(_, amount)| *amount > 0);
    v1::SnapshotDay {
        id: day.to_string(),
        codes: kept().map(|(code, _)| code.number()).collect(),
        amounts: kept().map(|(_, amount)| *amount as u64).collect(),
        stamp: 0,
    }
}
