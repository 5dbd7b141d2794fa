//! Laws of the chain: whatever is changed, removed, moved or cut is found; and of what waits to be written.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const OWN: &str = "220822101000";

fn own() -> Division {
    Division::parse(OWN).unwrap()
}

fn event(seed: u64) -> Event {
    match seed % 4 {
        0 => Event::Stopped,
        1 => Event::Lost { entries: seed },
        2 => Event::Sealed { record: format!("divisions/{OWN}/cases/案-{seed}\"\n") },
        _ => Event::Refused {
            peer: own(),
            by: Side::Own,
            reason: RefusalReason::ForeignWriter,
            record: format!("divisions/{OWN}/grids/{seed}"),
            field: 12,
            refusals: seed,
        },
    }
}

fn rows(seeds: &[u64]) -> Vec<Row> {
    let mut chain = Chain::new(own(), 0);
    seeds.iter().map(|seed| chain.add(1_000 + seed, &event(*seed).into())).collect()
}

/// The first thing that is wrong, and how far the chain came before it.
fn checked(rows: &[Row]) -> (Head, Result<(), Broken>) {
    let mut chain = Chain::new(own(), 0);
    let outcome = rows.iter().try_for_each(|row| chain.check(row));
    (chain.head(), outcome)
}

proptest! {
    #[test]
    fn what_was_written_checks(seeds in prop::collection::vec(any::<u64>(), 0..40)) {
        let rows = rows(&seeds);
        let (head, outcome) = checked(&rows);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(head.number, rows.len() as u64);
        prop_assert!(rows.iter().all(|row| !row.line.contains('\n') && !row.event.is_empty()));
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is(
        seeds in prop::collection::vec(any::<u64>(), 1..20), at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(), with in "[ -~]",
    ) {
        let mut rows = rows(&seeds);
        let at = at.index(rows.len());
        let mut line: Vec<char> = rows[at].line.chars().collect();
        let place = byte.index(line.len());
        let with = with.chars().next().unwrap();
        prop_assume!(line[place] != with);
        line[place] = with;
        rows[at].line = line.into_iter().collect();
        let (head, outcome) = checked(&rows);
        prop_assert_eq!(outcome, Err(Broken::Changed { number: at as u64 + 1 }));
        prop_assert_eq!(head.number, at as u64);
    }

    #[test]
    fn a_changed_hash_is_found(seeds in prop::collection::vec(any::<u64>(), 1..20),
        at in any::<prop::sample::Index>(), byte in 0_usize..32) {
        let mut rows = rows(&seeds);
        let at = at.index(rows.len());
        rows[at].hash.0[byte] ^= 1;
        prop_assert_eq!(checked(&rows).1, Err(Broken::Changed { number: at as u64 + 1 }));
    }

    #[test]
    fn a_removed_entry_is_found(seeds in prop::collection::vec(any::<u64>(), 2..20),
        at in any::<prop::sample::Index>()) {
        let mut rows = rows(&seeds);
        // The last ones are what checkpoints are for.
        let at = at.index(rows.len() - 1);
        rows.remove(at);
        let number = at as u64 + 1;
        prop_assert_eq!(checked(&rows).1, Err(Broken::Missing { expected: number, found: number + 1 }));
        // Renumbered, it does not fit either.
        for (row, number) in rows.iter_mut().zip(1..) {
            row.number = number;
        }
        prop_assert_eq!(checked(&rows).1, Err(Broken::Changed { number }));
    }

    #[test]
    fn entries_in_another_order_are_found(seeds in prop::collection::vec(any::<u64>(), 2..20),
        one in any::<prop::sample::Index>(), two in any::<prop::sample::Index>()) {
        let mut rows = rows(&seeds);
        let (one, two) = (one.index(rows.len()), two.index(rows.len()));
        prop_assume!(one != two);
        rows.swap(one, two);
        prop_assert!(checked(&rows).1.is_err());
        let numbers = 1..;
        for (row, number) in rows.iter_mut().zip(numbers) {
            row.number = number;
        }
        let first = one.min(two) as u64 + 1;
        prop_assert_eq!(checked(&rows).1, Err(Broken::Changed { number: first }));
    }

    #[test]
    fn a_cut_end_or_a_whole_new_chain_has_another_head(seeds in prop::collection::vec(any::<u64>(), 1..20),
        at in any::<prop::sample::Index>()) {
        let whole = rows(&seeds);
        let at = at.index(whole.len());
        let cut = checked(&whole[..at]);
        prop_assert_eq!(cut.1, Ok(()));
        prop_assert_ne!(cut.0, checked(&whole).0);
        let mut other = seeds.clone();
        other[at] = other[at].wrapping_add(1);
        let (head, outcome) = checked(&rows(&other));
        prop_assert_eq!(outcome, Ok(()), "by itself it is sound");
        prop_assert_ne!(head.hash, checked(&whole).0.hash);
    }

    #[test]
    fn what_is_gathered_is_written_once_or_counted(ops in prop::collection::vec((0_u64..900, 0_u64..70_000), 0..900)) {
        let (mut gathered, mut now_ms) = (Gathered::default(), 0);
        let (mut put, mut written) = (0, 0);
        let write = |gathered: &mut Gathered, now_ms, all| {
            let notes = gathered.due(now_ms, all);
            gathered.written(&notes, now_ms);
            notes.iter().map(|note| match note.event {
                Event::Lost { entries } => entries,
                _ => note.repeated.map_or(1, |r| r.times),
            }).sum::<u64>()
        };
        for (which, step_ms) in ops {
            gathered.put(Event::Sealed { record: which.to_string() }, now_ms);
            put += 1;
            if which % 50 == 0 {
                now_ms += step_ms;
                written += write(&mut gathered, now_ms, false);
            }
        }
        written += write(&mut gathered, now_ms, true);
        prop_assert_eq!(put, written);
    }
}

#[test]
fn a_column_beside_the_line_cannot_say_something_else() {
    let rows = rows(&[2]);
    for wrong in [
        Row { event: "stopped".into(), ..rows[0].clone() },
        Row { time_ms: rows[0].time_ms + 1, ..rows[0].clone() },
    ] {
        assert_eq!(checked(&[wrong]).1, Err(Broken::Misfiled { number: 1 }));
    }
}

#[test]
fn a_chain_of_another_node_or_gateway_does_not_fit() {
    let rows = rows(&[1, 2]);
    for mut other in [Chain::new(Division::parse("220822").unwrap(), 0), Chain::new(own(), 1)] {
        assert_eq!(other.check(&rows[0]), Err(Broken::Changed { number: 1 }));
    }
}

/// The form is documented: somebody else's program checks it.
#[test]
fn a_line_is_what_the_documents_say() {
    let note = Note { event: event(3), repeated: None };
    assert_eq!(
        line(7, 1_000, &note),
        r#"{"number":7,"time_ms":1000,"event":"refused","peer":"220822101000","by":"own","reason":"REFUSAL_REASON_FOREIGN_WRITER","record":"divisions/220822101000/grids/3","field":12,"refusals":3}"#
    );
    let repeated = Some(Repeated { times: 4, since_ms: 5, last_ms: 900 });
    let joined = Note { event: Event::Stopped, repeated };
    assert_eq!(
        line(8, 1_000, &joined),
        r#"{"number":8,"time_ms":900,"event":"stopped","times":4,"since_ms":5}"#
    );
    assert_eq!(
        origin(own(), 0).to_string(),
        // printf 'guantong audit log 1\n220822101000\n0\n' | sha256sum
        "25994eed0394d96a36a6ab3db9147de8e503e1eb4492638004bd821af2ba6d33"
    );
    let hash = origin(own(), 3);
    assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
    assert_eq!(Hash::parse(&hash.to_string()[1..]), None);
    assert_eq!(Hash::parse(&"é".repeat(32)), None);
}

#[test]
fn what_repeats_is_joined_for_a_minute() {
    let mut gathered = Gathered::default();
    let knock = || Event::ConnectionRefused { address: "192.0.2.1".into(), reason: "not_trusted" };
    gathered.put(knock(), 1_000);
    let first = gathered.due(1_000, false);
    assert_eq!(first, [Note::from(knock())], "the first is written at once");
    gathered.written(&first, 1_000);
    for now_ms in [1_200, 1_300, 1_400] {
        gathered.put(knock(), now_ms);
        assert_eq!(gathered.due(now_ms, false), []);
    }
    let joined = gathered.due(1_000 + JOIN_MS, false);
    let repeated = Some(Repeated { times: 3, since_ms: 1_200, last_ms: 1_400 });
    assert_eq!(joined, [Note { event: knock(), repeated }]);
    // One that comes between looking and writing is not forgotten.
    gathered.put(knock(), 1_500);
    gathered.written(&joined, 1_000 + JOIN_MS);
    assert_eq!(gathered.due(1_000 + JOIN_MS, true).len(), 1);
    gathered.written(&gathered.due(90_000, true), 90_000);
    gathered.written(&[], 90_000 + JOIN_MS);
    assert!(gathered.is_empty());
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut gathered = Gathered::default();
    for n in 0..GATHERED_MAX as u64 + 7 {
        gathered.put(Event::Sealed { record: n.to_string() }, 5);
    }
    let notes = gathered.due(5, false);
    assert_eq!(notes.len(), GATHERED_MAX + 1);
    assert_eq!(notes.last().unwrap().event, Event::Lost { entries: 7 });
    gathered.written(&notes, 5);
    gathered.put(Event::Stopped, 6);
    assert_eq!(gathered.due(6, false), [Event::Stopped.into()], "what is only remembered makes room");
}
