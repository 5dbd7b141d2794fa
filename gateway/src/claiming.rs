//! Claims: when a node may say upward that everything up to a moment has left it, with receipts, and when it may pass
//! on what a node below said.
//!
//! A claim is of one node's store: all that its writers stamped up to the moment, for the division itself and for those
//! it acts for. It is made in rounds. A round begins between two transactions of whoever writes the store: the moment is
//! chosen, later stamps are kept above it ([`Writers::raise_floor`](crate::ingest::writers::Writers::raise_floor)), and
//! then the highest number in the parent's outbox is read. All that was stamped up to the moment is on disk by then:
//! delivered, or in the outbox under that number or a lower one. So is all that a node below claimed before, since it
//! claims only what has receipts from here. Once no row up to that number is left, the round is over and may be said.
//! Rows that come later are not waited for, so a node that is never idle claims too.
//!
//! Where several gateways write one store, storing the moment is a change of what they share: it waits for transactions
//! under way, and what others decided before it is decided again, above it. The number is read after that. A transaction
//! that draws lower numbers and ends later has later stamps: it only makes the round wait longer.
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

/// Nodes that one node keeps claims of, at most: more than there are divisions.
pub const CLAIMS_MAX: usize = 50_000;

/// How often rounds begin.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After something was written here, at least so long after the round before.
    pub busy_ms: u64,
    /// After a claim arrived from below, at least so long after the round before.
    pub passing_ms: u64,
    /// A node that has nothing to do claims so often that it still had nothing to do.
    pub idle_ms: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { busy_ms: 1_000, passing_ms: 5_000, idle_ms: 30_000 }
    }
}

/// Why a claim was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// It is not of the sender or of a node below it.
    #[error("a node claims for itself and for nodes below it only")]
    OutOfScope,
    /// The moment is later than the reader's clock allows.
    #[error(
        "the moment claimed lies in the future by the clock here; set the clock of the node that claims it"
    )]
    Future,
    /// There are more nodes below than divisions.
    #[error("there are claims of too many nodes already")]
    TooMany,
}

/// What a claim from `child` means here. A moment within the drift of clocks is cut to the reader's clock; beyond it
/// the child's clock is wrong, and what it says of moments counts for nothing.
///
/// # Errors
/// The claim is not taken, and what was known stays.
pub fn take(
    child: Division,
    claim: (Division, u64, u64),
    known: Option<Claimed>,
    now_ms: u64,
    drift_ms: u64,
) -> Result<Claimed, ClaimError> {
    let (division, through_ms, quarantined_count) = claim;
    if !child.contains(division) || division != division.home() {
        return Err(ClaimError::OutOfScope);
    }
    if through_ms > now_ms.saturating_add(drift_ms) {
        return Err(ClaimError::Future);
    }
    match known {
        // Nothing but that the node exists, which is no news.
        Some(known) if through_ms == 0 => Ok(known),
        _ => Ok(Claimed { through_ms: through_ms.min(now_ms), arrived_ms: now_ms, quarantined_count }),
    }
}

/// What may be said upward now.
#[derive(Clone, Debug, Default)]
pub struct Spoken {
    /// Counts what was said.
    serial: u64,
    claims: BTreeMap<Division, (u64, Claimed)>,
}

impl Spoken {
    /// What is new since `serial` (0: everything), a node's own claim after all others, and the serial to ask with next.
    /// In this order nobody reads a node's claim before it knows of the nodes below that the claim no longer covers.
    pub fn since(&self, serial: u64, own: Division) -> (Vec<(Division, Claimed)>, u64) {
        let new = self.claims.iter().filter(|(_, (said, _))| *said > serial);
        let mut new: Vec<(Division, Claimed)> =
            new.map(|(division, (_, claimed))| (*division, *claimed)).collect();
        new.sort_by_key(|(division, _)| *division == own);
        (new, self.serial)
    }

    /// What is said of one node.
    pub fn claimed(&self, division: Division) -> Option<Claimed> {
        self.claims.get(&division).map(|(_, claimed)| *claimed)
    }

    /// Rises whenever something new may be said.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    fn say(&mut self, division: Division, claimed: Claimed) {
        let same = |said: &Claimed| {
            (said.through_ms, said.quarantined_count) == (claimed.through_ms, claimed.quarantined_count)
        };
        if !self.claims.get(&division).is_some_and(|(_, said)| same(said)) {
            self.serial += 1;
            self.claims.insert(division, (self.serial, claimed));
        }
    }
}

/// A round that has begun.
#[derive(Clone, Debug)]
struct Round {
    /// Rows of the parent's outbox up to this number are waited for.
    position: i64,
    claims: Claims,
}

/// What a node's claims wait for.
#[derive(Clone, Debug)]
pub struct Claiming {
    own: Division,
    pace: Pace,
    round: Option<Round>,
    spoken: Spoken,
    begun_ms: Option<u64>,
    own_ms: Option<u64>,
    /// Something was written, or came from below, since a round began.
    written: bool,
    arrived: bool,
}

impl Claiming {
    /// Of the node of `own`, which has said nothing yet.
    pub fn new(own: Division, pace: Pace) -> Claiming {
        let spoken = Spoken::default();
        Claiming {
            own,
            pace,
            round: None,
            spoken,
            begun_ms: None,
            own_ms: None,
            written: false,
            arrived: false,
        }
    }

    /// Something was written here.
    pub fn written(&mut self) {
        self.written = true;
    }

    /// Whether the node's own claim is to be part of the next round.
    fn own_is_due(&self, now_ms: u64) -> bool {
        let since = |at: Option<u64>| at.map_or(u64::MAX, |at| now_ms.abs_diff(at));
        self.written && since(self.own_ms) >= self.pace.busy_ms || since(self.own_ms) >= self.pace.idle_ms
    }

    /// Whether a round should begin, and whether the node's own claim is part of it. One at a time. `may_claim`: the
    /// node may speak for itself, since it is not recovering.
    pub fn due(&self, now_ms: u64, may_claim: bool) -> Option<bool> {
        let own = may_claim && self.own_is_due(now_ms);
        let passing = self.begun_ms.is_none_or(|at| now_ms.abs_diff(at) >= self.pace.passing_ms);
        (self.round.is_none() && (own || self.arrived && passing)).then_some(own)
    }

    /// Begins a round. `through_ms` is the floor under all later stamps of this store, on disk, or `None` if the node
    /// claims nothing for itself; `below` are the claims from below that are on disk; `position` is the highest number
    /// in the parent's outbox, read after both.
    pub fn begin(&mut self, now_ms: u64, through_ms: Option<u64>, below: &Claims, position: i64) {
        let mut claims = below.clone();
        claims.retain(|division, claimed| *division != self.own && claimed.through_ms > 0);
        if let Some(through_ms) = through_ms {
            claims.insert(self.own, Claimed { through_ms, arrived_ms: now_ms, quarantined_count: 0 });
            (self.own_ms, self.written) = (Some(now_ms), false);
        }
        (self.begun_ms, self.arrived) = (Some(now_ms), false);
        self.round = Some(Round { position, claims });
    }

    /// A round could not begin, because the store takes nothing: not before an idle node would begin one.
    pub fn postpone(&mut self, now_ms: u64) {
        (self.begun_ms, self.own_ms, self.written) = (Some(now_ms), Some(now_ms), false);
    }

    /// Up to which number rows must be gone before the round is over; `None`: no round has begun.
    pub fn waits_for(&self) -> Option<i64> {
        self.round.as_ref().map(|round| round.position)
    }

    /// No row up to [`waits_for`](Self::waits_for) is left: the round may be said. `quarantined_count`: of this node's
    /// own values, what the parent refused.
    pub fn over(&mut self, quarantined_count: u64) {
        let Some(round) = self.round.take() else { return };
        for (division, claimed) in round.claims {
            let own = (division == self.own).then_some(quarantined_count);
            let quarantined_count = own.unwrap_or(claimed.quarantined_count);
            self.spoken.say(division, Claimed { quarantined_count, ..claimed });
        }
    }

    /// A claim came from below and was taken. A node that is new is told upward at once, and so is a claim that was
    /// withdrawn; what is claimed more than before waits for its round.
    pub fn arrived(&mut self, division: Division, claimed: Claimed) {
        self.arrived |= claimed.through_ms > 0;
        match self.spoken.claims.get(&division) {
            None => self.spoken.say(division, Claimed { through_ms: 0, quarantined_count: 0, ..claimed }),
            Some((_, said)) if claimed.through_ms < said.through_ms => self.spoken.say(division, claimed),
            Some(_) => {}
        }
        if let Some(waiting) = self.round.as_mut().and_then(|round| round.claims.get_mut(&division)) {
            waiting.through_ms = waiting.through_ms.min(claimed.through_ms);
        }
    }

    /// This node's clock was ahead and its stamps begin again at `now_ms`: of what it claimed, only that much stands.
    pub fn turned_back(&mut self, now_ms: u64) {
        if let Some((_, said)) = self.spoken.claims.get(&self.own).copied() {
            let through_ms = said.through_ms.min(now_ms);
            self.spoken.say(self.own, Claimed { through_ms, ..said });
        }
        (self.round, self.begun_ms, self.own_ms, self.written) = (None, None, None, true);
    }

    /// The parent is owed everything anew: nothing may be said until that has its receipts.
    pub fn forget(&mut self) {
        let known: Vec<Division> = self.spoken.claims.keys().copied().filter(|d| *d != self.own).collect();
        let serial = self.spoken.serial + 1;
        let nothing = Claimed::default();
        let claims = known.into_iter().map(|division| (division, (serial, nothing))).collect();
        self.spoken = Spoken { serial, claims };
        (self.round, self.begun_ms, self.own_ms) = (None, None, None);
        (self.written, self.arrived) = (true, true);
    }

    /// What may be said upward now.
    pub fn spoken(&self) -> &Spoken {
        &self.spoken
    }
}

#[cfg(test)]
mod tests;
