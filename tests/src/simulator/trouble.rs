//! What can go wrong, one thing at a time: streams end, lines are cut, processes stop, disks are put back or full,
//! stores are copied, clocks turn, programs change, certificates run out.
//!
//! It must never decide how often: that is the weather's.

use guantong_gateway::session::Side;
use rand::Rng;

use super::disk::Disk;
use super::link::Wire;
use super::node::{DRIFT_MS, Node};
use super::world::World;

const DAY_MS: i64 = 86_400_000;

impl World {
    pub(super) fn break_link(&mut self) {
        let links: Vec<_> = self.wires.keys().copied().collect();
        if !links.is_empty() {
            let link = links[self.rng.random_range(0..links.len())];
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.cut();
            }
        }
    }

    pub(super) fn cut_or_mend(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        self.nodes[index].line_cut = !self.nodes[index].line_cut;
        if self.nodes[index].line_cut {
            self.wires.values_mut().filter(|w| w.child == index).for_each(Wire::cut);
        }
    }

    pub(super) fn crash_or_start(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        match self.nodes[index].up {
            true => self.crash(index),
            false => self.start(index),
        }
    }

    pub(super) fn back_up_or_restore(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        if self.nodes[index].backups.is_empty() || !self.may_restore() || self.rng.random_bool(0.5) {
            return self.back_up(index);
        }
        let choice = self.rng.random_range(0..self.nodes[index].backups.len());
        self.restore(index, choice);
    }

    /// Two stores that were both put back before they met again have nobody to tell them so, and one that is put back
    /// twice before it is told has lost two lives that wrote as the same.
    pub(super) fn may_restore(&self) -> bool {
        let has_met = |n: &Node| n.absent || !n.was_put_back || n.has_met_all();
        self.nodes.iter().all(has_met) && self.all_have_met_by_bundle()
    }

    pub(super) fn back_up(&mut self, index: usize) {
        let backup = self.nodes[index].disk.clone();
        self.nodes[index].backups.push(backup);
    }

    /// Puts a node's store back to one of its backups.
    pub(super) fn restore(&mut self, index: usize, choice: usize) {
        let node = &mut self.nodes[index];
        let backup = node.backups[choice].clone();
        // A later backup is of a store that no longer is.
        node.backups.truncate(choice + 1);
        self.crash(index);
        self.ledger.trace(|| format!("node {index} is put back to revision {}", backup.revision));
        self.put_back(index, Some(backup));
        // To whom nothing comes down, nobody tells: there the operator must say so.
        self.nodes[index].disk.put_back = !self.deaf_over(index).is_empty();
        self.nodes[index].was_put_back = true;
        self.note_put_back(index);
        self.start(index);
    }

    /// Puts a node's disk back, or takes it away, and notes what is gone with it.
    pub fn put_back(&mut self, index: usize, backup: Option<Disk>) {
        let others: Vec<&Disk> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(i, n)| *i != index && !n.absent)
            .map(|(_, n)| &n.disk)
            .collect();
        self.ledger.put_back(&self.nodes[index].disk, backup.as_ref(), &others);
        // With the disk goes what it knew to be refused, which claims have counted.
        let disk = &self.nodes[index].disk;
        for (_, key, field) in disk.quarantine.keys() {
            let Some(stored) = disk.records.get(key) else { continue };
            self.ledger.let_go.insert((index, stored.name.clone(), *field), self.ledger.step);
        }
        self.note_forgotten(index, backup.as_ref());
        self.nodes[index].disk = backup.unwrap_or_default();
        let unkept = self.claims_hold(index);
        assert!(unkept.is_empty(), "{unkept:?}");
    }

    pub(super) fn copy_or_remove(&mut self) {
        if let Some(index) = self.nodes.iter().position(|n| n.is_copy && !n.absent) {
            self.remove_copy(index);
            return;
        }
        // Those that others dial are not copied: a name leads to one place only.
        let Some(index) = self.some_node(|n| n.parent.is_some() && !n.is_parent() && n.lines.is_empty())
        else {
            return;
        };
        self.copy(index);
    }

    /// Starts a copy of a node, and gives its number.
    pub fn copy(&mut self, index: usize) -> usize {
        let original = &self.nodes[index];
        let mut copy = Node::new(
            original.division,
            original.parent,
            original.schema.clone(),
            original.divisions.clone(),
        );
        copy.disk = original.disk.clone();
        copy.is_copy = true;
        copy.absent = false;
        self.ledger.trace(|| format!("node {index} is copied"));
        self.ledger.copied.insert(index);
        self.nodes.push(copy);
        self.start(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Finds and stops a copy.
    pub fn remove_copy(&mut self, index: usize) {
        self.crash(index);
        self.put_back(index, None);
        self.nodes[index].absent = true;
    }

    pub(super) fn turn_clock(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        let by_days = self.rng.random_range(0..100) < self.weather.clocks_by_days;
        let skew_ms = match self.rng.random_range(0..4) {
            0 if by_days => self.rng.random_range(-10 * DAY_MS..10 * DAY_MS),
            0 => self.rng.random_range(-3_600_000..3_600_000),
            1 => self.rng.random_range(-200_000..200_000),
            _ => 0,
        };
        self.ledger.trace(|| format!("node {index}: clock {skew_ms} ms ahead"));
        self.nodes[index].skew_ms = skew_ms;
    }

    pub(super) fn upgrade(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        self.crash(index);
        let schema = self.schema.clone();
        self.nodes[index].install(schema);
        self.start(index);
    }

    pub(super) fn arrive(&mut self) {
        let absent = |n: &Node| n.absent && !n.is_copy;
        let Some(index) = self.nodes.iter().position(absent) else { return };
        self.nodes[index].absent = false;
        self.start(index);
    }

    /// No transaction goes in, until somebody makes room.
    pub(super) fn fill_or_clear_disk(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        let node = &mut self.nodes[index];
        node.disk_full = !node.disk_full && !node.absent;
        self.ledger.trace(|| format!("node {index}: disk full: {}", self.nodes[index].disk_full));
    }

    /// A frame under way is altered. Nobody reads it: TLS ends the stream there.
    pub(super) fn flip_bits(&mut self) {
        let Some((link, direction)) = self.some_frame() else { return };
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let at = self.rng.random_range(0..wire.frames[direction].len());
        self.ledger.trace(|| format!("link {link}: frame {at} is altered"));
        wire.spoil(direction, at);
    }

    /// Certificates that ran out end their links; those that soon will are renewed over them.
    pub(super) fn attend_certificates(&mut self) {
        if self.weather.certificate_ms == 0 {
            return;
        }
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let linked = node.memory.ends.values().any(|e| e.current && e.session.side() == Side::Child);
            let (now_ms, root) = (node.now_ms(self.now_ms), node.parent.is_none());
            if node.up && (linked || root) && node.certificate.is_some_and(|c| c.is_due(now_ms)) {
                self.certify(index);
            }
        }
        let nodes = &self.nodes;
        for wire in self.wires.values_mut().filter(|w| !w.broken) {
            if !trusts(&nodes[wire.child], &nodes[wire.parent], self.now_ms) {
                wire.cut();
            }
        }
    }

    /// Gives a node a new certificate, by the clock of its issuer.
    pub(super) fn certify(&mut self, index: usize) {
        let issuer = self.nodes[index].parent.and_then(|p| self.node_of(p)).unwrap_or(index);
        let now_ms = self.nodes[issuer].now_ms(self.now_ms);
        let lasts_ms = self.weather.certificate_ms;
        // Who has no line is given certificates by hand.
        let lasts_ms = if self.nodes[index].lines.is_empty() { lasts_ms } else { 0 };
        self.nodes[index].certificate = (lasts_ms > 0).then(|| Certificate::new(now_ms, lasts_ms));
        self.ledger.trace(|| format!("node {index} is certified: {:?}", self.nodes[index].certificate));
    }

    /// A node whose certificate ran out comes to the door of its parent, who lets it in for a new one, for a while;
    /// later somebody has to invite it again.
    pub(super) fn renew_at_the_door(&mut self, index: usize, parent: usize) {
        let Some(certificate) = self.nodes[index].certificate else { return };
        let now_ms = self.nodes[parent].now_ms(self.now_ms);
        let parent_fits = self.nodes[parent].shows_valid(self.nodes[index].now_ms(self.now_ms));
        let invited = self.rng.random_bool(0.02);
        if parent_fits && (certificate.is_in_grace(now_ms) || invited) {
            self.certify(index);
        }
    }
}

/// Whether each of two nodes takes the other's certificate, by its own clock.
pub(super) fn trusts(child: &Node, parent: &Node, world_ms: u64) -> bool {
    child.shows_valid(parent.now_ms(world_ms)) && parent.shows_valid(child.now_ms(world_ms))
}

/// When a node's certificate is good, Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Certificate {
    from_ms: u64,
    to_ms: u64,
}

impl Certificate {
    /// Made now; good from a little earlier.
    fn new(now_ms: u64, lasts_ms: u64) -> Certificate {
        Certificate { from_ms: now_ms - DRIFT_MS, to_ms: now_ms + lasts_ms }
    }

    fn is_valid(self, now_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&now_ms)
    }

    /// Two thirds of its life are over.
    fn is_due(self, now_ms: u64) -> bool {
        let lasts_ms = self.to_ms - self.from_ms - DRIFT_MS;
        now_ms >= self.to_ms - lasts_ms / 3
    }

    /// It ran out, not long ago.
    fn is_in_grace(self, now_ms: u64) -> bool {
        let lasts_ms = self.to_ms - self.from_ms - DRIFT_MS;
        (self.to_ms..self.to_ms + lasts_ms).contains(&now_ms)
    }
}

impl Node {
    fn shows_valid(&self, now_ms: u64) -> bool {
        self.certificate.is_none_or(|c| c.is_valid(now_ms))
    }
}
