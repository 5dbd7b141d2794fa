//! Whom a node exchanges with, and so who is owed what.

use std::collections::BTreeMap;

use crate::division::Division;
use crate::record::audience::Audience;

/// A peer's number in one store: a parent, a child, later a partner's subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub i64);

/// What a peer is to the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The node dials it.
    Parent,
    /// It dials the node.
    Child,
}

/// A node's own division and its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    own: Division,
    parent: Option<(PeerId, Division)>,
    children: BTreeMap<Division, PeerId>,
}

impl Topology {
    /// A node without peers.
    pub fn new(own: Division) -> Topology {
        Topology { own, parent: None, children: BTreeMap::new() }
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

    /// Role and division of a peer.
    pub fn peer(&self, id: PeerId) -> Option<(Role, Division)> {
        match self.parent {
            Some((parent, division)) if parent == id => Some((Role::Parent, division)),
            _ => self.children().find(|c| c.0 == id).map(|c| (Role::Child, c.1)),
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

    /// The peers that get a record of this audience.
    pub fn concerned(&self, audience: &Audience) -> impl Iterator<Item = PeerId> + use<> {
        let mut peers: Vec<PeerId> = Vec::with_capacity(2);
        peers.extend(self.parent.map(|p| p.0));
        for division in audience.divisions() {
            peers.extend(division.enclosing().filter_map(|d| self.children.get(&d)));
        }
        if audience.is_subtree() {
            let home = audience.divisions()[0];
            let below = Division::from_code(home.last_code()).unwrap_or(home);
            peers.extend(self.children.range(home..=below).map(|c| c.1));
        }
        peers.sort_unstable();
        peers.dedup();
        peers.into_iter()
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
