//! The catalogue is of one piece, and changes, rates and ranks are worked out as it says.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[test]
fn names_and_codes_mean_one_thing() {
    let names: HashSet<&str> = MEASURES.iter().map(|m| m.name).collect();
    assert_eq!(names.len(), MEASURES.len());
    let mut codes = HashSet::new();
    for count in Count::ALL {
        assert!(codes.insert(Code::total(count)) && Code::total(count).count() == Some(count));
        assert_eq!(Code::total(count).class(), None);
        for dimension in count.dimensions() {
            for class in dimension.classes() {
                let code = Code::part(count, *dimension, class.number);
                assert!(codes.insert(code), "{count:?} {dimension:?} {}", class.name);
                assert_eq!((code.count(), code.class()), (Some(count), Some((*dimension, class.number))));
            }
        }
    }
}

#[test]
fn every_measure_says_what_it_is() {
    for measure in MEASURES {
        let flows: HashSet<bool> = measure.formula.counts().iter().map(|c| c.is_flow()).collect();
        assert_eq!(flows.len(), 1, "{} mixes flows and stocks", measure.name);
        assert!(
            !measure.meaning.is_empty() && !measure.label.is_empty() && !measure.meaning_label.is_empty()
        );
        assert_eq!(measure.is_rate(), measure.unit == "%", "{}", measure.name);
        assert_eq!(measure.is_rate(), !measure.formula.basis().0.is_empty(), "{}", measure.name);
    }
    assert_eq!(Measure::named("online_rate").unwrap().dimensions().len(), 4);
    assert!(Measure::named("grid_coverage").unwrap().dimensions().is_empty());
}

#[test]
fn a_slip_of_the_pen_is_recognised() {
    assert_eq!(Measure::near("case_received"), ["cases_received"]);
    assert_eq!(Measure::near("sucess_rate").first(), Some(&"success_rate"));
    assert!(Measure::near("overdue").contains(&"cases_overdue"));
    assert!(Measure::near("weather").is_empty());
}

#[test]
fn changes_are_empty_over_nothing() {
    let rate = |numerator, denominator| Value::Rate { numerator, denominator };
    assert_eq!(Value::Number(3).change_from(Value::Number(2)), Some(0.5));
    assert_eq!(Value::Number(3).change_from(Value::Number(0)), None);
    assert_eq!(rate(1, 2).change_from(rate(1, 4)), Some(1.0));
    assert_eq!(rate(1, 2).change_from(rate(0, 0)), None);
    assert_eq!(Value::Unknown.change_from(Value::Number(1)), None);
}

#[test]
fn ties_share_a_rank() {
    let rate = |numerator, denominator| Value::Rate { numerator, denominator };
    let ranked = ranks(&[rate(1, 3), rate(3, 4), Value::Unknown, rate(2, 6), rate(1, 5)]);
    assert_eq!(ranked, [Some(2), Some(1), None, Some(2), Some(4)]);
}

proptest! {
    #[test]
    fn a_rank_counts_those_before_it(numbers in proptest::collection::vec(-5i64..5, 0..12)) {
        let values: Vec<Value> = numbers.iter().map(|n| Value::Number(*n)).collect();
        for (value, rank) in numbers.iter().zip(ranks(&values)) {
            let before = numbers.iter().filter(|other| *other > value).count() as u32;
            prop_assert_eq!(rank, Some(before + 1));
        }
    }
}
