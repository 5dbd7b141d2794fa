//! Whom a node exchanges with, and so who is owed what.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::changes::RecordKey;
use crate::division::Division;
use crate::proof::Pair;
use crate::record::audience::Audience;
use crate::schema::KindId;

/// A peer's number in one store: a parent, a child, a partner's subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub i64);

/// What a peer is to the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The node dials it.
    Parent,
    /// It dials the node.
    Child,
    /// A partner's subscription: it is owed records and sends none.
    Partner,
}

/// Which records a subscription is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Records that concern this division or one inside it.
    pub scope: Division,
    /// Of these kinds; empty: of all.
    pub kinds: Vec<KindId>,
}

impl Interest {
    /// Whether a record of this kind and audience is one of them.
    pub fn meets(&self, kind: KindId, audience: &Audience) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind)) && audience.concerns(self.scope)
    }
}

/// A node's own division and its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    own: Division,
    parent: Option<(PeerId, Division)>,
    children: BTreeMap<Division, PeerId>,
    subscriptions: Vec<(PeerId, Interest)>,
    /// Up to which record the checksums of a link hold them; none: none.
    summed: BTreeMap<PeerId, RecordKey>,
}

impl Topology {
    /// A node without peers.
    pub fn new(own: Division) -> Topology {
        Topology {
            own,
            parent: None,
            children: BTreeMap::new(),
            subscriptions: Vec::new(),
            summed: BTreeMap::new(),
        }
    }

    /// The node's own division.
    pub fn own(&self) -> Division {
        self.own
    }

    /// The parent, where one is configured.
    pub fn parent(&self) -> Option<(PeerId, Division)> {
        self.parent
    }

    /// Every child that was ever welcomed.
    pub fn children(&self) -> impl Iterator<Item = (PeerId, Division)> + '_ {
        self.children.iter().map(|(division, id)| (*id, *division))
    }

    /// Sets or replaces the parent.
    pub fn set_parent(&mut self, id: PeerId, division: Division) {
        self.parent = Some((id, division));
    }

    /// Adds a child.
    pub fn add_child(&mut self, id: PeerId, division: Division) {
        self.children.insert(division, id);
    }

    /// Notes up to which record the checksums of a link hold them.
    pub fn set_summed(&mut self, id: PeerId, through: RecordKey) {
        self.summed.insert(id, through);
    }

    /// Adds a subscription.
    pub fn add_subscription(&mut self, id: PeerId, interest: Interest) {
        self.subscriptions.push((id, interest));
    }

    /// What a subscription is owed; `None`: there is none of this number.
    pub fn interest(&self, id: PeerId) -> Option<&Interest> {
        self.subscriptions.iter().find(|s| s.0 == id).map(|s| &s.1)
    }

    /// Role and division of a peer; of a subscription its scope.
    pub fn peer(&self, id: PeerId) -> Option<(Role, Division)> {
        match self.parent {
            Some((parent, division)) if parent == id => Some((Role::Parent, division)),
            _ => {
                let child = self.children().find(|c| c.0 == id).map(|c| (Role::Child, c.1));
                child.or_else(|| self.interest(id).map(|interest| (Role::Partner, interest.scope)))
            }
        }
    }

    /// The child whose scope holds `division`, the highest where several do.
    pub fn child_over(&self, division: Division) -> Option<(PeerId, Division)> {
        let over = division.enclosing().filter_map(|d| self.children.get(&d).map(|id| (*id, d)));
        over.last()
    }

    /// Whether the node acts for `division`: it lies in the node's scope and in no child's. Villages are never acted for.
    pub fn acts_for(&self, division: Division) -> bool {
        self.own.contains(division) && division == division.home() && self.child_over(division).is_none()
    }

    /// The subscriptions that get a record of this kind and audience.
    pub fn subscribers(&self, kind: KindId, audience: &Audience) -> impl Iterator<Item = PeerId> {
        self.subscriptions.iter().filter(move |s| s.1.meets(kind, audience)).map(|s| s.0)
    }

    /// The peers that get a record of this kind and audience.
    pub fn concerned(&self, kind: KindId, audience: &Audience) -> impl Iterator<Item = PeerId> + use<> {
        let mut peers: Vec<PeerId> = Vec::with_capacity(2);
        peers.extend(self.parent.map(|p| p.0));
        self.each_child_of(audience, |id, _| peers.push(id));
        peers.extend(self.subscribers(kind, audience));
        peers.sort_unstable();
        peers.dedup();
        peers.into_iter()
    }

    /// The links whose checksums hold the record of this number, if it is of this audience: of others it is computed
    /// later.
    pub fn summed_links(&self, audience: &Audience, key: RecordKey) -> SmallVec<[(PeerId, Pair); 4]> {
        let mut links: SmallVec<[(PeerId, Pair); 4]> = SmallVec::new();
        links.extend(self.parent.map(|(id, parent)| (id, Pair { child: self.own, parent })));
        self.each_child_of(audience, |id, child| links.push((id, Pair { child, parent: self.own })));
        links.retain(|(id, _)| self.summed.get(id).is_some_and(|through| key <= *through));
        links.sort_unstable_by_key(|link| link.0);
        links.dedup_by_key(|link| link.0);
        links
    }

    /// The children that a record of this audience goes to; one may come several times.
    fn each_child_of(&self, audience: &Audience, mut each: impl FnMut(PeerId, Division)) {
        for division in audience.divisions() {
            for division in division.enclosing() {
                if let Some(id) = self.children.get(&division) {
                    each(*id, division);
                }
            }
        }
        if audience.is_subtree() {
            let home = audience.divisions()[0];
            let below = Division::from_code(home.last_code()).unwrap_or(home);
            self.children.range(home..=below).for_each(|(division, id)| each(*id, *division));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    #[test]
    fn a_subscription_gets_what_concerns_its_scope_of_its_kinds() {
        use crate::record::Record;
        use crate::schema::Schema;
        let schema = Schema::current();
        let kind = |name| schema.kind_named(name).unwrap();
        let mut topology = Topology::new(division("2208"));
        let kinds = vec![kind("case").id, kind("division").id];
        topology.add_subscription(PeerId(7), Interest { scope: division("220822"), kinds });
        topology.add_subscription(PeerId(8), Interest { scope: division("2208"), kinds: vec![] });
        let concerned = |name, home| -> Vec<i64> {
            let audience = Audience::of(kind(name), division(home), &Record::default());
            topology.concerned(kind(name).id, &audience).map(|p| p.0).collect()
        };
        assert_eq!(concerned("case", "220822101"), [7, 8]);
        assert_eq!(concerned("case", "220821101"), [8]);
        assert_eq!(concerned("grid", "220822101"), [8], "another kind");
        assert_eq!(concerned("division", "22"), [7, 8], "what everyone below gets");
        assert_eq!(topology.peer(PeerId(7)), Some((Role::Partner, division("220822"))));
    }

    #[test]
    fn a_node_acts_for_what_no_child_was_welcomed_for() {
        let mut topology = Topology::new(division("220822"));
        assert!(topology.acts_for(division("220822101")));
        topology.add_child(PeerId(1), division("220822101"));
        assert!(!topology.acts_for(division("220822101")));
        assert!(topology.acts_for(division("220822102")));
        assert!(topology.acts_for(division("220822")));
        assert!(!topology.acts_for(division("220822102201")), "villages are never acted for");
        assert!(!topology.acts_for(division("2208")));
    }
}
