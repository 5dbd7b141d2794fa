//! Thresholds: named by their measure, with bounds in order.

use super::*;
use fields::threshold as f;

fn bounds(red: Option<i64>, yellow: Option<i64>) -> Option<v1::ThresholdBounds> {
    Some(v1::ThresholdBounds {
        direction: v1::ThresholdDirection::HigherIsBetter.into(),
        red_millionths: red,
        yellow_millionths: yellow,
        blue_millionths: None,
    })
}

fn write(id: &str, measure: &str, bounds: Option<v1::ThresholdBounds>) -> Judged {
    let threshold = v1::Threshold { measure: Some(measure.into()), bounds, ..v1::Threshold::default() };
    Desk::new("threshold", "220822", id).write("220822", &threshold, &[])
}

#[test]
fn a_threshold_is_named_by_its_measure_and_has_bounds_in_order() {
    let measure = "online_rate";
    assert_eq!(write(measure, measure, bounds(Some(800_000), Some(900_000))), Ok(()));
    assert_eq!(blamed(write("online_rat", "online_rat", bounds(Some(1), None))), [f::MEASURE]);
    assert_eq!(blamed(write("another", measure, bounds(Some(1), None))), [f::MEASURE]);
    assert_eq!(blamed(write(measure, measure, bounds(Some(900_000), Some(800_000)))), [f::BOUNDS]);
    assert_eq!(blamed(write(measure, measure, bounds(None, None))), [f::BOUNDS]);
}

#[test]
fn what_is_no_encoding_of_bounds_is_refused() {
    let desk = Desk::new("threshold", "220822", "online_rate");
    let mut after = Record::default();
    let writer = Writer { division: at("220822"), id: 1 };
    after.set(f::BOUNDS, Register::single(writer, Stamp::from_ms(NOW_MS), Bytes::from_static(&[0x1a, 9, 1])));
    assert!(desk.judge(writer.division, &after, &[f::BOUNDS]).is_err());
}
