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
    text.push_str(&missed(complete));
    text
}

/// A line for each day of which somebody took no snapshot.
fn missed(complete: &Completeness) -> String {
    let mut text = String::new();
    if complete.missed_snapshot_count > 0 {
        let count = complete.missed_snapshot_count;
        let _ = writeln!(
            text,
            "{count} snapshots missing: stocks of these days lack what these divisions held 缺少快照"
        );
    }
    for day in complete.missed_snapshots.chunk_by(|a, b| a.day == b.day) {
        let shown = day.iter().take(LATE_SHOWN_MAX).map(|m| format!("{} {}", m.division, m.display_name));
        let shown: Vec<String> = shown.collect();
        let more = match day.len().saturating_sub(LATE_SHOWN_MAX) {
            0 => String::new(),
            more => format!(" and {more} more; --json has more 其余见 --json"),
        };
        let _ = writeln!(text, "  {}: {}{more}", day[0].day, shown.join(", "));
    }
    text
}

fn of(complete: &Completeness, state: CompletenessState) -> impl Iterator<Item = &IncompleteDivision> {
    complete.incomplete.iter().filter(move |i| i.state() == state)
}

#[cfg(test)]
mod tests {
    use guantong_proto::v1::MissedSnapshot;

    use super::*;

    #[test]
    fn who_took_no_snapshot_is_named_by_day() {
        let missed = |day: &str, division: &str| MissedSnapshot {
            division: division.to_owned(),
            display_name: "瞻榆镇".to_owned(),
            day: day.to_owned(),
        };
        let mut complete = Completeness::default();
        assert!(!text(&complete).contains("缺少快照"));
        complete.missed_snapshots = (0..12).map(|_| missed("2026-09-30", "220822101000")).collect();
        complete.missed_snapshots.push(missed("2026-10-31", "220822102000"));
        complete.missed_snapshot_count = 13;
        let text = text(&complete);
        for part in [
            "13 snapshots missing",
            "2026-09-30: 220822101000 瞻榆镇, ",
            "and 2 more",
            "2026-10-31: 220822102",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
