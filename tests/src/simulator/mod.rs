//! The whole tree in one process, under a seeded scheduler that owns time, network and disks. It runs the real core:
//! what is decided, merged, released, refused and framed is decided by the code that is deployed; only stores and wires
//! are models.
//!
//! One seed is one run. A run draws its own weather (loss, reconnects, crashes between any two steps, restores, copies,
//! wrong clocks, mixed programs, nodes that come later), then everything is made good, and then it is checked: every
//! link equal, no write lost, nobody holds what it may not, sums right, nothing waiting.

#![allow(clippy::panic)]

mod checker;
mod claims;
mod disk;
mod engine;
mod ledger;
mod link;
mod node;
mod start;
mod storm;
pub mod sums;
mod workload;
mod world;

pub use checker::check;
pub use disk::Disk;
pub use engine::Crash;
pub use node::{Command, Node};
pub use workload::Action;
pub use world::World;

/// What a run was, for those who want to know how much was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Fields written.
    pub writes: usize,
    /// Of those, gone with a disk that was put back before anyone else had them.
    pub gone: usize,
    /// Records at the top.
    pub records: usize,
    /// Claims that arrived, each checked.
    pub claims: usize,
    /// Writes stamped under a claim of their own node, because its clock was put back by hours.
    pub late: usize,
}

/// Runs one seed.
///
/// # Errors
/// What does not hold at the end, in words.
pub fn run(seed: u64, verbose: bool) -> Result<Report, Vec<String>> {
    let mut world = World::new(seed, verbose);
    world.ledger.trace(|| format!("seed {seed}: {:?}", world.weather));
    world.storm();
    world.heal().map_err(|why| vec![why])?;
    world.settle_claims().map_err(|why| vec![why])?;
    let wrong = check(&world);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let written = &world.ledger.written;
    let gone = written.iter().filter(|w| w.gone).count();
    let late = written.iter().filter(|w| w.late).count();
    let (writes, claims) = (written.len(), world.ledger.claims_heard);
    Ok(Report { writes, gone, records: world.nodes[0].disk.records.len(), claims, late })
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: Report) {
        self.writes += other.writes;
        self.gone += other.gone;
        self.records += other.records;
        self.claims += other.claims;
        self.late += other.late;
    }
}
