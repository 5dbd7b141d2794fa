//! Claims: when a node may say upward that everything up to a moment has left it, with receipts, and when it may pass
//! on what a node below said.
//!
//! A claim is of one node's store: all that its writers stamped up to the moment, for the division itself and for those
//! it acts for. It goes in rounds. A round begins between two transactions of whoever writes the store: the moment is
//! chosen, later stamps are kept above it ([`crate::ingest::writers::Writers::raise_floor`]), and with it the highest
//! number in the parent's outbox. All that was stamped up to the moment is on disk then: delivered, or in the outbox
//! under that number or a lower one. So is all that a node below claimed before, since it claims only what has receipts
//! from here. When no row up to that number is left, the round is over and may be said. Rows that come later are not
//! waited for, so a busy node makes rounds too.
//!
//! Where several gateways write one store, each keeps a moment of its own, and the claim is the earliest of those that
//! live; the number is read after them. A transaction that takes lower numbers and ends later has later stamps, and
//! only makes the round wait.
//!
//! Nothing here reads a clock or an outbox. It must never say what was not waited for.

use std::collections::BTreeMap;

use crate::division::Division;

/// What is known of the claim of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Everything stamped up to here is in, Unix milliseconds; 0: the node is known and has claimed nothing.
    pub through_ms: u64,
    /// When the claim arrived, Unix milliseconds of the node that keeps it; while nothing is claimed, when the node
    /// became known.
    pub arrived_ms: u64,
    /// Values refused on their way up, which were not waited for.
    pub quarantined_count: u64,
}

/// The claims that a node has, by the division of the node that made them.
pub type Claims = BTreeMap<Division, Claimed>;
