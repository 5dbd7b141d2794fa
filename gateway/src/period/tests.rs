//! Every text form, what lies before a period, and that days and months are those of the calendar.

use super::*;
use crate::calendar;
use proptest::prelude::*;

fn day(text: &str) -> Day {
    text.parse::<Period>().unwrap().first()
}

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

fn any_day() -> impl Strategy<Value = Day> {
    (Day::FIRST.0..=Day::LAST.0).prop_map(Day)
}

fn any_month() -> impl Strategy<Value = Month> {
    (1901..=2199, 1u32..=12).prop_map(|(year, month)| Month::of(year, month).unwrap())
}

fn any_period() -> impl Strategy<Value = Period> {
    prop_oneof![
        any_day().prop_map(Period::day),
        any_month().prop_map(Period::month),
        any_month().prop_map(Period::quarter),
        any_month().prop_map(Period::half),
        any_month().prop_map(Period::year),
        any_month().prop_map(Period::year_to_month),
        any_day().prop_map(Period::year_to_day),
        any_day().prop_map(Period::since),
        (any_day(), 0..2_000).prop_map(|(first, days)| Period::range(first, first.plus(days)).unwrap()),
    ]
}

#[test]
fn every_form_is_read() {
    for (text, first, last, label) in [
        ("2026-10-21", "2026-10-21", "2026-10-21", "2026年10月21日"),
        ("2026-10", "2026-10-01", "2026-10-31", "2026年10月"),
        ("2026-Q4", "2026-10-01", "2026-12-31", "2026年第四季度"),
        ("2026-H1", "2026-01-01", "2026-06-30", "2026年上半年"),
        ("2024", "2024-01-01", "2024-12-31", "2024年"),
        ("2026-10~ytd", "2026-01-01", "2026-10-31", "2026年1—10月"),
        ("2026-10-21~ytd", "2026-01-01", "2026-10-21", "2026年1月1日至2026年10月21日"),
        ("2026-01-05..2026-03-31", "2026-01-05", "2026-03-31", "2026年1月5日至2026年3月31日"),
    ] {
        let found = period(text);
        assert_eq!((found.first(), found.last()), (day(first), day(last)), "{text}");
        assert_eq!((found.to_string(), found.label()), (text.to_owned(), label.to_owned()));
    }
    assert_eq!(period("2026-01-01..").label(), "2026年1月1日以来");
}

#[test]
fn what_is_no_period_says_so() {
    for wrong in [
        "",
        "26",
        "2026-13",
        "2026-02-29",
        "2026-Q5",
        "2026-H0",
        "2026-1",
        "1899",
        "2200",
        "2026-10~",
        "2026-10-21..x",
        "..2026-01-01",
        "2026~ytd",
        "２０２６",
        "2026-10 ",
    ] {
        assert!(matches!(wrong.parse::<Period>(), Err(PeriodError::Form(_))), "{wrong}");
    }
    let reversed = "2026-03-31..2026-01-01".parse::<Period>().unwrap_err();
    assert!(matches!(reversed, PeriodError::Reversed { .. }), "{reversed}");
}

#[test]
fn before_it_and_a_year_before_it() {
    for (text, previous, year_before) in [
        ("2026-03-01", Some("2026-02-28"), Some("2025-03-01")),
        ("2024-02-29", Some("2024-02-28"), Some("2023-02-28")),
        ("2026-01", Some("2025-12"), Some("2025-01")),
        ("2026-Q1", Some("2025-Q4"), Some("2025-Q1")),
        ("2026-H2", Some("2026-H1"), Some("2025-H2")),
        ("2026", Some("2025"), Some("2025")),
        ("2026-10~ytd", None, Some("2025-10~ytd")),
        ("2024-02-29~ytd", None, Some("2023-02-28~ytd")),
        ("2026-03-01..2026-03-10", Some("2026-02-19..2026-02-28"), Some("2025-03-01..2025-03-10")),
        ("2026-01-01..", None, None),
        ("1900", None, None),
    ] {
        let found = period(text);
        assert_eq!(found.previous().map(|p| p.to_string()).as_deref(), previous, "{text}");
        assert_eq!(found.year_before().map(|p| p.to_string()).as_deref(), year_before, "{text}");
    }
}

#[test]
fn a_period_is_closed_when_the_next_day_begins_in_beijing() {
    // 2024-02-28T16:00:00Z is midnight in Beijing.
    let midnight = 1_709_136_000_000;
    assert!(!period("2024-02-28").is_closed(midnight - 1));
    assert!(period("2024-02-28").is_closed(midnight));
    assert!(!period("2024-02").is_closed(midnight));
    assert_eq!(Day::of_ms(midnight), day("2024-02-29"));
}

#[test]
fn parts_of_a_year_to_date() {
    let texts = |text: &str, step| {
        let parts = period(text).split(step, day("2026-11-21"));
        parts.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts("2026-05~ytd", Step::Quarter), ["2026-Q1", "2026-04-01..2026-05-31"]);
    assert_eq!(texts("2025", Step::Half), ["2025-H1", "2025-H2"]);
    assert_eq!(texts("2026-10-30..", Step::Month), ["2026-10-30..2026-10-31", "2026-11-01..2026-11-21"]);
}

proptest! {
    #[test]
    fn days_are_those_of_the_calendar(day in any_day()) {
        let month = day.month();
        let date = v1::Date { year: month.year(), month: month.of_year() as i32, day: day.of_month() as i32 };
        prop_assert!(calendar::is_date(&date));
        prop_assert_eq!(Day::of_date(&date), Some(day));
        prop_assert_eq!(i64::from(day.number()), calendar::sort_key(&date));
        prop_assert_eq!(Day::of_number(day.number()), Some(day));
        prop_assert_eq!(Month::of_number(month.number()), Some(month));
        let ms = i64::from(day.0) * 86_400_000;
        if ms >= 0 {
            prop_assert_eq!(calendar::beijing_date(ms as u64), date);
            prop_assert_eq!(Day::of_ms(ms as u64), day);
        }
    }

    #[test]
    fn what_is_written_is_read_again(period in any_period()) {
        prop_assert_eq!(period.to_string().parse::<Period>(), Ok(period));
    }

    #[test]
    fn the_previous_period_ends_where_this_one_begins(period in any_period()) {
        if let Some(previous) = period.previous() {
            prop_assert_eq!(previous.last().plus(1), period.first());
        }
        if let Some(before) = period.year_before() {
            let days = |p: &Period| p.last().since(p.first());
            prop_assert!((days(&before) - days(&period)).abs() <= 1 || period.shape == Shape::Range);
            prop_assert!((364..=366).contains(&period.first().since(before.first())), "{before:?}");
        }
    }

    #[test]
    fn a_cover_has_each_day_once(first in any_day(), days in -3..3_000) {
        let last = first.plus(days);
        let cover = Cover::of(first, last);
        let mut covered: Vec<Day> = cover.months.iter().flat_map(|m| [m.first(), m.last()]).collect();
        let mut count: i32 = cover.months.iter().map(|m| m.days() as i32).sum();
        for part in &cover.parts {
            count += part.last as i32 - part.first as i32 + 1;
            covered.push(part.month.first().plus(part.first as i32 - 1));
            covered.push(part.month.first().plus(part.last as i32 - 1));
        }
        prop_assert!(cover.parts.len() <= 2);
        prop_assert_eq!(count, (last.since(first) + 1).max(0));
        if count > 0 {
            prop_assert_eq!((covered.iter().min(), covered.iter().max()), (Some(&first), Some(&last)));
        }
    }

    #[test]
    fn parts_follow_each_other_without_gaps(
        first in any_day(), days in 0..1_500,
        step in prop_oneof![Just(Step::Day), Just(Step::Month), Just(Step::Quarter), Just(Step::Half), Just(Step::Year)],
    ) {
        let period = Period::range(first, first.plus(days)).unwrap();
        let parts = period.split(step, Day::LAST);
        prop_assert_eq!((parts[0].first(), parts[parts.len() - 1].last()), (period.first(), period.last()));
        prop_assert!(parts.windows(2).all(|w| w[0].last().plus(1) == w[1].first()));
        prop_assert!(parts.len() <= period.part_count(step, Day::LAST));
    }
}
