//! The storm, and how everything is made good after it: what happens in which step, by the weather of the seed.

use rand::Rng;

use super::engine::Crash;
use super::node::{Command, Node};
use super::workload;
use super::world::World;

/// Steps in which what the tree settles must have settled.
const SETTLE_ROUNDS: usize = 4_000;
/// Rounds after which whoever carries bundles, and brings nothing on, comes again another day.
const VISIT_ROUNDS: usize = 500;

/// How often the latest of what was refused for its time falls due, and something else may be refused then.
const DUE_ROUNDS: usize = 100;

impl World {
    /// The storm.
    pub fn storm(&mut self) {
        for _ in 0..self.weather.steps {
            self.storm_step();
        }
    }

    fn storm_step(&mut self) {
        self.ledger.step += 1;
        self.carry_some();
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
        } else if chance(w.full_disks) {
            self.fill_or_clear_disk();
        } else if chance(w.bit_flips) {
            self.flip_bits();
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
            self.nodes[index].memory.job = None;
            self.nodes[index].skew_ms = 0;
            self.nodes[index].disk_full = false;
            self.nodes[index].certificate = None;
            if self.nodes[index].schema.fingerprint() != self.schema.fingerprint() {
                self.upgrade_now(index);
            } else if !self.nodes[index].up {
                self.start(index);
            }
        }
        self.expect_visits();
        for hours in 0..4 {
            self.settle().map_err(|why| format!("after {hours} hours: {why}"))?;
            self.now_ms += 3_600_000;
            (0..self.nodes.len()).for_each(|index| self.look_after(index, true));
        }
        self.settle()?;
        // What was written by a clock that was days ahead, and only others still have, is taken when its time has come.
        for _ in 0..DUE_ROUNDS {
            let Some(due_ms) = self.latest_due() else { break };
            self.now_ms = self.now_ms.max(due_ms) + 1;
            self.settle().map_err(|why| format!("at {due_ms}: {why}"))?;
        }
        self.settle()?;
        // Nothing is under way any more: every link compares once more, and proves it.
        self.proven_since_ms = self.now_ms;
        self.now_ms += 2 * super::comparisons::COMPARE_MS;
        self.settle()
    }

    /// When the last of what was refused for its time falls due.
    fn latest_due(&self) -> Option<u64> {
        let here = self.nodes.iter().filter(|n| !n.absent);
        let refused =
            here.flat_map(|n| n.disk.quarantine.values()).filter_map(|(_, refused)| refused.retry_at_ms);
        refused.chain(self.carried_due()).max()
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
        for rounds in 1..=SETTLE_ROUNDS {
            self.round();
            if rounds % VISIT_ROUNDS == 0 {
                self.now_ms = self.carried_due().fold(self.now_ms, u64::max) + 1;
            }
            if self.is_quiet(except) && !self.carry_all(except) {
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
