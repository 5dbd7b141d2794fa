//! How far the erasure of a record has come: what nodes say of it, and what that comes to. A node has purged when every
//! mark that any node knows of has come to it: whoever takes a mark in purges in the same transaction.

use std::collections::BTreeMap;

use guantong_proto::v1;

use crate::division::Division;
use crate::erasure::Erasures;
use crate::ingest::topology::Topology;
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record};
use crate::release;
use crate::schema::Kind;

/// What the marks of a record erase, ascending by field.
pub fn marks(kind: &Kind, record: &Record) -> Vec<v1::ErasedField> {
    let erasures = Erasures::of(kind, record);
    let mark = |erased: &crate::erasure::ErasedField| v1::ErasedField {
        field_number: erased.field,
        before: erased.before.0,
    };
    erasures.fields().iter().map(mark).collect()
}

/// Whether this node may ever have held one of these fields, so that copies which it made may hold it.
pub fn may_have_held(
    kind: &Kind,
    home: Division,
    topology: &Topology,
    fields: impl IntoIterator<Item = FieldNumber>,
) -> bool {
    let tier = topology.own().tier();
    let may = |number| match kind.field(number) {
        // A file goes to whoever it was ever handed to.
        Some(field) => field.file || release::within_limit(field, home, tier),
        None => true,
    };
    topology.acts_for(home) || fields.into_iter().any(may)
}

/// Whether a copy that went to this division may hold the record: it concerns the division, or that lies above.
pub fn went_to(own: Division, places: &Audience, division: Division) -> bool {
    division.contains(own) || places.concerns(division)
}

/// Up to when each field is erased, by the marks of all nodes.
pub fn all_marks(places: &[v1::ErasurePlace]) -> BTreeMap<FieldNumber, u64> {
    let mut all: BTreeMap<FieldNumber, u64> = BTreeMap::new();
    for mark in places.iter().flat_map(|place| &place.erased) {
        let before = all.entry(mark.field_number).or_default();
        *before = mark.before.max(*before);
    }
    all
}

/// Says of each node that answered whether it has purged all that any of them knows to be erased.
pub fn settle(places: &mut [v1::ErasurePlace]) {
    let all = all_marks(places);
    for place in places.iter_mut() {
        let has = |field: &FieldNumber, before: &u64| {
            place.erased.iter().any(|mark| mark.field_number == *field && mark.before >= *before)
        };
        let state = match place.answer() {
            v1::NodeAnswer::Given if !place.held => v1::ErasurePlaceState::Absent,
            v1::NodeAnswer::Given if all.is_empty() => v1::ErasurePlaceState::Unspecified,
            v1::NodeAnswer::Given if all.iter().all(|(field, before)| has(field, before)) => {
                v1::ErasurePlaceState::Purged
            }
            v1::NodeAnswer::Given => v1::ErasurePlaceState::Pending,
            _ => v1::ErasurePlaceState::Unspecified,
        };
        place.set_state(state);
    }
}

/// What nodes that were settled come to; `truncated`: there are more than these.
pub fn spread(places: &[v1::ErasurePlace], truncated: bool) -> v1::ErasureSpread {
    use v1::ErasureState::{Pending, Refused};
    let answered = |place: &&v1::ErasurePlace| place.answer() == v1::NodeAnswer::Given;
    let all_answered = !truncated && places.iter().all(|place| answered(&place));
    if all_marks(places).is_empty() {
        return if all_answered { v1::ErasureSpread::None } else { v1::ErasureSpread::Unknown };
    }
    let refuses = |place: &v1::ErasurePlace| {
        place.told() == Refused || place.peers.iter().any(|peer| peer.state() == Refused)
    };
    if places.iter().any(refuses) {
        return v1::ErasureSpread::Refused;
    }
    let waits = |place: &v1::ErasurePlace| match place.answer() {
        v1::NodeAnswer::Given => place.state() == v1::ErasurePlaceState::Pending,
        _ => place.told() == Pending,
    };
    if places.iter().any(waits) {
        return v1::ErasureSpread::OnItsWay;
    }
    if all_answered { v1::ErasureSpread::Everywhere } else { v1::ErasureSpread::Unknown }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use guantong_proto::rules::fields;
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::topology::PeerId;
    use crate::schema::Schema;
    use v1::{ErasurePlaceState as At, ErasureSpread as Spread, ErasureState as Told, NodeAnswer};

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    /// A node that answered, with marks: field and moment.
    fn node(marks: &[(u32, u64)]) -> v1::ErasurePlace {
        let erased = marks
            .iter()
            .map(|(field_number, before)| v1::ErasedField { field_number: *field_number, before: *before });
        v1::ErasurePlace {
            answer: NodeAnswer::Given.into(),
            held: true,
            erased: erased.collect(),
            ..v1::ErasurePlace::default()
        }
    }

    fn absent() -> v1::ErasurePlace {
        v1::ErasurePlace { held: false, ..node(&[]) }
    }

    fn silent(told: Told) -> v1::ErasurePlace {
        let answer = NodeAnswer::NotLinked.into();
        v1::ErasurePlace { answer, told: told.into(), ..v1::ErasurePlace::default() }
    }

    fn judged(mut places: Vec<v1::ErasurePlace>) -> (Vec<At>, Spread) {
        settle(&mut places);
        (places.iter().map(v1::ErasurePlace::state).collect(), spread(&places, false))
    }

    #[test]
    fn a_node_has_purged_when_every_mark_of_any_node_has_come_to_it() {
        let (first, second) = ((3, 10), (4, 20));
        let behind = judged(vec![node(&[first, second]), node(&[first]), absent()]);
        assert_eq!(behind, (vec![At::Purged, At::Pending, At::Absent], Spread::OnItsWay));
        let earlier = judged(vec![node(&[(3, 9)]), node(&[first])]);
        assert_eq!(earlier.0, [At::Pending, At::Purged], "a mark of before is another one");
        let done = judged(vec![node(&[first]), node(&[first]), absent()]);
        assert_eq!(done, (vec![At::Purged, At::Purged, At::Absent], Spread::Everywhere));
        assert_eq!(judged(vec![node(&[]), absent()]).1, Spread::None);
    }

    #[test]
    fn what_a_silent_node_was_told_counts_and_what_lies_beyond_it_is_not_known() {
        let with = |told| judged(vec![node(&[(3, 10)]), silent(told)]).1;
        assert_eq!(with(Told::Pending), Spread::OnItsWay);
        assert_eq!(with(Told::Refused), Spread::Refused);
        assert_eq!(with(Told::Delivered), Spread::Unknown, "who lies beyond it may not have it");
        assert_eq!(with(Told::Unspecified), Spread::Unknown);
        assert_eq!(judged(vec![node(&[]), silent(Told::Unspecified)]).1, Spread::Unknown);
        let mut refused = node(&[(3, 10)]);
        refused.peers.push(v1::ErasurePeer { state: Told::Refused.into(), ..Default::default() });
        assert_eq!(judged(vec![refused]).1, Spread::Refused);
        let mut all = vec![node(&[(3, 10)])];
        settle(&mut all);
        assert_eq!(spread(&all, true), Spread::Unknown, "more nodes than were named");
    }

    proptest! {
        /// Everywhere is never said while a node lacks a mark that another has, and asking one more changes that only
        /// where it knows more.
        #[test]
        fn everywhere_is_said_only_where_all_nodes_know_the_same(
            marks in proptest::collection::vec(proptest::collection::btree_map(1u32..4, 1u64..4, 0..3), 1..5),
        ) {
            let nodes: Vec<v1::ErasurePlace> = marks.iter().map(|of_node| {
                node(&of_node.iter().map(|(field, before)| (*field, *before)).collect::<Vec<_>>())
            }).collect();
            let same = marks.iter().all(|of_node| *of_node == marks[0]);
            let (states, spread) = judged(nodes);
            prop_assert_eq!(spread == Spread::Everywhere, same && !marks[0].is_empty());
            prop_assert_eq!(states.iter().all(|at| *at != At::Pending), same);
        }
    }

    #[test]
    fn copies_count_where_the_field_may_have_been() {
        let schema = Schema::current();
        let kind = schema.kind_named("grid").unwrap();
        let home = division("220822101");
        let mut prefecture = Topology::new(division("2208"));
        prefecture.add_child(PeerId(1), division("220822"));
        let may = |topology: &Topology, field| may_have_held(kind, home, topology, [field]);
        assert!(!may(&prefecture, fields::grid::CONTACT), "it goes up to the county only");
        assert!(may(&prefecture, fields::grid::GRID_CODE) && may(&prefecture, 60_000));
        assert!(may(&Topology::new(division("2208")), fields::grid::CONTACT), "it acts for the township");
        let places = Audience::of_home(kind, home);
        let (county, other) = (division("220822"), division("220822102"));
        assert!(went_to(county, &places, home) && went_to(county, &places, division("2208")));
        assert!(!went_to(county, &places, other));
    }
}
