//! Running checksums of links in the simulator: they change with records, are computed page by page like the engine's,
//! and must equal a fresh computation at any moment. It must not look at how the sums came about.

use std::collections::BTreeMap;

use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{PeerState, RecordKey, SumChange};
use guantong_gateway::ingest::sums::Sums;
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::outgoing::Route;
use guantong_gateway::proof::{self, Sum};
use guantong_gateway::record::codec;
use guantong_gateway::record::{FieldNumber, Record, RecordName};
use guantong_gateway::schema::{KindId, Schema};

use super::disk::Disk;
use super::node::Node;

/// Kept sums, by peer, home, kind and field.
pub type Kept = BTreeMap<(PeerId, Division, KindId, FieldNumber), Sum>;

impl Disk {
    /// Adds to sums.
    pub(super) fn add_sums(&mut self, changes: &[SumChange]) {
        for change in changes {
            for (field, added) in &change.sums {
                let key = (change.peer, change.home, change.kind, *field);
                let sum = self.sums.entry(key).or_default();
                *sum = *sum + *added;
                if *sum == Sum::ZERO {
                    self.sums.remove(&key);
                }
            }
        }
    }

    /// Forgets the sums of the peers for which `which` says so.
    pub(super) fn forget_sums(&mut self, which: impl Fn(PeerId) -> bool) {
        self.sums.retain(|key, _| !which(key.0));
        self.peers.values_mut().filter(|peer| which(peer.id)).for_each(|peer| peer.summed_through = 0);
    }

    /// The links of a node of this division, with what is known of their peers.
    fn links<'d>(
        &'d self,
        schema: &'d Schema,
        own: Division,
    ) -> impl Iterator<Item = (&'d PeerState, Route<'d>)> {
        let parent = self.topology(own).parent().map(|parent| parent.0);
        let linked = move |peer: &&PeerState| match peer.role {
            Role::Parent => Some(peer.id) == parent,
            Role::Child => true,
            Role::Partner => false,
        };
        let route = move |peer: &PeerState| Route { schema, own, role: peer.role, peer: peer.division };
        self.peers.values().filter(linked).map(move |peer| (peer, route(peer)))
    }

    /// Adds the next records to the sums of a link that does not hold all of them, in one transaction.
    pub(super) fn sum_page(&mut self, schema: &Schema, own: Division, limit: usize) {
        let mut unknown = self.links(schema, own).filter(|(peer, _)| peer.summed_through != RecordKey::MAX);
        let Some((peer, route)) = unknown.next() else { return };
        let (id, after) = (peer.id, peer.summed_through);
        let mut sums = Sums::default();
        let beyond: Vec<_> = self.records.range(after + 1..).take(limit).collect();
        for (_, stored) in &beyond {
            if let Ok(record) = codec::decode(stored.state.clone()) {
                sums.join(schema, (id, route.pair()), &stored.name, &record);
            }
        }
        let last = beyond.last().map_or(RecordKey::MAX, |(key, _)| **key);
        let through = if beyond.len() < limit { RecordKey::MAX } else { last };
        drop(unknown);
        self.revision += 1;
        self.add_sums(&sums.into_changes());
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.summed_through = through;
        }
    }
}

impl Node {
    /// What the engine does between everything else while sums are not known.
    pub(super) fn sum_next(&mut self, limit: usize) {
        if self.disk_full {
            return;
        }
        let schema = self.schema.clone();
        self.disk.sum_page(&schema, self.division, limit);
        let revision = self.disk.revision;
        self.memory.ends.values_mut().for_each(|end| end.session.set_revision(revision));
    }
}

/// The checksums of every link are those of its records, as far as they hold them.
pub(super) fn check(node: &Node, records: &BTreeMap<RecordName, Record>, wrong: &mut Vec<String>) {
    let schema = &node.schema;
    for (peer, route) in node.disk.links(schema, node.division) {
        let mut fresh = Kept::new();
        let held =
            |name: &&RecordName| node.disk.names.get(*name).is_some_and(|key| *key <= peer.summed_through);
        for (name, record) in records.iter().filter(|(name, _)| held(name)) {
            for (field, sum) in proof::shared(schema, route.pair(), name, record) {
                let all = fresh.entry((peer.id, name.home, name.kind, field)).or_default();
                *all = *all + sum;
            }
        }
        let kept: Kept = node
            .disk
            .sums
            .iter()
            .filter(|(key, _)| key.0 == peer.id)
            .map(|(key, sum)| (*key, *sum))
            .collect();
        if kept != fresh {
            let differ = fresh.iter().filter(|(key, sum)| kept.get(key) != Some(sum)).map(|(key, _)| key);
            let differ: Vec<_> = differ.chain(kept.keys().filter(|key| !fresh.contains_key(key))).collect();
            wrong.push(format!(
                "{}: the checksums of the link to {} are not a recount of its records: {differ:?}",
                node.division, peer.division
            ));
        }
    }
}
