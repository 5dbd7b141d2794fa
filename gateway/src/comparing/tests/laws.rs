//! The law of the descent: it finds exactly what differs, whatever it is and wherever it lies.

use super::*;
use crate::record::Entry;

/// What is done to one record at one end.
#[derive(Clone, Debug)]
enum Harm {
    Missing,
    Value(usize),
    Seen(usize),
    Extra,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::Missing),
        (0usize..4).prop_map(Harm::Value),
        (0usize..4).prop_map(Harm::Seen),
        Just(Harm::Extra),
    ]
}

fn inflict(schema: &Schema, records: &mut BTreeMap<RecordName, Record>, id: u32, harm: &Harm) {
    let fields = fields(schema);
    let name = name(schema, id as usize, id);
    match harm {
        Harm::Missing => {
            records.remove(&name);
        }
        Harm::Value(field) => {
            let changed = register(7, 1_000_000 + u64::from(id), 200);
            records.entry(name).or_default().set(fields[field % fields.len()], changed);
        }
        Harm::Seen(field) => {
            let field = fields[field % fields.len()];
            let record = records.entry(name).or_default();
            let before = record.get(field).cloned().unwrap_or_default();
            let writer = Writer { division: Division::from_code(HOMES[1]).unwrap(), id: 9 };
            let seen = before.entries().iter().cloned().chain([Entry::seen(writer, Stamp(5))]);
            record.set(field, Register::from_entries(seen));
        }
        Harm::Extra => {
            let name = super::name(schema, id as usize, 90_000 + id);
            let mut record = Record::default();
            record.set(fields[0], register(8, 3, 3));
            records.insert(name, record);
        }
    }
}

/// The names whose shared part is not the same at both ends, without what is left out.
fn differing(link: &Link, left_out: &LeftOut) -> BTreeSet<RecordName> {
    let share = |at: usize, name: &RecordName| -> Vec<_> {
        let record = link.ends[at].records.get(name).cloned().unwrap_or_default();
        let shared = proof::shared(&link.schema, pair(), name, &record).into_iter();
        shared.filter(|(field, _)| !left_out.has(name, *field)).collect()
    };
    let names = link.ends[0].records.keys().chain(link.ends[1].records.keys());
    names.filter(|name| share(0, name) != share(1, name)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_descent_finds_exactly_what_differs_and_repair_makes_the_ends_equal(
        count in prop_oneof![6 => 0u32..40, 1 => 400u32..1_400],
        harms in prop::collection::vec((any::<bool>(), any::<u32>(), harm()), 0..12),
        refused in prop::collection::vec((any::<bool>(), any::<u32>(), 0usize..5), 0..4),
        owed in prop::collection::vec((any::<bool>(), any::<u32>()), 0..3),
    ) {
        let schema = schema();
        let all = records(&schema, count);
        let mut link = Link::new(all.clone(), all);
        let mut left_out = LeftOut::default();
        let name = |id: &u32| name(&schema, (id % count.max(1)) as usize, id % count.max(1));
        for (upper, id, harm) in &harms {
            inflict(&schema, &mut link.ends[usize::from(*upper)].records, id % count.max(1), harm);
        }
        let fields = fields(&schema);
        for (upper, id, field) in &refused {
            let field = if *field == 4 { 0 } else { fields[*field % fields.len()] };
            left_out.add(name(id), field);
            link.ends[usize::from(*upper)].refused.push((name(id), field));
        }
        for (upper, id) in &owed {
            let end = &mut link.ends[usize::from(*upper)];
            if end.records.contains_key(&name(id)) {
                left_out.add(name(id), 0);
                end.owed.insert(name(id));
            }
        }
        let waiting: Vec<BTreeSet<RecordName>> = link.ends.iter().map(|end| end.owed.clone()).collect();
        let expected = differing(&link, &left_out);
        // Once around: a comparison, and what follows from it.
        link.now_ms += 40_000;
        link.rest();
        let found: BTreeSet<RecordName> = (0..2)
            .flat_map(|at| link.ends[at].owed.difference(&waiting[at]).cloned().collect::<Vec<_>>())
            .collect();
        prop_assert_eq!(&found, &expected);
        let equal = link.proofs().map(|proof| proof.is_equal());
        prop_assert_eq!(equal, [expected.is_empty(); 2], "{:?}", link.proofs());

        // What was owed arrives, what was refused is settled: both ends say equal, and rightly.
        link.deliver();
        link.ends.iter_mut().for_each(|end| end.refused.clear());
        for _ in 0..4 {
            link.rest_for(400_000);
            link.deliver();
        }
        prop_assert!(differing(&link, &LeftOut::default()).is_empty());
        prop_assert!(link.proofs().iter().all(LinkProof::is_equal), "{:?}", link.proofs());
    }
}
