//! The whole tree in one process, under a seeded scheduler that owns time, network and disks. It runs the real core:
//! what is decided, merged, released, refused and framed is decided by the code that is deployed; only stores and wires
//! are models.
//!
//! One seed is one run. A run draws its own weather, then everything is made good, and then it is checked: every link
//! equal, no write lost, nobody holds what it may not, sums right, nothing waiting. Claims, and what a node holds or is
//! sent, are checked in every step.
//!
//! | trouble | how it is modelled |
//! | --- | --- |
//! | loss, duplication | a stream ends at any frame, and what is under way is lost; what had no receipt comes again |
//! | reordering | links, lanes and engines go on in any order; within a stream frames keep theirs, as over TCP |
//! | bit flips | TLS notices: what came before the altered frame arrives, then the stream ends with an error |
//! | partitions | the line of a node to its parent is cut for a while |
//! | crashes | before and after a transaction and at any other moment; what is in memory is forgotten |
//! | full disks | no transaction goes in, for a while: links end, local writes are refused, nothing starts |
//! | clocks | off by minutes, hours or days, ahead or behind, and turned at any moment |
//! | restores | a store is put back to any of its backups, as a whole |
//! | copies | a store runs twice for a while |
//! | upgrades | nodes begin with fewer fields and learn them in any order |
//! | hand-overs | cases are assigned, transferred, escalated and returned between nodes |
//! | bundles | in one tree of five some nodes have no line: files are lost, late, twice, altered, cut short, for others |
//! | certificates | they last minutes, are renewed over the link or at the door, or run out for good until somebody comes |
//!
//! Three things the protocol does not promise, and no storm tries them. Two ends of a link that were both put back before
//! they met again have nobody to tell them so, and a store that is put back twice before anybody tells it has lost two
//! lives that wrote as the same writer, the first of which it can know nothing of: the next restore waits until the last
//! has been noticed by all. And a parent that is put back forgets which of two copies of a child it had found: a run has
//! copies or restores.
//!
//! One that storms do try: an erasure whose mark goes with the only disk that had it may have ended values elsewhere, where
//! the mark itself was refused for its time. Each value's register says that it ended, and nothing brings it back.

#![allow(clippy::panic)]

use std::hash::Hasher;

mod bundles;
mod checker;
mod claims;
mod comparisons;
mod courier;
mod disk;
mod engine;
mod greeting;
mod ledger;
mod link;
mod node;
mod packing;
mod parcels;
mod secrecy;
mod start;
mod storm;
pub mod sums;
mod trouble;
mod weather;
mod workload;
mod world;

pub use checker::check;
pub use disk::Disk;
pub use engine::Crash;
pub use ledger::Telling;
pub use node::{Command, Line, Node};
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
    let telling = if verbose { Telling::All } else { Telling::Nothing };
    weathered(World::new(seed, telling))
}

/// Everything that happens in a seed's run, as one number.
pub fn fingerprint(seed: u64) -> u64 {
    let mut world = World::new(seed, Telling::Hash(Default::default()));
    world.storm();
    let healed = world.heal();
    world.ledger.trace(|| format!("{healed:?} {:?}", world.nodes[0].disk));
    match world.ledger.telling {
        Telling::Hash(hash) => hash.into_inner().finish(),
        Telling::Nothing | Telling::All => 0,
    }
}

fn weathered(mut world: World) -> Result<Report, Vec<String>> {
    world.ledger.trace(|| format!("{:?}", world.weather));
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
