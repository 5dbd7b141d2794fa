//! Rules of divisions as records: the code names the record, and the division directly above is its home.

use guantong_proto::rules::fields::division as f;
use guantong_proto::v1;

use super::{Checker, division_of};
use crate::division::Division;

pub(super) fn check(c: &mut Checker<'_>) {
    let division: v1::Division = c.read(&[f::VALID_FROM, f::VALID_TO]);
    if c.wrote(f::CODE) || c.created() {
        code(c, &division);
    }
    let previous = division.previous_code.as_deref().filter(|_| c.wrote(f::PREVIOUS_CODE));
    let fine = previous.is_none_or(|code| division_of(code).is_some());
    c.refuse_unless(fine, f::PREVIOUS_CODE, ("it is not a 12-digit division code", "不是12位区划代码"));
    let from = c.day(f::VALID_FROM, division.valid_from.as_ref());
    let to = c.day(f::VALID_TO, division.valid_to.as_ref());
    let words = ("the division ends before it begins", "停用日期早于启用日期");
    c.in_order((f::VALID_FROM, from), (f::VALID_TO, to), words);
    let (home, writer) = (c.s.home, c.s.writer);
    if let Some(field) = c.s.written.first().copied().filter(|_| !writer.contains(home)) {
        let english = format!("{writer} is not at or above the record's home {home}; write it there");
        c.refuse(field, (&english, "只能由所属区划或其上级维护"));
    }
}

/// The division's code, which is also the record's id.
fn code(c: &mut Checker<'_>, division: &v1::Division) {
    let id = c.s.id;
    let code = if c.wrote(f::CODE) { division.code.as_deref() } else { Some(id) };
    let Some(code) = c.named_by_code(f::CODE, code) else { return };
    let Some(division) = division_of(code) else {
        return c.refuse(f::CODE, ("it is not a 12-digit division code", "不是12位区划代码"));
    };
    let homes = homes(c, division);
    if !homes.contains(&Some(c.s.home)) {
        let english = match homes[0] {
            Some(home) => {
                format!("its record belongs to {home}, the division directly above, not to {}", c.s.home)
            }
            None => "a province has no division above that its record could belong to".into(),
        };
        c.refuse(f::CODE, (&english, "应归属其上一级区划"));
    }
}

/// Where the division's record may be born: directly above it by the digits, or in the nearest division above that is
/// known and has a government.
fn homes(c: &Checker<'_>, division: Division) -> [Option<Division>; 2] {
    let known = |above: &Division| c.s.divisions.known(*above) && !above.is_pseudo_prefecture();
    [division.above(), division.enclosing().skip(1).find(known)]
}
