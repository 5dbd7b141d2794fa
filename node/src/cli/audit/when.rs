//! Moments on the command line: a date, which begins in Beijing, or a time with its offset.

use prost_types::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::macros::{format_description, offset};
use time::{Date, OffsetDateTime};

/// A moment that a person wrote.
///
/// # Errors
/// Neither a date nor a time.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    let date = Date::parse(text, format_description!("[year]-[month]-[day]"));
    let moment = match date {
        Ok(date) => date.midnight().assume_offset(offset!(+8)),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "write 2026-11-22, or 2026-11-22T08:00:00+08:00 (日期或时间格式有误)".to_owned())?,
    };
    let nanos = i32::try_from(moment.nanosecond()).unwrap_or_default();
    Ok(Timestamp { seconds: moment.unix_timestamp(), nanos })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_in_beijing() {
        assert_eq!(parse("2026-11-22").unwrap(), parse("2026-11-21T16:00:00Z").unwrap());
        for wrong in ["", "yesterday", "2026-13-01", "2026-11-22T08:00:00"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
