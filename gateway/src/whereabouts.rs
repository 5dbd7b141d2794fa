//! Where a record is: what is asked along the tree, whom, by whom, and what the answers come to.
//!
//! Plain functions of what nodes say. Nothing here asks anybody, and no value of a record gets into an answer: fields
//! are named, and their digests go over one link only, between two ends that both may hold them.

use std::collections::BTreeSet;

use guantong_proto::v1;

use crate::calendar::timestamp;
use crate::division::Division;
use crate::ingest::topology::{Role, Topology};
use crate::proof::{self, Pair};
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record, RecordName};
use crate::schema::{Kind, Schema, contract_tier, effective_tier};

/// Children that one question is passed on to.
const CHILDREN_MAX: usize = 64;

/// Who asks: the peer that a question came from; `None`: somebody at this node.
pub type Asker = Option<(Role, Division)>;

/// Whom a question about a record is passed on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Onward {
    /// The parent.
    pub parent: Option<Division>,
    /// Children that the record was born in or handed to.
    pub children: Vec<Division>,
}

impl Onward {
    /// All of them, the parent first.
    pub fn peers(&self) -> impl Iterator<Item = (Role, Division)> {
        let parent = self.parent.map(|division| (Role::Parent, division));
        parent.into_iter().chain(self.children.iter().map(|division| (Role::Child, *division)))
    }
}

/// The divisions that a record concerns, as far as this node knows.
pub fn places(kind: &Kind, name: &RecordName, held: Option<&Record>) -> Audience {
    match held {
        Some(record) => Audience::of(kind, name.home, record),
        None => Audience::of_home(kind, name.home),
    }
}

/// Whether a question about a record is answered: a child asks about what concerns it. A parent has whatever its child
/// has, so that it learns nothing that it does not know.
pub fn may_ask(asker: Asker, places: &Audience) -> bool {
    match asker {
        Some((Role::Child, child)) => places.concerns(child),
        Some((Role::Parent, _)) | None => true,
        Some((Role::Partner, _)) => false,
    }
}

/// Whom a question is passed on to: what came from above goes down only, so that no question comes back.
pub fn onward(topology: &Topology, asker: Asker, places: &Audience) -> Onward {
    let asked = |role, division| asker == Some((role, division));
    let from_above = matches!(asker, Some((Role::Parent, _)));
    let parent = topology.parent().map(|parent| parent.1).filter(|_| !from_above);
    let children = topology.children().map(|child| child.1);
    let children = children.filter(|child| places.has_at_or_below(*child) && !asked(Role::Child, *child));
    Onward { parent, children: children.take(CHILDREN_MAX).collect() }
}

/// What of a record crosses up on a link, for the other end to compare.
pub fn shared_form(schema: &Schema, pair: Pair, name: &RecordName, held: Option<&Record>) -> v1::SharedForm {
    let sums = held.map(|record| proof::shared(schema, pair, name, record)).unwrap_or_default();
    let digest = |(field, sum): (FieldNumber, proof::Sum)| v1::FieldDigest { field, digest: sum.0 as u64 };
    v1::SharedForm {
        known_fields: schema.kind(name.kind).fields().map(|field| field.number).collect(),
        digests: sums.into_iter().map(digest).collect(),
    }
}

/// The latest write among some fields.
pub fn version(record: &Record, of: impl Fn(FieldNumber) -> bool) -> Option<v1::RecordVersion> {
    let registers = record.fields().iter().filter(|(field, _)| of(*field));
    let live = registers.flat_map(|(_, register)| register.live());
    let (latest, _) = live.max_by_key(|(entry, _)| (entry.stamp, entry.writer))?;
    Some(v1::RecordVersion {
        write_time: Some(timestamp(latest.stamp.ms())),
        writer_division: latest.writer.division.to_string(),
    })
}

/// The fields of a record that go no further up than the lower end of a link, and the highest tier that may hold each. A
/// field that this node does not know has neither name nor tier yet: its number stands for it.
pub fn held_back(
    kind: &Kind,
    name: &RecordName,
    held: &Record,
    shared: &v1::SharedForm,
) -> Vec<v1::HeldBackField> {
    let crosses = |field| shared.digests.binary_search_by_key(&field, |digest| digest.field).is_ok();
    let says_something = |register: &crate::record::Register| register.live().any(|(_, v)| !v.is_empty());
    let kept = held.fields().iter().filter(|(field, register)| !crosses(*field) && says_something(register));
    let field = |(number, _): &(FieldNumber, _)| match kind.field(*number) {
        Some(field) => v1::HeldBackField {
            field_name: field.name.into(),
            release: contract_tier(effective_tier(field.release, name.home)).into(),
        },
        None => v1::HeldBackField { field_name: number.to_string(), ..v1::HeldBackField::default() },
    };
    kept.map(field).collect()
}

/// The fields in which two ends of a link differ, by name; only what both know counts.
pub fn differing(kind: &Kind, one: &v1::SharedForm, other: &v1::SharedForm) -> Vec<String> {
    let known = |form: &v1::SharedForm| form.known_fields.iter().copied().collect::<BTreeSet<_>>();
    let digests = |form: &v1::SharedForm| form.digests.clone();
    let (ones, others) = (digests(one), digests(other));
    let digest = |of: &[v1::FieldDigest], field| of.iter().find(|d| d.field == field).map(|d| d.digest);
    let both = known(one).intersection(&known(other)).copied().collect::<Vec<_>>();
    let differs = both.into_iter().filter(|field| digest(&ones, *field) != digest(&others, *field));
    let name = |number| kind.field(number).map_or_else(|| number.to_string(), |field| field.name.to_owned());
    differs.map(name).collect()
}

/// How a record stands on a link whose ends have both answered.
pub fn link_state(differing: &[String], ends: [&v1::RecordLinkEnd; 2]) -> v1::RecordLinkState {
    if !differing.is_empty() {
        return v1::RecordLinkState::Differs;
    }
    let keeps_back = ends.iter().any(|end| !end.held_back.is_empty());
    let nothing_crosses = ends.iter().all(|end| end.version.is_none());
    if keeps_back && nothing_crosses { v1::RecordLinkState::HeldBack } else { v1::RecordLinkState::Same }
}

fn ends(link: &v1::RecordLink) -> impl Iterator<Item = &v1::RecordLinkEnd> {
    link.child.iter().chain(&link.parent)
}

/// Whether a difference has no reason that anybody gave: most often the ends were asked at different moments.
pub fn is_unexplained(link: &v1::RecordLink) -> bool {
    let explained = ends(link).any(|end| end.waiting_since_time.is_some() || !end.refused.is_empty());
    link.state() == v1::RecordLinkState::Differs && !explained
}

/// What the answers come to.
pub fn judge(places: &[v1::RecordPlace], links: &[v1::RecordLink]) -> v1::LocateState {
    use v1::RecordLinkState::{Differs, HeldBack, Same};
    let settled = |link: &v1::RecordLink| matches!(link.state(), Same | HeldBack);
    if links.iter().any(|link| ends(link).any(|end| !end.refused.is_empty())) {
        return v1::LocateState::Refused;
    }
    let waits = |link: &v1::RecordLink| ends(link).any(|end| end.waiting_since_time.is_some());
    if links.iter().any(|link| link.state() == Differs || !settled(link) && waits(link)) {
        return v1::LocateState::OnItsWay;
    }
    let answered = |place: &v1::RecordPlace| place.answer() == v1::NodeAnswer::Given;
    if links.iter().all(settled) && places.iter().all(answered) {
        return v1::LocateState::Everywhere;
    }
    v1::LocateState::Unknown
}

/// What of an answer is believed: a child speaks of nodes in its scope, a parent of all others.
pub fn is_credible(own: Division, role: Role, peer: Division, node: &str) -> bool {
    let Ok(node) = Division::parse(node) else { return false };
    match role {
        Role::Child => peer.contains(node),
        Role::Parent => !own.contains(node),
        Role::Partner => false,
    }
}

/// Adds what else is known of a node: more links, or that it could not say all.
pub fn join_node(node: &mut v1::NodeEquality, more: v1::NodeEquality) {
    if more.answer() != v1::NodeAnswer::Given {
        (node.answer, node.reason, node.since_time) = (more.answer, more.reason, more.since_time);
    }
    node.links.extend(more.links);
}

pub mod erased;
#[cfg(test)]
mod tests;
