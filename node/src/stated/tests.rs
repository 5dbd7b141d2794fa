//! What a stated number allows: cases from county reports, and laws.

use proptest::prelude::*;

use super::*;

fn count(text: &str) -> Stated {
    Stated::count(text, Op::Eq).unwrap()
}

fn rate(text: &str) -> Stated {
    Stated::rate(text, Op::Eq, false).unwrap()
}

fn judged(stated: &str, part: Option<&str>, whole: Option<&str>) -> Result<(), Impossible> {
    let (part, whole) = (part.map(count), whole.map(count));
    rate_can_be(&rate(stated), part.as_ref(), whole.as_ref())
}

#[test]
fn published_rates_are_judged_under_their_own_rounding() {
    assert_eq!(judged("97.12%", Some("7,762"), Some("7,792")), Err(Impossible::OutsideCounts));
    assert_eq!(judged("99.61%", Some("7,762"), Some("7,792")), Ok(()));
    assert_eq!(judged("99.6%", Some("7762件"), Some("7792件")), Ok(()));
    // Of 2185: 2154 or 2155 succeeded.
    assert_eq!(judged("98.6%", None, Some("2185")), Ok(()));
    for (part, fine) in [("2153", false), ("2154", true), ("2155", true), ("2156", false)] {
        assert_eq!(judged("98.6%", Some(part), Some("2185")).is_ok(), fine, "{part}");
    }
    assert_eq!(judged("0.986", Some("2154"), Some("2185")), Ok(()));
    assert_eq!(judged("98.6％", Some("２１５４"), Some("2185")), Ok(()), "full width");
}

#[test]
fn a_rate_needs_counts_that_could_give_it() {
    assert_eq!(judged("90%", None, Some("7")), Err(Impossible::NoSuchCount));
    assert_eq!(judged("86%", None, Some("7")), Ok(()));
    assert_eq!(judged("86%", Some("6"), None), Ok(()), "of 7");
    assert_eq!(judged("97.12%", Some("1"), None), Err(Impossible::NoSuchCount));
    assert_eq!(judged("50%", Some("0"), None), Err(Impossible::NoSuchCount));
    assert_eq!(judged("0%", Some("0"), Some("12")), Ok(()));
    assert_eq!(judged("100%", Some("0"), Some("0")), Err(Impossible::OutsideCounts), "of nothing");
}

#[test]
fn a_part_is_not_above_its_whole() {
    assert_eq!(judged("101%", None, None), Err(Impossible::PartAboveWhole));
    assert_eq!(judged("100.0%", None, None), Ok(()));
    assert_eq!(judged("99%", Some("101"), Some("100")), Err(Impossible::PartAboveWhole));
    assert_eq!(judged("100%", Some("1.2万"), Some("11990")), Ok(()), "1.2万 may be 11,990");
}

#[test]
fn rounded_counts_allow_more() {
    assert_eq!(count("1.2万").counts(), (11_500, Some(12_500)));
    assert_eq!(count("约4000").counts(), (3_500, Some(4_500)));
    assert_eq!(count("16000余件").counts(), (16_000, None));
    assert_eq!(count("16000件以上").counts(), (16_000, None));
    assert_eq!(count("1.6万余").counts(), (16_000, None));
    assert_eq!(count("3亿").counts(), (250_000_000, Some(350_000_000)));
    assert_eq!(count("12.0").counts(), (12, Some(12)));
    assert_eq!(judged("97.1%", Some("1.2万"), Some("1.24万")), Ok(()));
    assert_eq!(judged("80%", Some("1.2万"), Some("1.2万")), Err(Impossible::OutsideCounts));
}

#[test]
fn what_could_be_read_in_two_ways_is_an_error() {
    let rate = |text: &str| Stated::rate(text, Op::Eq, false);
    assert_eq!(rate("97.12"), Err(NumberError::RateUnit));
    assert!(Stated::rate("97.12", Op::Eq, true).is_ok());
    for (text, error) in [
        ("12.5", NumberError::Fraction),
        ("12%", NumberError::Percent),
        ("7,76", NumberError::Form),
        ("1,2345", NumberError::Form),
        ("1e3", NumberError::Form),
        ("-4", NumberError::Form),
        ("4.", NumberError::Form),
        ("", NumberError::Form),
        ("无", NumberError::Form),
        ("1234567890123456", NumberError::TooLong),
        ("0.1234567890123", NumberError::TooLong),
    ] {
        assert_eq!(Stated::count(text, Op::Eq), Err(error), "{text}");
    }
}

proptest! {
    /// A rate that is rounded from counts, to any number of decimals, is never refused beside them.
    #[test]
    fn no_true_rate_is_refused(whole in 1i64..2_000_000, share in 0.0f64..=1.0, decimals in 0u32..6) {
        let part = ((whole as f64 * share) as i64).min(whole);
        let scale = 10_i64.pow(decimals) * 100;
        // Half up, in whole numbers.
        let rounded = (part * scale * 2 + whole) / (whole * 2);
        let places = decimals as usize;
        let unit = 10_i64.pow(decimals);
        let text = match places {
            0 => format!("{rounded}%"),
            _ => format!("{}.{:0places$}%", rounded / unit, rounded % unit),
        };
        let rate = rate(&text);
        let (part_stated, whole_stated) = (Stated::exact(part), Stated::exact(whole));
        prop_assert_eq!(rate_can_be(&rate, Some(&part_stated), Some(&whole_stated)), Ok(()), "{}", text);
        prop_assert_eq!(rate_can_be(&rate, None, Some(&whole_stated)), Ok(()));
        prop_assert_eq!(rate_can_be(&rate, Some(&part_stated), None), Ok(()));
        prop_assert!(rate.allows_ratio(part, whole));
    }

    /// With both counts exact, a rate is accepted exactly where the quotient lies in what it stands for.
    #[test]
    fn the_verdict_is_that_of_the_quotient(part in 0i64..3_000, whole in 1i64..3_000, hundredths in 0i64..=10_000) {
        let rate = rate(&format!("{}.{:02}%", hundredths / 100, hundredths % 100));
        let verdict = rate_can_be(&rate, Some(&Stated::exact(part)), Some(&Stated::exact(whole)));
        // |part/whole - hundredths/10000| <= 1/20000
        let near = (part * 20_000 - hundredths * 2 * whole).abs() <= whole;
        prop_assert_eq!(verdict.is_ok(), near && part <= whole);
    }

    /// A whole alone allows a rate exactly where one of its parts does.
    #[test]
    fn a_whole_alone_allows_what_some_part_allows(whole in 1i64..300, hundredths in 0i64..=10_000) {
        let rate = rate(&format!("{}.{:02}%", hundredths / 100, hundredths % 100));
        let whole_stated = Stated::exact(whole);
        let some = (0..=whole).any(|part| rate_can_be(&rate, Some(&Stated::exact(part)), Some(&whole_stated)).is_ok());
        prop_assert_eq!(rate_can_be(&rate, None, Some(&whole_stated)).is_ok(), some);
    }

    /// A part alone allows a rate exactly where one of the wholes does.
    #[test]
    fn a_part_alone_allows_what_some_whole_allows(part in 0i64..40, tenths in 50i64..=1_000) {
        let rate = rate(&format!("{}.{}%", tenths / 10, tenths % 10));
        let part_stated = Stated::exact(part);
        let some = (1..=2_000).any(|whole| rate_can_be(&rate, Some(&part_stated), Some(&Stated::exact(whole))).is_ok());
        prop_assert_eq!(rate_can_be(&rate, Some(&part_stated), None).is_ok(), some);
    }

    /// Nothing that is typed makes it fail otherwise than with an error.
    #[test]
    fn any_text_is_read_or_refused(text in "[0-9,.万亿%‰约余多≥ a-z件]{0,24}") {
        let _ = (Stated::count(&text, Op::Eq), Stated::count(&text, Op::Approx), Stated::rate(&text, Op::Ge, true));
    }
}
