//! Where a record is: who is asked, and what answers come to.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use guantong_proto::rules::fields;
use prost::Message;

use super::*;
use crate::ingest::topology::PeerId;
use crate::record::Register;
use crate::stamp::Stamp;
use crate::stamp::Writer;

const PAIR: (&str, &str) = ("220822101", "220822");

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn pair((child, parent): (&str, &str)) -> Pair {
    Pair { child: division(child), parent: division(parent) }
}

fn case(schema: &Schema) -> RecordName {
    RecordName::new(division("220822101"), schema.kind_named("case").unwrap().id, "1").unwrap()
}

fn register(case: &v1::Case, writer: &str, ms: u64) -> Register {
    let writer = Writer { division: division(writer), id: 1 };
    Register::single(writer, Stamp::from_ms(ms), Bytes::from(case.encode_to_vec()))
}

/// A case with a title, a party, and a field of a newer program.
fn held(title: &str) -> Record {
    let party = v1::Party { name: "张甲".into(), ..v1::Party::default() };
    let title = v1::Case { title: Some(title.into()), ..v1::Case::default() };
    let parties = v1::Case { parties: vec![party], ..v1::Case::default() };
    let mut fields = vec![
        (fields::case::TITLE, register(&title, "220822101", 1_000)),
        (fields::case::PARTIES, register(&parties, "220822", 2_000)),
        (60_000, register(&title, "220822101", 3_000)),
    ];
    fields.sort_by_key(|field| field.0);
    Record::from_sorted(fields, Vec::new())
}

fn place(held: bool) -> v1::RecordPlace {
    v1::RecordPlace { held, answer: v1::NodeAnswer::Given.into(), ..v1::RecordPlace::default() }
}

fn link(state: v1::RecordLinkState, child: v1::RecordLinkEnd) -> v1::RecordLink {
    v1::RecordLink { state: state.into(), child: Some(child), ..v1::RecordLink::default() }
}

fn waiting() -> v1::RecordLinkEnd {
    v1::RecordLinkEnd { waiting_since_time: Some(timestamp(5_000)), ..Default::default() }
}

#[test]
fn a_question_goes_up_and_to_whom_the_record_was_handed_and_never_back() {
    let schema = Schema::current();
    let name = case(&schema);
    let mut topology = Topology::new(division("220822"));
    topology.set_parent(PeerId(1), division("2208"));
    topology.add_child(PeerId(2), division("220822101"));
    topology.add_child(PeerId(3), division("220822102"));
    let audience = places(schema.kind(name.kind), &name, None);
    let asked = |asker| onward(&topology, asker, &audience).peers().collect::<Vec<_>>();
    let (parent, child) = ((Role::Parent, division("2208")), (Role::Child, division("220822101")));
    assert_eq!(asked(None), [parent, child]);
    assert_eq!(asked(Some(child)), [parent]);
    assert_eq!(asked(Some(parent)), [child], "what came from above goes down only");
    assert_eq!(asked(Some((Role::Child, division("220822102")))), [parent, child]);
}

#[test]
fn a_child_asks_about_what_concerns_it_only() {
    let schema = Schema::current();
    let name = case(&schema);
    let audience = places(schema.kind(name.kind), &name, None);
    let may = |role, of| may_ask(Some((role, division(of))), &audience);
    assert!(may(Role::Child, "220822101") && may(Role::Child, "220822"));
    assert!(!may(Role::Child, "220822102") && !may(Role::Partner, "220822101"));
    assert!(may(Role::Parent, "2208") && may_ask(None, &audience));
}

#[test]
fn nobody_is_believed_about_nodes_that_are_not_beyond_it() {
    let own = division("220822");
    let credible = |role, peer, node| is_credible(own, role, division(peer), node);
    assert!(credible(Role::Child, "220822101", "220822101000"));
    assert!(!credible(Role::Child, "220822101", "220822102000"));
    assert!(!credible(Role::Child, "220822101", "220822000000"));
    assert!(credible(Role::Parent, "2208", "220800000000") && credible(Role::Parent, "2208", "220821101000"));
    assert!(!credible(Role::Parent, "2208", "220822101000"));
    assert!(!credible(Role::Parent, "2208", "not a division"));
}

#[test]
fn what_crosses_is_compared_and_what_does_not_is_named_with_its_tier() {
    let schema = Schema::current();
    let name = case(&schema);
    let kind = schema.kind(name.kind);
    let form = |record: &Record| shared_form(&schema, pair(PAIR), &name, Some(record));
    let (one, other) = (held("one"), held("other"));
    assert_eq!(differing(kind, &form(&one), &form(&one)), [""; 0]);
    assert_eq!(differing(kind, &form(&one), &form(&other)), ["title"]);
    let nothing = shared_form(&schema, pair(PAIR), &name, None);
    assert_eq!(differing(kind, &form(&one), &nothing), ["title"]);
    let mut older = form(&other);
    older.known_fields.retain(|field| *field != fields::case::TITLE);
    assert_eq!(differing(kind, &form(&one), &older), [""; 0], "only what both know counts");

    let back = held_back(kind, &name, &one, &form(&one));
    let back: Vec<_> = back.iter().map(|field| (field.field_name.as_str(), field.release())).collect();
    assert_eq!(back, [("parties", v1::Tier::Township), ("60000", v1::Tier::Unspecified)]);

    let whole = version(&one, |_| true).unwrap();
    assert_eq!((whole.write_time.unwrap().seconds, &*whole.writer_division), (3, "220822101000"));
    let shared = version(&one, |field| field == fields::case::TITLE).unwrap();
    assert_eq!(shared.write_time.unwrap().seconds, 1);
    assert_eq!(version(&one, |_| false), None);
}

#[test]
fn a_link_that_nothing_may_cross_is_as_it_should_be() {
    let kept = v1::RecordLinkEnd { held_back: vec![Default::default()], ..Default::default() };
    let crossing = v1::RecordLinkEnd { version: Some(Default::default()), ..kept.clone() };
    let none = v1::RecordLinkEnd::default();
    let state = |differing: &[String], child: &v1::RecordLinkEnd| link_state(differing, [child, &none]);
    assert_eq!(state(&[], &kept), v1::RecordLinkState::HeldBack);
    assert_eq!(state(&[], &crossing), v1::RecordLinkState::Same);
    assert_eq!(state(&["title".into()], &crossing), v1::RecordLinkState::Differs);
}

#[test]
fn the_verdict_says_the_worst_that_is_known() {
    use v1::RecordLinkState::{Differs, HeldBack, Same, Unknown};
    let silent = v1::RecordPlace { answer: v1::NodeAnswer::Silent.into(), ..v1::RecordPlace::default() };
    let refused = v1::RecordLinkEnd { refused: vec![Default::default()], ..Default::default() };
    let none = v1::RecordLinkEnd::default;
    let verdict = |places: &[v1::RecordPlace], links: &[v1::RecordLink]| judge(places, links);
    let same = link(Same, waiting());
    assert_eq!(verdict(&[place(true)], &[same.clone(), link(HeldBack, none())]), v1::LocateState::Everywhere);
    assert_eq!(verdict(&[place(true), silent.clone()], &[same]), v1::LocateState::Unknown);
    assert_eq!(verdict(&[place(true), silent.clone()], &[link(Unknown, none())]), v1::LocateState::Unknown);
    assert_eq!(verdict(&[place(true), silent], &[link(Unknown, waiting())]), v1::LocateState::OnItsWay);
    assert_eq!(verdict(&[place(true)], &[link(Differs, none())]), v1::LocateState::OnItsWay);
    assert_eq!(verdict(&[], &[link(Differs, waiting()), link(Same, refused)]), v1::LocateState::Refused);
    assert!(is_unexplained(&link(Differs, none())));
    assert!(!is_unexplained(&link(Differs, waiting())) && !is_unexplained(&link(Same, none())));
}

#[test]
fn a_node_that_did_not_say_all_has_not_answered() {
    let given = v1::NodeEquality {
        answer: v1::NodeAnswer::Given.into(),
        links: vec![Default::default()],
        ..Default::default()
    };
    let mut node = given.clone();
    join_node(&mut node, given.clone());
    assert_eq!((node.links.len(), node.answer()), (2, v1::NodeAnswer::Given));
    let lost = v1::NodeEquality {
        answer: v1::NodeAnswer::NotLinked.into(),
        reason: "x".into(),
        ..Default::default()
    };
    join_node(&mut node, lost.clone());
    assert_eq!((node.links.len(), node.answer(), &*node.reason), (2, v1::NodeAnswer::NotLinked, "x"));
    let mut node = lost;
    join_node(&mut node, given);
    assert_eq!(
        (node.links.len(), node.answer()),
        (1, v1::NodeAnswer::NotLinked),
        "in whichever order it comes"
    );
}
