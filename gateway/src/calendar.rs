//! Moments, and business dates: calendar days in Beijing time. Time always comes in as an argument; nothing here reads a clock.

use guantong_proto::v1;

const DAY_MS: u64 = 86_400_000;
/// Beijing is eight hours ahead of UTC, all year.
const BEIJING_MS: u64 = 8 * 3_600_000;
/// Years that a business date may have. What lies outside is a slip of the pen.
pub(crate) const YEARS: std::ops::RangeInclusive<i32> = 1900..=2199;

/// Unix milliseconds as the contract says moments.
pub fn timestamp(unix_ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: (unix_ms / 1_000) as i64, nanos: (unix_ms % 1_000) as i32 * 1_000_000 }
}

/// The day that it is in Beijing at a moment, Unix milliseconds.
pub fn beijing_date(unix_ms: u64) -> v1::Date {
    let (year, month, day) = civil((unix_ms.saturating_add(BEIJING_MS) / DAY_MS) as i64);
    v1::Date { year, month: month as i32, day: day as i32 }
}

/// Year, month (1 to 12) and day (1 to 31) of a number of days since 1970-01-01, for years of 32 bits.
pub(crate) fn civil(days: i64) -> (i32, u32, u32) {
    // Days are counted in eras of 400 years that begin on a 1 March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    (year as i32, month as u32, day as u32)
}

/// Whether the calendar has such a day, from 1900 to 2199.
pub fn is_date(date: &v1::Date) -> bool {
    let leap = date.year % 4 == 0 && (date.year % 100 != 0 || date.year % 400 == 0);
    let days = match date.month {
        2 => 28 + i32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    YEARS.contains(&date.year) && (1..=days).contains(&date.day)
}

/// The date as a number that sorts by time: 20260131.
pub fn sort_key(date: &v1::Date) -> i64 {
    i64::from(date.year) * 10_000 + i64::from(date.month) * 100 + i64::from(date.day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i32, month: i32, day: i32) -> v1::Date {
        v1::Date { year, month, day }
    }

    #[test]
    fn the_day_changes_at_midnight_in_beijing() {
        // 2024-02-28T16:00:00Z is midnight in Beijing.
        let midnight = 1_709_136_000_000;
        assert_eq!(beijing_date(midnight - 1), date(2024, 2, 28));
        assert_eq!(beijing_date(midnight), date(2024, 2, 29));
        assert_eq!(beijing_date(midnight + DAY_MS), date(2024, 3, 1));
        assert_eq!(beijing_date(0), date(1970, 1, 1));
    }

    #[test]
    fn every_day_of_a_century_is_a_date_and_follows_the_one_before() {
        let mut last = 0;
        for day in 0..47_000 {
            let date = beijing_date(day * DAY_MS);
            assert!(is_date(&date) && sort_key(&date) > last, "{date:?}");
            last = sort_key(&date);
        }
    }

    #[test]
    fn days_lie_on_both_sides_of_1970() {
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(-25_567), (1900, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(84_005), (2199, 12, 31));
    }

    #[test]
    fn days_that_no_calendar_has() {
        for wrong in
            [date(2023, 2, 29), date(1900, 2, 29), date(2024, 13, 1), date(2024, 4, 31), date(24, 1, 1)]
        {
            assert!(!is_date(&wrong), "{wrong:?}");
        }
        assert!(!is_date(&date(2024, 1, 0)) && !is_date(&v1::Date::default()));
        assert!(is_date(&date(2000, 2, 29)));
    }
}
