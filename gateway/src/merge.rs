//! Merging registers: commutative, associative, idempotent. Nothing is ever overwritten unseen: a value goes only when
//! the other side has seen it and holds something else.
//!
//! Merge never resolves: what a reader is shown of siblings is `record::view`'s matter.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::record::{Entry, FieldNumber, Record, Register};
use crate::stamp::{Stamp, Writer};

/// What a merge did to the left side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The left side differs from what it was.
    pub changed: bool,
    /// One stamp stood for two different contents: a cloned writer. The greater bytes stay, and someone must be told.
    pub forked: bool,
}

impl Merged {
    fn and(self, other: Merged) -> Merged {
        Merged { changed: self.changed | other.changed, forked: self.forked | other.forked }
    }
}

/// Joins `theirs` into `ours`: one pass over both, by writer.
pub fn merge_register(ours: &mut Register, theirs: &Register) -> Merged {
    if ours == theirs {
        return Merged::default();
    }
    let mut merged = Merged::default();
    let mut joined: SmallVec<[Entry; 1]> = SmallVec::with_capacity(ours.entries().len());
    let mut left = std::mem::take(ours.entries_mut()).into_iter().peekable();
    let mut right = theirs.entries().iter().peekable();
    loop {
        match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if l.writer == r.writer => {
                let (Some(l), Some(r)) = (left.next(), right.next()) else { break };
                let (entry, step) = merge_entry(l, r);
                merged = merged.and(step);
                joined.push(entry);
            }
            (Some(l), r) if r.is_none_or(|r| l.writer < r.writer) => joined.extend(left.next()),
            (_, Some(_)) => {
                merged.changed = true;
                joined.extend(right.next().cloned());
            }
            _ => break,
        }
    }
    *ours.entries_mut() = joined;
    merged
}

/// Both sides' latest of one writer.
fn merge_entry(ours: Entry, theirs: &Entry) -> (Entry, Merged) {
    use std::cmp::Ordering;
    let changed = |changed| Merged { changed, forked: false };
    match ours.stamp.cmp(&theirs.stamp) {
        Ordering::Greater => (ours, changed(false)),
        Ordering::Less => (theirs.clone(), changed(true)),
        Ordering::Equal => match (&ours.value, &theirs.value) {
            (Some(a), Some(b)) if a != b => {
                let theirs_win = b > a;
                let winner = if theirs_win { theirs.clone() } else { ours };
                (winner, Merged { changed: theirs_win, forked: true })
            }
            (Some(_), None) => (theirs.clone(), changed(true)),
            // A program that does not know of content stamps loses them on the way.
            (Some(_), Some(_)) if theirs.content_stamp > ours.content_stamp => {
                (theirs.clone(), changed(true))
            }
            _ => (ours, changed(false)),
        },
    }
}

/// Joins `theirs` into `ours`, field by field. A field that one side does not hold is unknown there, never deleted.
pub fn merge_record(ours: &mut Record, theirs: &Record) -> Merged {
    let mut merged = Merged::default();
    for (field, register) in theirs.fields() {
        merged = merged.and(merge_field(ours, *field, register));
    }
    merged
}

/// Joins one register into a record.
pub fn merge_field(ours: &mut Record, field: FieldNumber, theirs: &Register) -> Merged {
    match ours.get(field) {
        Some(held) if held == theirs => Merged::default(),
        Some(held) => {
            let mut register = held.clone();
            let merged = merge_register(&mut register, theirs);
            if merged.changed {
                ours.set(field, register);
            }
            merged
        }
        None => {
            ours.set(field, theirs.clone());
            Merged { changed: true, forked: false }
        }
    }
}

/// Whether joining `from` into `into` would change it. Costs no copy.
pub fn would_change(into: &Record, from: &Record) -> bool {
    from.fields().iter().any(|(field, register)| match into.get(*field) {
        None => true,
        Some(held) => held != register && merge_register(&mut held.clone(), register).changed,
    })
}

/// Writes a value that replaces the values its author saw: `replaced` names them by stamp; others stay as siblings.
/// The writer's own earlier value always goes, for a writer never writes beside itself.
pub fn write(
    register: &mut Register,
    writer: Writer,
    stamp: Stamp,
    value: Bytes,
    replaced: &[(Writer, Stamp)],
) {
    for entry in register.entries_mut() {
        if replaced.contains(&(entry.writer, entry.stamp)) {
            entry.end();
        }
    }
    let entry = Entry::new(writer, stamp, Some(value));
    match register.position(writer) {
        Ok(i) => register.entries_mut()[i] = entry,
        Err(i) => register.entries_mut().insert(i, entry),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::division::Division;
    use proptest::prelude::*;

    pub(crate) fn writers() -> Vec<Writer> {
        [220822101000, 220822102000, 220822000000, 220800000000, 220000000000]
            .into_iter()
            .zip(1..)
            .map(|(code, id)| Writer { division: Division::from_code(code).unwrap(), id })
            .collect()
    }

    /// A register as writes could have made it: one content for each (writer, stamp).
    pub(crate) fn arbitrary_register(field: FieldNumber) -> impl Strategy<Value = Register> {
        proptest::collection::vec((0usize..5, 1u64..5, any::<bool>()), 1..5).prop_map(move |list| {
            let writers = writers();
            Register::from_entries(list.into_iter().map(|(w, stamp, live)| {
                // Content follows from writer and stamp, as with honest writers; some are clears.
                let byte = (w as u64 * 10 + stamp) as u8;
                let value =
                    if byte.is_multiple_of(7) { Bytes::new() } else { vec![(field << 3) as u8, byte].into() };
                Entry::new(writers[w], Stamp::from_ms(stamp), live.then_some(value))
            }))
        })
    }

    pub(crate) fn arbitrary_record() -> impl Strategy<Value = Record> {
        let fields: Vec<_> = (1..=6u32).map(|f| proptest::option::of(arbitrary_register(f))).collect();
        fields.prop_map(|registers| {
            let mut record = Record::default();
            for (field, register) in (1..).zip(registers) {
                if let Some(register) = register {
                    record.set(field, register);
                }
            }
            record
        })
    }

    fn joined(a: &Record, b: &Record) -> Record {
        let mut out = a.clone();
        merge_record(&mut out, b);
        out
    }

    proptest! {
        #[test]
        fn merge_is_commutative(a in arbitrary_record(), b in arbitrary_record()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        }

        #[test]
        fn merge_is_associative(a in arbitrary_record(), b in arbitrary_record(), c in arbitrary_record()) {
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        }

        #[test]
        fn merge_is_idempotent_and_says_whether_it_changed(a in arbitrary_record(), b in arbitrary_record()) {
            let ab = joined(&a, &b);
            prop_assert_eq!(&joined(&ab, &b), &ab);
            prop_assert_eq!(&joined(&ab, &a), &ab);
            let mut out = a.clone();
            prop_assert_eq!(merge_record(&mut out, &b).changed, out != a);
            prop_assert_eq!(would_change(&a, &b), ab != a);
        }

        #[test]
        fn nothing_goes_unseen(a in arbitrary_record(), b in arbitrary_record()) {
            let ab = joined(&a, &b);
            for (one, other) in [(&a, &b), (&b, &a)] {
                for (field, register) in one.fields() {
                    for (entry, _) in register.live() {
                        let kept = ab.get(*field).unwrap().live().any(|(e, _)| e == entry);
                        let seen = other.get(*field).and_then(|r| r.seen(entry.writer));
                        prop_assert!(kept || seen >= Some(entry.stamp));
                    }
                }
            }
        }

        #[test]
        fn release_in_between_loses_nothing(a in arbitrary_record(), b in arbitrary_record(), cut in 1u32..6) {
            // Fields above the cut do not pass the middle; the others end up as if all had met.
            let mut passed = b.clone();
            passed.retain(|field, _| field <= cut);
            let (through, direct) = (joined(&a, &passed), joined(&a, &b));
            for field in 1..=cut {
                prop_assert_eq!(through.get(field), direct.get(field));
            }
            for field in cut + 1..=6 {
                prop_assert_eq!(through.get(field), a.get(field));
            }
        }

        #[test]
        fn a_write_replaces_what_it_saw_and_nothing_else(register in arbitrary_register(1), w in 0usize..5) {
            let writer = writers()[w];
            let shown: Vec<_> = register.live().map(|(e, _)| (e.writer, e.stamp)).take(1).collect();
            let mut written = register.clone();
            write(&mut written, writer, Stamp::from_ms(9), Bytes::from_static(&[8, 1]), &shown);
            for (entry, _) in register.live() {
                let gone = shown.contains(&(entry.writer, entry.stamp)) || entry.writer == writer;
                prop_assert_eq!(written.live().any(|(e, _)| e == entry), !gone);
            }
            let mut back = register.clone();
            merge_register(&mut back, &written);
            prop_assert_eq!(back, written);
        }
    }

    #[test]
    fn a_fork_is_told_and_settles_the_same_way_everywhere() {
        let writer = writers()[0];
        let a = Register::single(writer, Stamp::from_ms(1), Bytes::from_static(&[8, 1]));
        let b = Register::single(writer, Stamp::from_ms(1), Bytes::from_static(&[8, 2]));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        assert!(merge_register(&mut ab, &b).forked);
        assert!(merge_register(&mut ba, &a).forked);
        assert_eq!(ab, ba);
        assert_eq!(ab, b);
    }
}
