//! Erasing and merging in any order leave the same, and what is erased never comes back.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::merge::tests::{arbitrary_record, writers};
use crate::merge::{self, Merged};
use crate::record::Entry;
use crate::schema::Schema;

fn schema() -> Schema {
    Schema::current()
}

/// A record with the marks of one writer: when each was made, of which fields, up to when. All are in its last value.
fn marks(who: usize, marks: &[(u64, Vec<u32>, u64)]) -> Record {
    let (mut value, mut latest) = (Vec::new(), Stamp::default());
    for (at_ms, field_numbers, before_ms) in marks {
        latest = Stamp::from_ms(*at_ms);
        let (id, before) = (format!("{who}-{at_ms}"), Stamp::from_ms(*before_ms).0);
        let erasure = v1::Erasure { id, field_numbers: field_numbers.clone(), before, stamp: latest.0 };
        raw::put_message(&mut value, raw::message_tag(fields::ERASED), &erasure.encode_to_vec());
    }
    let mut record = Record::default();
    record.set(fields::ERASED, Register::single(writers()[who], latest, value.into()));
    record
}

fn mark(fields: Vec<u32>, at_ms: u64) -> Record {
    marks(1, &[(at_ms, fields, at_ms)])
}

/// As links take a record in: marks first, both sides without what is erased, then the rest.
fn joined(ours: &Record, theirs: &Record) -> Record {
    let schema = schema();
    let case = schema.kind_named("case").unwrap();
    let (mut after, mut taken) = (ours.clone(), theirs.clone());
    if let Some(marks) = theirs.get(fields::ERASED) {
        merge::merge_field(&mut after, fields::ERASED, marks);
    }
    let erasures = Erasures::of(case, &after);
    erasures.apply(&mut after);
    erasures.apply(&mut taken);
    let Merged { forked, .. } = merge::merge_record(&mut after, &taken);
    assert!(!forked, "an erased value is no second content");
    after
}

fn arbitrary_marked() -> impl Strategy<Value = Record> {
    let made = proptest::option::of((0usize..5, 1u64..3));
    (arbitrary_record(), made).prop_map(|(mut record, made)| {
        if let Some((who, at_ms)) = made {
            // What a mark says follows from its writer and moment, as with honest writers.
            let (field, before_ms) = (2 + who as u32 % 4, who as u64 % 4);
            let made = |at_ms| (at_ms, vec![field, 6], before_ms + at_ms);
            let made: Vec<_> = (1..=at_ms).map(made).collect();
            merge::merge_record(&mut record, &marks(who, &made));
        }
        let schema = schema();
        let case = schema.kind_named("case").unwrap();
        Erasures::of(case, &record).apply(&mut record);
        record
    })
}

proptest! {
    #[test]
    fn erasing_and_merging_in_any_order_leave_the_same(
        a in arbitrary_marked(), b in arbitrary_marked(), c in arbitrary_marked()
    ) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        let all = joined(&joined(&a, &b), &c);
        prop_assert_eq!(joined(&all, &a), all.clone());
        let schema = schema();
        let erasures = Erasures::of(schema.kind_named("case").unwrap(), &all);
        for erased in erasures.fields() {
            let live = all.get(erased.field).into_iter().flat_map(|r| r.live());
            prop_assert!(live.into_iter().all(|(entry, _)| entry.content_stamp() > erased.before));
        }
    }
}

fn note(id: &str, at_ms: u64, text: &str) -> Vec<u8> {
    let note = v1::CaseNote {
        id: id.into(),
        text: text.into(),
        stamp: Stamp::from_ms(at_ms).0,
        ..Default::default()
    };
    v1::Case { notes: vec![note], ..Default::default() }.encode_to_vec()
}

#[test]
fn of_a_union_the_entries_written_until_then_go_and_later_ones_stay() {
    let schema = schema();
    let case = schema.kind_named("case").unwrap();
    let (early, late) = (note("a", 1, "旧"), note("b", 9, "新"));
    let mut record = mark(vec![fields::case::NOTES], 5);
    let value = [early.clone(), late.clone()].concat();
    record.set(fields::case::NOTES, Register::single(writers()[0], Stamp::from_ms(9), value.into()));
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 1);
    let left = record.get(fields::case::NOTES).unwrap().live().next().unwrap().1.clone();
    assert_eq!(left, late);
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 0, "once is enough");
    record.set(fields::case::NOTES, Register::single(writers()[2], Stamp::from_ms(4), early.into()));
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 1);
    assert_eq!(record.get(fields::case::NOTES).unwrap().live().count(), 0);
}

#[test]
fn what_a_restored_store_wrote_again_is_as_old_as_its_content() {
    let schema = schema();
    let case = schema.kind_named("case").unwrap();
    let mut record = mark(vec![fields::case::TITLE], 5);
    let value = v1::Case { title: Some("旧".into()), ..Default::default() }.encode_to_vec();
    let again = |content_ms| Entry {
        content_stamp: Stamp::from_ms(content_ms),
        ..Entry::new(writers()[0], Stamp::from_ms(9), Some(value.clone().into()))
    };
    record.set(fields::case::TITLE, Register::from_entries([again(6)]));
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 0, "written since");
    record.set(fields::case::TITLE, Register::from_entries([again(4)]));
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 1);
}

#[test]
fn whom_a_record_concerns_and_its_marks_are_never_erased() {
    let schema = schema();
    let case = schema.kind_named("case").unwrap();
    let all: Vec<u32> = case.fields().map(|f| f.number).collect();
    let mut record = mark(all, 5);
    let steps =
        v1::Case { steps: vec![v1::CaseStep { id: "1".into(), ..Default::default() }], ..Default::default() };
    record.set(
        fields::case::STEPS,
        Register::single(writers()[0], Stamp::from_ms(1), steps.encode_to_vec().into()),
    );
    let before = record.clone();
    assert_eq!(Erasures::of(case, &record).apply(&mut record), 0);
    assert_eq!(record, before);
    assert!(usual_fields(case).contains(&fields::case::PARTIES));
    assert!(!usual_fields(case).contains(&fields::case::LIFECYCLE));
}

#[test]
fn a_mark_that_a_wrong_clock_made_reaches_no_further_than_it_is_made_again() {
    let record = marks(1, &[(1, vec![12], 3), (2, vec![13], 900)]);
    let value = record.get(fields::ERASED).unwrap().live().next().unwrap().1.clone();
    let mended = not_beyond(&value, |_| Stamp::from_ms(10));
    let before = |value: &Bytes| -> Vec<u64> {
        view::union_entries(value).filter_map(|e| before_of(e.message)).map(Stamp::ms).collect()
    };
    assert_eq!((before(&value), before(&mended)), (vec![3, 900], vec![3, 10]));
    assert_eq!(not_beyond(&mended, |_| Stamp::from_ms(10)), mended);
    let later = |field| Stamp::from_ms(if field == 13 { 700 } else { 10 });
    assert_eq!(before(&not_beyond(&value, later)), vec![3, 700], "each as far as its own fields say");
}
