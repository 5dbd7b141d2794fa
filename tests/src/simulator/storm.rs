//! What goes wrong, and how it is made good: each seed draws its own weather, so that some runs have one trouble only
//! and some have all.

use std::collections::BTreeSet;
use std::sync::Arc;

use guantong_gateway::schema::Schema;
use guantong_proto::rules;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::engine::Crash;
use super::node::{Command, Node};
use super::workload;
use super::world::World;

/// Steps in which what the tree settles must have settled.
const SETTLE_ROUNDS: usize = 4_000;

/// How often things happen, in a thousand steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Steps of the storm.
    pub steps: usize,
    /// Local writes.
    pub writes: u32,
    /// Streams that end.
    pub breaks: u32,
    /// Lines that are cut for a while.
    pub cuts: u32,
    /// Crashes.
    pub crashes: u32,
    /// Restores from a backup.
    pub restores: u32,
    /// Copies that run beside the original.
    pub copies: u32,
    /// Clocks that go wrong or right.
    pub clocks: u32,
    /// Upgrades; some nodes begin with fewer fields.
    pub upgrades: u32,
    /// Nodes that come into being.
    pub arrivals: u32,
    /// Small windows and batches.
    pub narrow: bool,
}

impl Weather {
    /// Draws the weather of a run.
    pub fn draw(rng: &mut ChaCha8Rng) -> Weather {
        let mut some =
            |often: f64, most: u32| if rng.random_bool(often) { rng.random_range(1..=most) } else { 0 };
        let mut weather = Weather {
            steps: 0,
            writes: 60 + some(0.5, 100),
            breaks: some(0.6, 20),
            cuts: some(0.5, 12),
            crashes: some(0.5, 10),
            restores: some(0.4, 8),
            copies: some(0.2, 5),
            clocks: some(0.25, 8),
            upgrades: some(0.35, 12),
            arrivals: some(0.5, 12),
            narrow: false,
        };
        weather.narrow = rng.random_bool(0.3);
        weather.steps = rng.random_range(300..3_000);
        if weather.copies > 0 {
            // A parent that is put back forgets which of two copies it had found.
            weather.restores = 0;
        }
        // Trouble that someone wants to look at alone.
        if let Ok(only) = std::env::var("GUANTONG_SIM_WITHOUT") {
            for word in only.split(',') {
                match word {
                    "restores" => weather.restores = 0,
                    "copies" => weather.copies = 0,
                    "clocks" => weather.clocks = 0,
                    "upgrades" => weather.upgrades = 0,
                    "arrivals" => weather.arrivals = 0,
                    "crashes" => weather.crashes = 0,
                    "cuts" => weather.cuts = 0,
                    "breaks" => weather.breaks = 0,
                    _ => {}
                }
            }
        }
        weather
    }

    /// Equips a node.
    pub fn fit_out(&self, rng: &mut ChaCha8Rng, node: &mut Node) {
        if self.narrow {
            node.window_bytes = rng.random_range(1_000..20_000);
            node.batch_raw_bytes = rng.random_range(300..4_000);
        }
        if self.upgrades > 0 && rng.random_bool(0.5) {
            node.schema = Arc::new(older(rng));
        }
    }
}

/// The rules of an earlier program: some fields are missing.
fn older(rng: &mut ChaCha8Rng) -> Schema {
    // The roles were there from the beginning, and so was what a record cannot be without.
    let ever =
        ["steps", "lifecycle", "sealed", "deleted", "record_complete", "code", "device_id", "grid_code"];
    let optional = |f: &&rules::Field| !ever.contains(&f.name) && f.derived_from.is_none();
    let mut missing: BTreeSet<(&str, u32)> = BTreeSet::new();
    for kind in rules::KINDS {
        for field in kind.fields.iter().filter(optional) {
            if rng.random_bool(0.15) {
                missing.insert((kind.name, field.number));
            }
        }
    }
    Schema::with_fields(move |kind, field| {
        let gone = |number: u32| missing.contains(&(kind.name, number));
        !gone(field.number) && !field.derived_from.is_some_and(gone)
    })
}

impl World {
    /// The storm.
    pub fn storm(&mut self) {
        for _ in 0..self.weather.steps {
            self.storm_step();
        }
    }

    fn storm_step(&mut self) {
        self.ledger.step += 1;
        self.now_ms += match self.rng.random_range(0..400) {
            0 => self.rng.random_range(10_000..120_000),
            _ => self.rng.random_range(0..40),
        };
        let w = self.weather;
        let mut dice = self.rng.random_range(0..1_000);
        let mut chance = |share: u32| {
            let hit = dice < share;
            dice = if hit { u32::MAX } else { dice - share };
            hit
        };
        if chance(w.writes) {
            self.write();
        } else if chance(w.breaks) {
            self.break_link();
        } else if chance(w.cuts) {
            self.cut_or_mend();
        } else if chance(w.crashes) {
            self.crash_or_start();
        } else if chance(w.restores) {
            self.back_up_or_restore();
        } else if chance(w.copies) {
            self.copy_or_remove();
        } else if chance(w.clocks) {
            self.turn_clock();
        } else if chance(w.upgrades) {
            self.upgrade();
        } else if chance(w.arrivals) {
            self.arrive();
        } else {
            self.ordinary();
        }
    }

    /// What happens on a calm day: frames arrive, engines work, children dial.
    fn ordinary(&mut self) {
        match self.rng.random_range(0..12) {
            10..=11 => {
                if let Some(index) = self.some_node(|_| true) {
                    self.with_step(index, None, Node::attend_claims);
                }
            }
            0..=3 => {
                if let Some((link, direction)) = self.some_frame() {
                    self.deliver(link, direction);
                }
            }
            4..=5 => {
                if let Some(index) = self.some_node(|n| n.memory.ends.values().any(|e| e.dirty)) {
                    self.pump(index);
                }
            }
            6..=7 => {
                if let Some(index) = self.some_node(|n| !n.memory.inbox.is_empty()) {
                    let crash = match self.rng.random_range(0..1_000) {
                        n if n < self.weather.crashes => Some(Crash::BeforeCommit),
                        n if n < 2 * self.weather.crashes => Some(Crash::AfterCommit),
                        _ => None,
                    };
                    self.engine_step(index, crash);
                }
            }
            8 => {
                let index = self.rng.random_range(0..self.nodes.len());
                self.dial(index);
            }
            _ => {
                self.timeouts();
                let unnoticed = self.unnoticed();
                if !unnoticed.is_empty() {
                    let (link, index) = unnoticed[self.rng.random_range(0..unnoticed.len())];
                    self.notice(link, index);
                }
                if let Some(index) = self.some_node(|_| true) {
                    self.look_after(index, false);
                }
                self.sweep();
            }
        }
    }

    fn write(&mut self) {
        let Some(index) = self.some_node(|_| true) else { return };
        if let Some(action) = workload::action(&mut self.rng, &self.nodes[index], &self.places) {
            self.nodes[index].memory.inbox.push_back(Command::Write(action));
        }
    }

    fn break_link(&mut self) {
        let links: Vec<_> = self.wires.keys().copied().collect();
        if !links.is_empty() {
            let link = links[self.rng.random_range(0..links.len())];
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.cut();
            }
        }
    }

    fn cut_or_mend(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        self.nodes[index].line_cut = !self.nodes[index].line_cut;
        if self.nodes[index].line_cut {
            self.wires.values_mut().filter(|w| w.child == index).for_each(super::link::Wire::cut);
        }
    }

    fn crash_or_start(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        match self.nodes[index].up {
            true => self.crash(index),
            false => self.start(index),
        }
    }

    fn back_up_or_restore(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        // Two stores that were both put back before they met again have nobody to tell them so.
        let others_met =
            |(i, n): (usize, &Node)| i == index || n.absent || !n.was_put_back || n.has_met_all();
        let may_restore = self.nodes.iter().enumerate().all(others_met);
        let node = &mut self.nodes[index];
        if node.backups.is_empty() || !may_restore || self.rng.random_bool(0.5) {
            let backup = node.disk.clone();
            node.backups.push(backup);
            return;
        }
        let choice = self.rng.random_range(0..node.backups.len());
        let backup = node.backups[choice].clone();
        // A later backup is of a store that no longer is.
        node.backups.truncate(choice + 1);
        self.crash(index);
        self.ledger.trace(|| format!("node {index} is put back to revision {}", backup.revision));
        self.put_back(index, Some(backup));
        self.nodes[index].was_put_back = true;
        self.start(index);
    }

    /// Puts a node's disk back, or takes it away, and notes what is gone with it.
    pub fn put_back(&mut self, index: usize, backup: Option<super::disk::Disk>) {
        let others: Vec<&super::disk::Disk> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(i, n)| *i != index && !n.absent)
            .map(|(_, n)| &n.disk)
            .collect();
        self.ledger.put_back(&self.nodes[index].disk, backup.as_ref(), &others);
        self.note_forgotten(index, backup.as_ref());
        self.nodes[index].disk = backup.unwrap_or_default();
        let unkept = self.claims_hold(index);
        assert!(unkept.is_empty(), "{unkept:?}");
    }

    fn copy_or_remove(&mut self) {
        if let Some(index) = self.nodes.iter().position(|n| n.is_copy && !n.absent) {
            self.remove_copy(index);
            return;
        }
        // Those that others dial are not copied: a name leads to one place only.
        let Some(index) = self.some_node(|n| n.parent.is_some() && !n.is_parent()) else { return };
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

    fn turn_clock(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        let skew_ms = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(-3_600_000..3_600_000),
            1 => self.rng.random_range(-200_000..200_000),
            _ => 0,
        };
        self.ledger.trace(|| format!("node {index}: clock {skew_ms} ms ahead"));
        self.nodes[index].skew_ms = skew_ms;
    }

    fn upgrade(&mut self) {
        let index = self.rng.random_range(0..self.nodes.len());
        if self.nodes[index].absent {
            return;
        }
        self.crash(index);
        let schema = self.schema.clone();
        self.nodes[index].install(schema);
        self.start(index);
    }

    fn arrive(&mut self) {
        let absent = |n: &Node| n.absent && !n.is_copy;
        let Some(index) = self.nodes.iter().position(absent) else { return };
        self.nodes[index].absent = false;
        self.start(index);
    }

    /// Everything is made good, and left alone until nothing moves.
    ///
    /// # Errors
    /// It never comes to rest.
    pub fn heal(&mut self) -> Result<(), String> {
        self.ledger.trace(|| "the storm is over".into());
        for index in 0..self.nodes.len() {
            if self.nodes[index].is_copy && !self.nodes[index].absent {
                self.remove_copy(index);
            }
            if self.nodes[index].absent {
                continue;
            }
            self.nodes[index].line_cut = false;
            self.nodes[index].skew_ms = 0;
            if self.nodes[index].schema.fingerprint() != self.schema.fingerprint() {
                self.upgrade_now(index);
            } else if !self.nodes[index].up {
                self.start(index);
            }
        }
        for hours in 0..4 {
            self.settle().map_err(|why| format!("after {hours} hours: {why}"))?;
            self.now_ms += 3_600_000;
            (0..self.nodes.len()).for_each(|index| self.look_after(index, true));
        }
        self.settle()
    }

    fn upgrade_now(&mut self, index: usize) {
        self.crash(index);
        let schema = self.schema.clone();
        self.nodes[index].install(schema);
        self.start(index);
    }

    /// Fair rounds until nothing moves.
    ///
    /// # Errors
    /// Something still moves after so many rounds.
    pub fn settle(&mut self) -> Result<(), String> {
        self.settle_but(&[])
    }

    /// Fair rounds until nothing moves except at some nodes.
    ///
    /// # Errors
    /// Something still moves after so many rounds.
    pub fn settle_but(&mut self, except: &[usize]) -> Result<(), String> {
        for _ in 0..SETTLE_ROUNDS {
            self.round();
            if self.is_quiet(except) {
                return Ok(());
            }
        }
        let waiting: Vec<String> = self
            .nodes
            .iter()
            .filter(|n| !n.absent && !n.disk.outbox.is_empty())
            .map(|n| format!("{} owes {} rows", n.division, n.disk.outbox.len()))
            .collect();
        Err(format!("the tree does not come to rest: {waiting:?}"))
    }

    pub(super) fn round(&mut self) {
        self.ledger.step += 1;
        self.now_ms += 20;
        self.timeouts();
        for (link, index) in self.unnoticed() {
            self.notice(link, index);
        }
        self.sweep();
        for index in 0..self.nodes.len() {
            if !self.nodes[index].up {
                continue;
            }
            self.dial(index);
            self.look_after(index, false);
            self.with_step(index, None, Node::attend_claims);
            while !self.nodes[index].memory.inbox.is_empty() && self.nodes[index].up {
                self.engine_step(index, None);
            }
            self.pump(index);
        }
        let links: Vec<_> = self.wires.keys().copied().collect();
        for link in links {
            for direction in [0, 1] {
                for _ in 0..self.wires.get(&link).map_or(0, |w| w.frames[direction].len()) {
                    self.deliver(link, direction);
                }
            }
        }
    }
}
