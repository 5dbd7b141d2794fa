//! What one record adds to the counts, and that sums of differences equal a recount, whatever the order.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::v1;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::period::Period;
use crate::record::{Register, raw};
use crate::schema::Schema;
use crate::stamp::{Stamp, Writer};

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn home() -> Division {
    division("220822101")
}

fn record(message: &impl Message, kind: &str) -> Record {
    let schema = Schema::current();
    let writer = Writer { division: home(), id: 1 };
    let mut record = Record::default();
    for (field, value) in raw::split(&Bytes::from(message.encode_to_vec())).unwrap() {
        assert!(schema.kind_named(kind).unwrap().field(field).is_some());
        record.set(field, Register::single(writer, Stamp::from_ms(1), value));
    }
    record
}

fn contribution(message: &impl Message, kind: &str) -> Contribution {
    contribution_of(Schema::current().kind_named(kind).unwrap(), home(), &record(message, kind))
}

fn day(number: u32) -> Day {
    Day::of_number(number).unwrap()
}

fn date(day: Day) -> v1::Date {
    let month = day.month();
    v1::Date { year: month.year(), month: month.of_year() as i32, day: day.of_month() as i32 }
}

fn at(day: Day) -> Option<prost_types::Timestamp> {
    let days = i64::from(day.since(Day::of_seconds(0).unwrap()));
    Some(prost_types::Timestamp { seconds: days * 86_400 + 3_600, nanos: 0 })
}

/// What a contribution adds to a count's total, by when.
fn totals(contribution: &Contribution, count: Count) -> Vec<(When, i64)> {
    let of = contribution.addends.iter().filter(|a| a.code == Code::total(count));
    of.map(|a| (a.when, a.amount)).collect()
}

#[test]
fn a_case_is_counted_on_its_days() {
    let step = |id: &str, on: u32, action: v1::Move| v1::CaseStep {
        id: id.into(),
        at: at(day(on)),
        r#move: action.into(),
        ..v1::CaseStep::default()
    };
    let case = v1::Case {
        case_kind: Some(v1::CaseKind::Dispute.into()),
        category: Some("land".into()),
        received_on: Some(date(day(2026_0105))),
        due_on: Some(date(day(2026_0131))),
        lifecycle: Some(v1::Lifecycle {
            state: v1::CaseState::Verified.into(),
            unit: "court".into(),
            since: at(day(2026_0203)),
            ..v1::Lifecycle::default()
        }),
        outcome: Some(v1::Outcome {
            succeeded: Some(true),
            concluded_on: Some(date(day(2026_0201))),
            ..v1::Outcome::default()
        }),
        steps: vec![
            step("a", 2026_0106, v1::Move::Accept),
            step("b", 2026_0110, v1::Move::Escalate),
            step("c", 2026_0112, v1::Move::Accept),
        ],
        ..v1::Case::default()
    };
    let found = contribution(&case, "case");
    let on = |number| vec![(When::On(day(number)), 1)];
    assert_eq!(totals(&found, Count::Received), on(2026_0105));
    assert_eq!(totals(&found, Count::Accepted), on(2026_0106));
    assert_eq!(totals(&found, Count::Escalated), on(2026_0110));
    assert_eq!(totals(&found, Count::Concluded), on(2026_0201));
    assert_eq!(totals(&found, Count::Succeeded), on(2026_0201));
    assert_eq!(totals(&found, Count::Ended), on(2026_0203));
    assert_eq!(totals(&found, Count::Due), on(2026_0131));
    assert_eq!(totals(&found, Count::DueConcluded), []);
    assert_eq!(totals(&found, Count::TurnedOverdue), on(2026_0201));
    assert_eq!(totals(&found, Count::OverdueEnded), on(2026_0203));
    let land = Code::part(Count::Received, Dimension::Category, Dimension::Category.class_of_code(b"land"));
    assert_eq!(found.addends.iter().filter(|a| a.code == land).count(), 1);
    let deleted = v1::Case { deleted: Some(true), ..case };
    assert_eq!(contribution(&deleted, "case"), Contribution::default());
}

#[test]
fn grids_cameras_and_snapshots_are_counted() {
    let grid = v1::Grid {
        grid_code: Some("220822101201001".into()),
        staffing: Some(v1::Staffing { chiefs: Some(1), full_time_members: Some(2), part_time_members: None }),
        ..v1::Grid::default()
    };
    let found = contribution(&grid, "grid");
    assert_eq!(totals(&found, Count::Staff), [(When::Undated, 3)]);
    assert_eq!(found.village, Some(division("220822101201")));
    let retired = v1::Grid { state: Some(v1::ActiveState::Retired.into()), ..grid };
    let found = contribution(&retired, "grid");
    assert_eq!((totals(&found, Count::Grids), found.village), (vec![], None));
    assert_eq!(totals(&found, Count::GridsRegistered), [(When::Undated, 1)]);

    let camera = v1::Camera {
        functions: vec![v1::CameraFunction::Face.into(), v1::CameraFunction::Face.into()],
        status: Some(v1::CameraStatus {
            state: v1::CameraState::Defect.into(),
            observe_time: at(day(2026_0101)),
        }),
        ..v1::Camera::default()
    };
    let found = contribution(&camera, "camera");
    assert_eq!(totals(&found, Count::CamerasFaulty), [(When::Undated, 1)]);
    assert_eq!(totals(&found, Count::CamerasOnline), []);
    let face = Code::part(Count::Cameras, Dimension::Function, 1);
    assert_eq!(found.addends.iter().filter(|a| a.code == face).count(), 1);

    let counts = vec![(Code::total(Count::Cameras), 7), (Code::total(Count::Received), 9)];
    let days = vec![
        snapshot::entry(day(2026_0131), &counts),
        v1::SnapshotDay { id: "x".into(), ..Default::default() },
    ];
    let found = contribution(&v1::Snapshot { days, ..v1::Snapshot::default() }, "snapshot");
    assert_eq!(totals(&found, Count::Cameras), [(When::AsOf(day(2026_0131)), 7)]);
    assert_eq!(totals(&found, Count::Snapshots), [(When::AsOf(day(2026_0131)), 1)]);
    assert_eq!(totals(&found, Count::Received), [], "flows come from the cases themselves");
}

#[test]
fn a_month_that_is_over_is_restated() {
    let case = v1::Case { received_on: Some(date(day(2026_0131))), ..v1::Case::default() };
    let changes = |today| {
        let mut sheet = Sheet::default();
        sheet.add(&contribution(&case, "case"), home(), 1);
        sheet.into_changes(division("220822"), today)
    };
    let restated = |today| changes(today).iter().filter(|c| c.restates).map(|c| c.cell).collect::<Vec<_>>();
    assert_eq!(restated(day(2026_0131)), []);
    let month = |code| Cell { division: division(code), period: 202_601 };
    assert_eq!(restated(day(2026_0201)), [month("220822"), month("220822101")]);
    let divisions: Vec<Division> = changes(Day::FIRST).iter().map(|c| c.cell.division).collect();
    assert!(divisions.iter().all(|d| division("220822").contains(*d)), "nothing above the node's own");
}

#[test]
fn many_records_are_joined_underway() {
    let case = v1::Case { received_on: Some(date(day(2026_0131))), ..v1::Case::default() };
    let found = contribution(&case, "case");
    let mut sheet = Sheet::default();
    let times = 1 + (1 << 17) / found.addends.len() as i64;
    (0..times).for_each(|_| sheet.add(&found, home(), 1));
    let received = u64::from(Code::total(Count::Received).number());
    let mut sums = Sums::new();
    apply(&mut sums, sheet);
    let month = Cell { division: home(), period: 202_601 };
    assert_eq!(sums.get(&(month, received)), Some(&times));
    let mut none = Sheet::default();
    (0..times).for_each(|_| none.add(&found, home(), 1));
    (0..times).for_each(|_| none.add(&found, home(), -1));
    assert_eq!(none.into_changes(division("22"), Day::FIRST), []);
}

/// A case with everything that is counted, drawn at random.
fn any_case() -> impl Strategy<Value = v1::Case> {
    let first = day(2025_1220);
    let any_date = move || proptest::option::of((0..60).prop_map(move |n| date(first.plus(n))));
    let steps = proptest::collection::vec((0..60, 1..13), 0..5).prop_map(move |steps| {
        let step = |(i, (days, action)): (usize, (i32, i32))| v1::CaseStep {
            id: i.to_string(),
            at: at(first.plus(days)),
            r#move: action,
            ..v1::CaseStep::default()
        };
        steps.into_iter().enumerate().map(step).collect::<Vec<_>>()
    });
    let lifecycle = (0..9, proptest::option::of(0..60), 0..3usize).prop_map(move |(state, since, unit)| {
        let unit = ["court", "police", "new code"][unit].into();
        v1::Lifecycle { state, unit, since: since.and_then(|n| at(first.plus(n))), ..Default::default() }
    });
    let outcome = (any_date(), any::<bool>()).prop_map(|(on, succeeded)| v1::Outcome {
        concluded_on: on,
        succeeded: Some(succeeded),
        ..Default::default()
    });
    (any_date(), any_date(), steps, lifecycle, proptest::option::of(outcome), 0..3, 0..5, 0..8u8).prop_map(
        |(received_on, due_on, steps, lifecycle, outcome, case_kind, risk, deleted)| v1::Case {
            received_on,
            due_on,
            steps,
            lifecycle: Some(lifecycle),
            outcome,
            case_kind: Some(case_kind),
            risk: Some(risk),
            deleted: Some(deleted == 0),
            ..v1::Case::default()
        },
    )
}

type Sums = BTreeMap<(Cell, u64), i64>;

fn apply(sums: &mut Sums, sheet: Sheet) {
    for change in sheet.into_changes(division("22"), Day::FIRST) {
        for (key, amount) in change.adds {
            *sums.entry((change.cell, key)).or_default() += amount;
        }
    }
    sums.retain(|_, sum| *sum != 0);
}

fn recount(cases: &[v1::Case]) -> Sums {
    let (mut sums, mut sheet) = (Sums::new(), Sheet::default());
    cases.iter().for_each(|case| sheet.add(&contribution(case, "case"), home(), 1));
    apply(&mut sums, sheet);
    sums
}

/// What a count's total came to up to a day.
fn up_to(sums: &Sums, count: Count, last: Day) -> i64 {
    let key = |d: Day| {
        (
            (Cell { division: home(), period: Cell::days(d.month()) }),
            day_key(Code::total(count), d.of_month()),
        )
    };
    let all =
        sums.get(&(Cell { division: home(), period: Cell::ALL }, u64::from(Code::total(count).number())));
    let later = (1..200).map(|n| sums.get(&key(last.plus(n))).copied().unwrap_or(0)).sum::<i64>();
    all.copied().unwrap_or(0) - later
}

proptest! {
    #[test]
    fn counts_kept_with_each_write_are_those_of_a_recount(
        histories in proptest::collection::vec(proptest::collection::vec(any_case(), 1..4), 1..5),
    ) {
        let mut kept = Sums::new();
        let kind = Schema::current();
        let kind = kind.kind_named("case").unwrap();
        for history in &histories {
            let mut before = Record::default();
            for case in history {
                let after = record(case, "case");
                let mut sheet = Sheet::default();
                if may_differ(kind, &before, &after) {
                    sheet.add(&contribution_of(kind, home(), &before), home(), -1);
                    sheet.add(&contribution_of(kind, home(), &after), home(), 1);
                } else {
                    prop_assert_eq!(contribution_of(kind, home(), &before), contribution_of(kind, home(), &after));
                }
                apply(&mut kept, sheet);
                before = after;
            }
        }
        let last: Vec<v1::Case> = histories.iter().map(|h| h[h.len() - 1].clone()).collect();
        prop_assert_eq!(&kept, &recount(&last));
        // A month is its days, and a county its townships.
        for ((cell, key), sum) in &kept {
            if let Some(month) = crate::period::Month::of_number(cell.period) {
                let days = Cell { period: Cell::days(month), ..*cell };
                let of_days: i64 = (1..=31).filter_map(|d| kept.get(&(days, key << 5 | d))).sum();
                prop_assert_eq!(*sum, of_days);
            }
            let county = Cell { division: cell.division.county(), ..*cell };
            prop_assert_eq!(kept.get(&(county, *key)), Some(sum));
        }
    }

    /// Against what the definitions say, read from the cases themselves.
    #[test]
    fn open_and_overdue_are_what_the_cases_say(
        cases in proptest::collection::vec(any_case(), 0..12), offset in 0..90,
    ) {
        let on = day(2025_1215).plus(offset);
        let sums = recount(&cases);
        let (mut open, mut overdue) = (0, 0);
        for case in cases.iter().filter(|c| c.deleted != Some(true)) {
            let as_day = |d: &Option<v1::Date>| d.as_ref().and_then(Day::of_date);
            let stamp = |t: &Option<prost_types::Timestamp>| t.as_ref().and_then(|t| Day::of_seconds(t.seconds));
            let lifecycle = case.lifecycle.clone().unwrap();
            let ended = matches!(
                lifecycle.state(), v1::CaseState::Filed | v1::CaseState::Cancelled | v1::CaseState::Verified
            );
            let received = as_day(&case.received_on);
            let last_step = case.steps.iter().filter_map(|s| stamp(&s.at)).max();
            let concluded_on = case.outcome.as_ref().and_then(|o| as_day(&o.concluded_on));
            let ended_on = stamp(&lifecycle.since).or(concluded_on).or(last_step).max(received);
            // What has no day was before all days.
            let was = |d: Option<Day>| d.is_none_or(|d| d <= on);
            let over = ended && was(ended_on);
            open += i64::from(was(received) && !over);
            overdue += i64::from(as_day(&case.due_on).is_some_and(|due| due < on) && !over);
        }
        prop_assert_eq!(up_to(&sums, Count::Received, on) - up_to(&sums, Count::Ended, on), open);
        prop_assert_eq!(up_to(&sums, Count::TurnedOverdue, on) - up_to(&sums, Count::OverdueEnded, on), overdue);
    }

    #[test]
    fn packed_numbers_add_like_numbers(
        a in proptest::collection::btree_map(0u64..500, -5i64..5, 0..40),
        b in proptest::collection::btree_map(0u64..500, -5i64..5, 0..40),
    ) {
        let mut sum = a.clone();
        b.iter().for_each(|(key, n)| *sum.entry(*key).or_default() += n);
        sum.retain(|_, n| *n != 0);
        let adds: Vec<(u64, i64)> = b.into_iter().collect();
        let packed = merge_packed(&pack(a), &adds).unwrap();
        let read: Result<BTreeMap<u64, i64>, Malformed> = Entries::of(&packed).collect();
        prop_assert_eq!(read, Ok(sum));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let read: Vec<_> = Entries::of(&bytes).collect();
        prop_assert!(read.len() <= bytes.len());
    }

    #[test]
    fn a_snapshot_says_what_was_counted(days in proptest::collection::btree_map(1u32..28, 0i64..99, 0..5)) {
        let entries = days.iter().map(|(d, n)| {
            snapshot::entry(day(2026_0200 + d), &vec![(Code::total(Count::Grids), *n)])
        });
        let found = contribution(&v1::Snapshot { days: entries.collect(), ..Default::default() }, "snapshot");
        let grids: BTreeMap<u32, i64> = totals(&found, Count::Grids).into_iter().filter_map(|(when, n)| match when {
            When::AsOf(day) => Some((day.of_month(), n)),
            _ => None,
        }).collect();
        prop_assert_eq!(grids, days.into_iter().filter(|(_, n)| *n > 0).collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn an_entry_is_named_by_its_day() {
    let named: Period = snapshot::entry(day(2026_1021), &vec![]).id.parse().unwrap();
    assert_eq!(named, Period::day(day(2026_1021)));
}
