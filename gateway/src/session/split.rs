//! A record too large for one batch travels in parts: by field, and a single field by writer. Merging the parts gives
//! the record, since a register joins writer by writer.

use guantong_proto::rules::fields;
use guantong_proto::v1;

use super::payload::raw_bytes_of;
use crate::record::{Record, Register, codec};

/// The record in parts of at most `raw_bytes_max` each; `None` where that cannot be done: the state is unreadable or a
/// single value is larger.
pub(super) fn split(record: v1::BatchRecord, raw_bytes_max: usize) -> Option<Vec<v1::BatchRecord>> {
    if raw_bytes_of(&record) <= raw_bytes_max {
        return Some(vec![record]);
    }
    let whole = codec::decode(record.state.clone()).ok()?;
    let mut parts = Vec::new();
    let marks = whole.get(fields::ERASED).cloned();
    let mut unmarked = whole.clone();
    unmarked.retain(|field, _| field != fields::ERASED);
    if halve(&record, unmarked, marks.as_ref(), raw_bytes_max, &mut parts).is_none() {
        // Too many marks to stand beside each value: they go like any other field.
        parts.clear();
        halve(&record, whole, None, raw_bytes_max, &mut parts)?;
    }
    // The receiver has the record once it has the first part.
    parts.iter_mut().skip(1).for_each(|part| part.fresh = false);
    Some(parts)
}

/// Each part carries the marks of what was erased: a receiver that holds more of the record must not take a value without
/// it for another one.
fn halve(
    of: &v1::BatchRecord,
    held: Record,
    marks: Option<&Register>,
    raw_bytes_max: usize,
    parts: &mut Vec<v1::BatchRecord>,
) -> Option<()> {
    let mut marked = held.clone();
    if let Some(marks) = marks {
        marked.set(fields::ERASED, marks.clone());
    }
    let part = v1::BatchRecord { state: codec::encode(&marked), ..of.clone() };
    if raw_bytes_of(&part) <= raw_bytes_max {
        parts.push(part);
        return Some(());
    }
    let (left, right) = match held.fields() {
        [] => return None,
        [(field, register)] => {
            let (left, right) = register.entries().split_at(register.entries().len() / 2);
            if left.is_empty() {
                return None;
            }
            let half = |entries: &[_]| vec![(*field, Register::from_entries(entries.to_vec()))];
            (half(left), half(right))
        }
        held => {
            let (left, right) = held.split_at(held.len() / 2);
            (left.to_vec(), right.to_vec())
        }
    };
    halve(of, Record::from_sorted(left, Vec::new()), marks, raw_bytes_max, parts)?;
    halve(of, Record::from_sorted(right, Vec::new()), marks, raw_bytes_max, parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::division::Division;
    use crate::merge::merge_field;
    use crate::stamp::{Stamp, Writer};

    /// A field's encoding: `tag` and `bytes` of content.
    fn value(field: u32, bytes: usize) -> bytes::Bytes {
        let mut out = Vec::new();
        crate::record::raw::put_message(&mut out, crate::record::raw::message_tag(field), &vec![1; bytes]);
        out.into()
    }

    fn writer(id: u64) -> Writer {
        Writer { division: Division::from_code(220822101000).unwrap(), id }
    }

    fn batch_record(record: &Record) -> v1::BatchRecord {
        v1::BatchRecord {
            name: "n".into(),
            state: codec::encode(record),
            traceparent: Some("t".into()),
            fresh: true,
        }
    }

    #[test]
    fn parts_join_to_the_record() {
        let mut record = Record::default();
        for field in 1..20 {
            record.set(field, Register::single(writer(1), Stamp(u64::from(field)), value(field, 600)));
        }
        let siblings = (0..40).map(|id| {
            crate::record::Entry::new(writer(id), Stamp(id), (id % 3 != 0).then(|| value(20, 600)))
        });
        record.set(20, Register::from_entries(siblings));

        let parts = split(batch_record(&record), 2_000).unwrap();
        assert!(parts.len() > 10);
        assert!(parts.iter().all(|p| raw_bytes_of(p) <= 2_000 && p.name == "n" && p.traceparent.is_some()));
        assert_eq!(parts.iter().map(|p| p.fresh).filter(|fresh| *fresh).count(), 1);
        let mut joined = Record::default();
        for part in parts {
            let part = codec::decode(part.state).unwrap();
            for (field, register) in part.fields() {
                merge_field(&mut joined, *field, register);
            }
        }
        assert_eq!(joined, record);
    }

    #[test]
    fn what_fits_is_not_read() {
        let unreadable = v1::BatchRecord { state: vec![0xff; 30].into(), ..Default::default() };
        assert_eq!(split(unreadable.clone(), 2_000), Some(vec![unreadable.clone()]));
        assert_eq!(split(unreadable, 20), None);
    }

    #[test]
    fn a_value_larger_than_a_part_cannot_be_split() {
        let mut record = Record::default();
        record.set(1, Register::single(writer(1), Stamp(1), value(1, 3_000)));
        assert_eq!(split(batch_record(&record), 2_000), None);
    }
}
