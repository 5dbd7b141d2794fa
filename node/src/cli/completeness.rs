//! To when everything from the nodes below is in, and who is late since when, in words: beside every figure that people
//! are shown.

use std::fmt::Write as _;

use guantong_proto::v1::{Completeness, CompletenessState, IncompleteDivision};

use super::report::time;

/// Divisions that are late, shown to people; `--json` has all.
const LATE_SHOWN_MAX: usize = 10;

/// Whether a node below is behind.
pub(crate) fn is_late(complete: &Completeness) -> bool {
    of(complete, CompletenessState::Behind).next().is_some()
}

/// A line, and one for each that is late.
pub(crate) fn text(complete: &Completeness) -> String {
    let through = match time(complete.complete_through_time.as_ref()) {
        none if none.is_empty() => "not known yet 尚未知".to_owned(),
        through => through,
    };
    let mut text = format!("complete to 数据完整至 {through}");
    let not_linked = of(complete, CompletenessState::NotLinked).count();
    if not_linked > 0 {
        let _ = write!(text, ", {not_linked} divisions without a node 未接入");
    }
    if complete.quarantined_count > 0 {
        let _ = write!(text, ", {} values refused on their way 途中隔离", complete.quarantined_count);
    }
    text.push('\n');
    let late: Vec<_> =
        of(complete, CompletenessState::Silent).chain(of(complete, CompletenessState::Behind)).collect();
    for i in late.iter().take(LATE_SHOWN_MAX) {
        let what = match i.state() {
            CompletenessState::Behind => "behind since 滞后，自",
            _ => "linked, nothing claimed yet 已接入，尚未声明；自",
        };
        let since = time(i.incomplete_since_time.as_ref());
        let _ = writeln!(text, "  {} {} {what} {since}", i.division, i.display_name);
    }
    if late.len() > LATE_SHOWN_MAX {
        let _ = writeln!(text, "  and {} more; --json has all 其余见 --json", late.len() - LATE_SHOWN_MAX);
    }
    text
}

fn of(complete: &Completeness, state: CompletenessState) -> impl Iterator<Item = &IncompleteDivision> {
    complete.incomplete.iter().filter(move |i| i.state() == state)
}
