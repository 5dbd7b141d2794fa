//! What a grid adds: grids by type and state, staff by kind, and its village unit for the coverage.

use guantong_proto::rules::fields::{self, grid as f};
use guantong_proto::v1;

use super::facets::{message, part};
use super::{Contribution, Facets, When};
use crate::division::{Division, Tier};
use crate::measure::{Code, Count, Dimension};
use crate::record::FieldNumber;

pub(super) const FIELDS: &[FieldNumber] =
    &[f::GRID_CODE, f::GRID_TYPE, f::STATE, f::STAFFING, fields::DELETED, fields::RECORD_COMPLETE];

/// A grid without a state is active.
pub(super) fn count(facets: &Facets<'_>, out: &mut Contribution) {
    out.record(facets.kind, facets.flag(fields::RECORD_COMPLETE));
    let retired = facets.number(f::STATE) == v1::ActiveState::Retired as u64;
    let state = if retired { v1::ActiveState::Retired } else { v1::ActiveState::Active };
    out.count(When::Undated, Count::GridsRegistered, &[(Dimension::GridState, state as u16)]);
    if retired {
        return;
    }
    let class = Dimension::GridType.class_of(facets.number(f::GRID_TYPE));
    out.count(When::Undated, Count::Grids, &[(Dimension::GridType, class)]);
    if let Some(staffing) = facets.value(f::STAFFING) {
        let staffing = message(&staffing);
        let each = [1, 2, 3].map(|kind| i64::from(part(staffing, kind) as i32).max(0));
        out.add(When::Undated, Code::total(Count::Staff), each.iter().sum());
        for (kind, people) in (1..).zip(each) {
            out.add(When::Undated, Code::part(Count::Staff, Dimension::StaffKind, kind), people);
        }
    }
    out.village = village(facets);
}

/// The village unit that the grid's code begins with. One in another county than the home's is nobody's.
fn village(facets: &Facets<'_>) -> Option<Division> {
    let code = facets.text(f::GRID_CODE);
    let village = Division::parse(std::str::from_utf8(code.get(..12)?).ok()?).ok()?;
    let near = village.tier() == Tier::Village && village.county() == facets.home.county();
    near.then_some(village)
}
