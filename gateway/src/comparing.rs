//! Proof of equality and repair of one link, without the link: checksums, probes, what was read and the time go in;
//! frames, reads and records to be owed come out. The same state machine runs in the driver of a link and in the simulator.
//!
//! ```text
//! due ─► both at rest? ─► read standing ─► Checksum ─► the other end judges, answers ─► Checksum ─► this end judges
//! equal: said so, until the next interval
//! differs: child  Probe(homes ─► stretches of ids ─► records) ─► parent Finding; both owe what differs ─► compared anew
//! ```
//!
//! It must never say equal where sums were not compared at the same batches, and never repair anything itself: what differs
//! is owed, and merging does the rest. A difference that stays is said, and looked at again with the next interval.

use std::collections::VecDeque;
use std::sync::Arc;

use guantong_proto::v1;

mod answering;
mod descent;
mod judging;
mod left_out;
mod link_proof;
mod parts;
mod repairing;
mod sums;
#[cfg(test)]
mod tests;

pub use left_out::{LEFT_OUT_MAX, LeftOut};
pub use link_proof::{LinkProof, ProofState, Unknown};
pub use parts::{Difference, HomeSums, PAGE_RECORDS, Page, Read, page};
pub use sums::{Common, Part, Shares, Sums};

use crate::proof::Pair;
use crate::record::{FieldNumber, RecordName};
use crate::schema::Schema;
use crate::session::{Position, Side};
use answering::Answering;
use descent::Descent;

/// Frames of one comparison that an end sends at most: more would mean that the ends never meet at the same batches.
const TURNS_MAX: u32 = 12;
/// How long the answer to a probe is waited for.
const PROBE_ANSWER_MS: u64 = 30_000;
/// The same to a checksum, before somebody who asks for a comparison gets another.
const CHECKSUM_ANSWER_MS: u64 = 10_000;
/// Comparisons, and probes, that a peer may ask for in an interval.
const ASKED_MAX: u32 = 120;
const PROBES_MAX: u32 = 4_096;

/// How often and how patiently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one comparison to the next.
    pub interval_ms: u64,
    /// How long sending pauses at most, where the link is never idle.
    pub hold_ms: u64,
    /// How long a comparison that is due waits for the link to become idle by itself.
    pub patience_ms: u64,
    /// How soon a comparison that could not be made, or left something out, is tried again at first.
    pub retry_ms: u64,
}

impl Pace {
    /// Compares so often, waits in proportion.
    pub fn every(interval_ms: u64) -> Pace {
        let (patience_ms, retry_ms) = ((interval_ms / 10).min(10_000), interval_ms.min(200));
        Pace { interval_ms, hold_ms: 1_000, patience_ms, retry_ms }
    }
}

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Unix milliseconds by the link's own clock, which nobody sets: whatever is waited for goes by it.
    pub now_ms: u64,
    /// The same by the node's clock: what is said goes by it.
    pub wall_ms: u64,
    /// `Session::position`.
    pub position: Option<Position>,
    /// Nothing is owed to the peer, as far as is known.
    pub drained: bool,
}

/// What the store says of a link, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Sums of all that is shared.
    pub sums: Sums,
    /// Records that are owed to the peer.
    pub owed: Vec<RecordName>,
    /// Fields that the peer refused; 0: the whole record.
    pub refused: Vec<(RecordName, FieldNumber)>,
    /// What those records, and those that were named, add to the sums.
    pub shares: Shares,
}

/// What the store gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// To `Read::Standing`; the error: there are no sums now.
    Standing(Result<Standing, Unknown>),
    /// To `Read::Homes`.
    Homes(HomeSums),
    /// To `Read::Page`.
    Page(Page),
    /// It could not be read.
    Failed,
}

/// What must be done next.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Step {
    /// Send it, if the link still stands there; without a position: in any case.
    Checksum(Option<Position>, v1::Checksum),
    /// Send it.
    Probe(v1::Probe),
    /// Send it.
    Finding(v1::Finding),
    /// Begin no new batch, or go on.
    Hold(bool),
    /// Read it and give it to `found`.
    Read(Read),
    /// Owe these records to the peer, as far as there are any, then call `owed`.
    Owe(Vec<RecordName>),
    /// That is how the link stands, and what happened.
    Proof(LinkProof, Noted),
}

/// What is worth a line in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nothing.
    Nothing,
    /// Equal, with nothing on its way.
    Equal {
        /// The ends differed before.
        after_difference: bool,
    },
    /// So many records were found to differ and are sent again.
    Repaired(u64),
    /// So many records differ although they were sent again.
    Stays(u64),
}

/// What this end has said in a comparison.
struct Said {
    /// It began the comparison with this.
    asked: bool,
    comparison: u64,
    /// The last that asked before the sums were read.
    request: u64,
    position: Position,
    left_out: LeftOut,
    /// Of the records that something is left out of.
    shares: Shares,
    sums: Sums,
}

/// What a read is for.
enum Purpose {
    /// To begin a comparison.
    Ask(Position),
    /// To answer one, or go on with it.
    Answer(Position, v1::Checksum, LeftOut),
    Descent,
    Answering,
}

/// The comparisons of one link, from its greeting to its end.
pub struct Comparing {
    side: Side,
    pair: Pair,
    common: Common,
    pace: Pace,
    proof: LinkProof,
    /// It and the request that it answers, as they were said last.
    told: (LinkProof, u64),
    steps: VecDeque<Step>,
    /// The node's clock, seen from the link's.
    wall_ahead_ms: i64,
    /// Whoever asked for a comparison: the last number, that before the present read, and that before a read whose
    /// comparison was judged.
    requested: u64,
    read_after: u64,
    answered: u64,
    /// When the next comparison is due.
    due_ms: u64,
    /// How soon what was left out is looked at again.
    retry_ms: u64,
    /// Somebody waits for it.
    is_urgent: bool,
    last_comparison: u64,
    turns: u32,
    /// Sending pauses until then.
    held_until_ms: Option<u64>,
    /// A checksum that waits until this end is at rest.
    heard: Option<v1::Checksum>,
    said: Option<Said>,
    reading: Option<Purpose>,
    /// Records that are being put into the outbox.
    owing: usize,
    difference: Option<Arc<Difference>>,
    /// Records that were found to differ since the link was last equal, and those of them that nobody was told of yet.
    repaired: u64,
    untold: u64,
    /// No descent before: a difference that stays is not repaired in a hot loop.
    next_descent_ms: u64,
    descent: Option<Descent>,
    /// The answer to its last probe is waited for until then.
    probe_until_ms: u64,
    /// A probe that waits for its answer.
    probe: Option<v1::Probe>,
    answering: Option<Answering>,
    /// What the peer may still ask for, and until when.
    asked_left: u32,
    probes_left: u32,
    refill_ms: u64,
}

impl Comparing {
    /// Whether equal ends mean that this one has got back what the other has of it. What one of their programs does not
    /// know is not compared; a child may hold it, and bring it once the older program is replaced.
    pub fn ends_recovery(&self) -> bool {
        self.side == Side::Child || self.common.is_all()
    }

    /// For a link that was just greeted: its first comparison is due once it is at rest. `proof` is what was known before.
    pub fn new(
        side: Side,
        pair: Pair,
        common: Common,
        pace: Pace,
        proof: LinkProof,
        now_ms: u64,
    ) -> Comparing {
        Comparing {
            side,
            pair,
            common,
            pace,
            proof,
            told: (proof, 0),
            steps: VecDeque::new(),
            wall_ahead_ms: 0,
            requested: 0,
            read_after: 0,
            answered: 0,
            // The child begins; a parent that hears nothing begins too.
            due_ms: now_ms.saturating_add(if side == Side::Child { 0 } else { pace.patience_ms }),
            retry_ms: pace.retry_ms,
            is_urgent: false,
            last_comparison: u64::from(side == Side::Parent),
            turns: 0,
            held_until_ms: None,
            heard: None,
            said: None,
            reading: None,
            owing: 0,
            difference: None,
            repaired: 0,
            untold: 0,
            next_descent_ms: 0,
            descent: None,
            probe_until_ms: 0,
            probe: None,
            answering: None,
            asked_left: ASKED_MAX,
            probes_left: PROBES_MAX,
            refill_ms: now_ms.saturating_add(pace.interval_ms),
        }
    }

    /// The same for one of many links in a row: requests up to this number came before it.
    pub fn after_request(self, request: u64) -> Comparing {
        Comparing { requested: request, ..self }
    }

    /// Compares as soon as it can be done. Numbers of requests rise.
    pub fn compare_now(&mut self, now_ms: u64, request: u64) {
        self.requested = self.requested.max(request);
        // One that is under way is not given up for it: over a slow line none would ever come to its end.
        let wait_ms = if self.said.is_some() { CHECKSUM_ANSWER_MS } else { 0 };
        self.due_ms = self.due_ms.min(now_ms.saturating_add(wait_ms));
        self.next_descent_ms = self.next_descent_ms.min(now_ms);
        self.is_urgent = true;
        self.turns = 0;
    }

    /// The number of the last request before a comparison that was judged: this end read its sums after it.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// How the link stands.
    pub fn proof(&self) -> LinkProof {
        self.proof
    }

    /// When to poll again at the latest, Unix milliseconds; `None`: something that is under way comes first.
    pub fn next_timeout(&self, now_ms: u64) -> Option<u64> {
        let until_ms = match (self.held_until_ms, &self.descent) {
            (Some(until_ms), _) => until_ms,
            (None, Some(_)) => self.probe_until_ms,
            _ if self.is_busy() => return None,
            _ if self.due_ms > now_ms => self.due_ms,
            _ => self.due_ms.saturating_add(self.patience_ms()),
        };
        Some(until_ms.max(now_ms.saturating_add(1)))
    }

    /// Something is under way: a comparison, a descent, an answer.
    pub fn is_busy(&self) -> bool {
        let heard = self.heard.is_some() || self.probe.is_some();
        let waits = heard || self.reading.is_some() || self.held_until_ms.is_some();
        let works = self.descent.is_some() || self.answering.is_some() || self.owing > 0;
        waits || works || !self.steps.is_empty()
    }

    /// Takes the peer's checksum.
    pub fn handle_checksum(&mut self, now_ms: u64, checksum: v1::Checksum) {
        self.refill(now_ms);
        if checksum.comparison == 0 {
            self.unknown(Unknown::OldProgram, now_ms);
            return;
        }
        if checksum.asks {
            if self.asked_left == 0 {
                return;
            }
            self.asked_left -= 1;
        }
        self.heard = Some(checksum);
    }

    /// Takes a probe of the child. While one is answered, others are left aside.
    pub fn handle_probe(&mut self, probe: v1::Probe) {
        if self.answering.is_none() {
            self.probe = Some(probe);
        }
    }

    /// Takes the parent's answer to a probe.
    pub fn handle_finding(&mut self, now_ms: u64, finding: v1::Finding) {
        if let Some(descent) = &mut self.descent
            && !descent.finding(finding)
        {
            self.end_descent(now_ms, false);
        }
    }

    /// Records that were to be owed are in the outbox.
    pub fn owed(&mut self) {
        self.owing = self.owing.saturating_sub(1);
    }

    /// Takes what was read.
    pub fn found(&mut self, schema: &Schema, view: View, found: Found) {
        self.look_at_clocks(view);
        match (self.reading.take(), found) {
            (Some(Purpose::Ask(position)), Found::Standing(standing)) => {
                self.ask_with(schema, view, position, standing);
            }
            (Some(Purpose::Answer(position, heard, left_out)), Found::Standing(standing)) => {
                self.answer_with(schema, view, position, &heard, left_out, standing);
            }
            (Some(Purpose::Descent), found) => self.descent_found(schema, view.now_ms, found),
            (Some(Purpose::Answering), found) => self.answering_found(found),
            (Some(_), _) => self.later(view.now_ms),
            (None, _) => {}
        }
    }

    /// What to do next; `None`: nothing, until something changes or the timeout comes. To be called until then after
    /// everything else.
    pub fn poll(&mut self, schema: &Schema, view: View) -> Option<Step> {
        self.look_at_clocks(view);
        self.refill(view.now_ms);
        self.stay_near(view.now_ms);
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        if self.held_until_ms.is_some_and(|until_ms| until_ms <= view.now_ms) {
            self.give_up(view.now_ms);
            return self.steps.pop_front();
        }
        if self.reading.is_some() || self.owing > 0 {
            return None;
        }
        while let Some(heard) = self.heard.take() {
            self.go_on(schema, view, heard);
            let waits = self.heard.is_some() || self.reading.is_some();
            if waits || !self.steps.is_empty() {
                return self.steps.pop_front();
            }
        }
        if self.answering.is_some() {
            self.answer_probe(view.now_ms);
        } else if let Some(probe) = self.probe.take() {
            self.take_probe(schema, view.now_ms, probe);
        } else if self.descent.is_some() {
            self.descend(schema, view.now_ms);
        } else if self.due_ms <= view.now_ms {
            self.begin(view);
        }
        self.steps.pop_front()
    }

    fn look_at_clocks(&mut self, view: View) {
        self.wall_ahead_ms = view.wall_ms.cast_signed().wrapping_sub(view.now_ms.cast_signed());
    }

    /// A moment of the link's clock as the node's clock has it.
    fn wall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.wall_ahead_ms)
    }

    /// A clock that was put back makes nobody wait for what it said before.
    fn stay_near(&mut self, now_ms: u64) {
        let latest_ms = now_ms.saturating_add(2 * self.pace.interval_ms);
        for moment_ms in [&mut self.due_ms, &mut self.next_descent_ms, &mut self.refill_ms] {
            *moment_ms = latest_ms.min(*moment_ms);
        }
        self.probe_until_ms = self.probe_until_ms.min(now_ms.saturating_add(PROBE_ANSWER_MS));
        let held_ms = now_ms.saturating_add(self.pace.hold_ms);
        self.held_until_ms = self.held_until_ms.map(|until_ms| until_ms.min(held_ms));
    }

    fn refill(&mut self, now_ms: u64) {
        if self.refill_ms <= now_ms {
            (self.asked_left, self.probes_left) = (ASKED_MAX, PROBES_MAX);
            self.refill_ms = now_ms.saturating_add(self.pace.interval_ms);
        }
    }

    /// A parent waits a little longer, so that both do not begin at once.
    fn interval_ms(&self) -> u64 {
        let longer_ms = if self.side == Side::Parent { self.pace.interval_ms / 10 } else { 0 };
        self.pace.interval_ms.saturating_add(longer_ms)
    }

    fn patience_ms(&self) -> u64 {
        if self.is_urgent { self.pace.patience_ms.min(self.pace.retry_ms) } else { self.pace.patience_ms }
    }

    fn read(&mut self, purpose: Purpose, read: Read) {
        self.reading = Some(purpose);
        self.read_after = self.requested;
        self.steps.push_back(Step::Read(read));
    }

    fn hold(&mut self, now_ms: u64) {
        if self.held_until_ms.is_none() {
            self.held_until_ms = Some(now_ms.saturating_add(self.pace.hold_ms));
            self.steps.push_back(Step::Hold(true));
        }
    }

    fn release(&mut self) {
        if self.held_until_ms.take().is_some() {
            self.steps.push_back(Step::Hold(false));
        }
    }

    fn tell(&mut self, state: ProofState, now_ms: u64, noted: Noted) {
        self.proof = self.proof.becomes(state, self.wall_ms(now_ms));
        if self.told != (self.proof, self.answered) || noted != Noted::Nothing {
            self.note(noted);
        }
    }

    fn note(&mut self, noted: Noted) {
        self.told = (self.proof, self.answered);
        self.steps.push_back(Step::Proof(self.proof, noted));
    }

    /// It cannot be said just now. What differs stays so until it was compared again.
    fn unknown(&mut self, why: Unknown, now_ms: u64) {
        if !matches!(self.proof.state, ProofState::Differs { .. }) {
            self.tell(ProofState::Unknown(why), now_ms, Noted::Nothing);
        }
    }

    /// Tries again a little later, and then less and less often.
    fn later(&mut self, now_ms: u64) {
        self.release();
        self.said = None;
        self.is_urgent = false;
        self.turns = 0;
        self.due_ms = now_ms.saturating_add(self.next_retry_ms());
    }

    fn next_retry_ms(&mut self) -> u64 {
        let retry_ms = self.retry_ms;
        self.retry_ms = retry_ms.saturating_mul(2).min(self.pace.interval_ms);
        retry_ms
    }
}
