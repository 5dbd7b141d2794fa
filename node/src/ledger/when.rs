//! Dates and times as ledgers write them, Beijing time. It must never guess: two-digit years, month before year and a
//! spreadsheet's day numbers are refused.

use time::macros::offset;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::text::half_width;

/// Beijing time.
const BEIJING: UtcOffset = offset!(+8);
/// Years that a ledger can mean.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=2199;

/// A day: `2026-11-21`, `2026/11/21`, `2026.11.21`, `20261121`, `2026年11月21日`, each with or without a time after it.
pub(super) fn date(text: &str) -> Option<Date> {
    let text = half_width(text);
    let (day, rest) = split_date(text.trim())?;
    if rest.is_empty() || time_of_day(rest).is_some() { Some(day) } else { None }
}

/// A moment: a day as [`date`] reads it and a time; no time means midnight. Beijing time unless it names its offset.
pub(super) fn moment(text: &str) -> Option<OffsetDateTime> {
    let text = half_width(text);
    let (day, rest) = split_date(text.trim())?;
    if rest.is_empty() {
        return Some(PrimitiveDateTime::new(day, Time::MIDNIGHT).assume_offset(BEIJING));
    }
    let (time, offset) = time_of_day(rest)?;
    Some(PrimitiveDateTime::new(day, time).assume_offset(offset))
}

/// A moment for people, Beijing time, read back by [`moment`].
pub(super) fn moment_text(seconds: i64, nanos: i32) -> String {
    let Ok(utc) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds.to_string() };
    let at = utc.to_offset(BEIJING);
    let (year, month, day) = (at.year(), at.month() as u8, at.day());
    let mut text =
        format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    if nanos > 0 {
        text += format!(".{nanos:09}").trim_end_matches('0');
    }
    text
}

fn split_date(text: &str) -> Option<(Date, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = |part: &str| part.parse::<i32>().ok();
    let (year, month, day, rest) = if digits == 8 {
        (number(&text[..4])?, number(&text[4..6])?, number(&text[6..8])?, &text[8..])
    } else {
        let (year, rest) = (text.get(..4)?, text.get(4..)?);
        let (mark, rest) = split_mark(rest)?;
        let (month, rest) = split_number(rest)?;
        let (next, rest) = split_mark(rest)?;
        let (day, rest) = split_number(rest)?;
        let rest = match (mark, next) {
            ('年', '月') => rest.strip_prefix('日').or(rest.strip_prefix('号')).unwrap_or(rest),
            ('-', '-') | ('/', '/') | ('.', '.') => rest,
            _ => return None,
        };
        (number(year)?, number(month)?, number(day)?, rest)
    };
    if digits != 8 && digits != 4 || !YEARS.contains(&year) {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    Some((date, rest.trim_start_matches([' ', 'T', 't'])))
}

fn split_mark(text: &str) -> Option<(char, &str)> {
    let mark = text.chars().next()?;
    Some((mark, text.get(mark.len_utf8()..)?.trim_start()))
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 2 {
        return None;
    }
    Some((&text[..digits], text[digits..].trim_start()))
}

/// `14:03`, `14:03:22`, `14:03:22.5`, `14时03分22秒`, with `Z` or `+08:00` after it where it names its offset.
fn time_of_day(text: &str) -> Option<(Time, UtcOffset)> {
    let text = text.trim().replace(['时', '分'], ":").replace('秒', "");
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => (&text[..at], offset_of(&text[at..])?),
        None => (text.as_str(), BEIJING),
    };
    let mut parts = clock.trim().trim_end_matches(':').split(':');
    let hour = parts.next()?.trim().parse().ok()?;
    let minute = parts.next()?.trim().parse().ok()?;
    let (second, fraction) = match parts.next() {
        Some(second) => second.trim().split_once('.').unwrap_or((second.trim(), "")),
        None => ("0", ""),
    };
    if parts.next().is_some() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some((Time::from_hms_nano(hour, minute, second.parse().ok()?, nanos).ok()?, offset))
}

fn offset_of(text: &str) -> Option<UtcOffset> {
    if text.eq_ignore_ascii_case("z") {
        return Some(UtcOffset::UTC);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':').unwrap_or((text.get(1..)?, "0"));
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes): (i8, i8) = (hours.parse().ok()?, minutes.parse().ok()?);
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use time::macros::{date as day, datetime};

    #[test]
    fn days_in_many_forms() {
        for text in [
            "2026-11-21",
            "2026/11/21",
            "2026.11.21",
            "20261121",
            "2026年11月21日",
            "２０２６－１１－２１",
            "2026/11/21 0:00",
            "2026-11-21T14:03:22Z",
            "2026-11-21 14:03:22.000",
        ] {
            assert_eq!(date(text), Some(day!(2026 - 11 - 21)), "{text}");
        }
        assert_eq!(date("2026/1/2"), Some(day!(2026 - 01 - 02)));
    }

    #[test]
    fn what_would_be_a_guess_is_refused() {
        for text in [
            "11/21/2026",
            "26-11-21",
            "2026-11",
            "2026年",
            "46347",
            "2026-13-01",
            "2026-02-29",
            "0026-01-01",
            "2026-11/21",
            "2026-11-21 x",
            "",
            "年月日",
            "20261121999",
            "2026-1é-1",
        ] {
            assert_eq!(date(text), None, "{text}");
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn moments_are_beijing_time_unless_they_say_otherwise() {
        let noon = datetime!(2026-11-21 12:00 +8);
        for text in [
            "2026-11-21 12:00",
            "2026/11/21 12:00:00",
            "2026年11月21日 12时00分",
            "2026-11-21T04:00:00Z",
            "20261121 06:00:00+02:00",
        ] {
            assert_eq!(moment(text), Some(noon), "{text}");
        }
        assert_eq!(moment("2026-11-21"), Some(datetime!(2026-11-21 0:00 +8)));
        let text = moment_text(noon.unix_timestamp(), 120_000_000);
        assert_eq!(text, "2026-11-21 12:00:00.12");
        assert_eq!(moment(&text).unwrap().nanosecond(), 120_000_000);
    }
}
