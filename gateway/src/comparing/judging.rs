//! Checksums to and fro, until both ends could judge.
//!
//! 1. One end states its sums without what it leaves out itself, and asks.
//! 2. The other end takes off what either leaves out and states that. If it leaves out nothing beyond, it has judged;
//!    otherwise it asks in turn.
//! 3. The first takes off what the other leaves out beyond, and judges; if it was asked, it states that, and the other
//!    judges.
//!
//! What an end stated counts while the link stands where it stood: what it has changed since, it owes, and that was left
//! out or makes the comparison void.

use std::collections::BTreeSet;
use std::sync::Arc;

use guantong_proto::v1::{self, Incomparable};

use super::descent::Descent;
use super::{
    Common, Comparing, Difference, LEFT_OUT_MAX, LeftOut, Noted, ProofState, Purpose, Read, Said, Shares,
    Standing, Step, TURNS_MAX, Unknown, View,
};
use crate::record::{FieldNumber, RecordName};
use crate::schema::Schema;
use crate::session::{Position, Side};

/// What was compared, and how it came out.
struct Judged {
    comparison: u64,
    request: u64,
    parts: Vec<super::Part>,
    left_out: LeftOut,
    shares: Shares,
    refused: u64,
}

impl Standing {
    /// What this end leaves out, of the kinds that the other one knows too: the whole record where a field is refused that
    /// others' crossing or content depends on.
    fn left_out(&self, schema: &Schema, common: &Common) -> LeftOut {
        let mut left_out = LeftOut::default();
        let owed = self.owed.iter().map(|name| (name, 0));
        let keys = owed.chain(self.refused.iter().map(|(name, field)| (name, *field)));
        for (name, field) in keys.filter(|(name, _)| common.has(name.kind)) {
            left_out.add(name.clone(), left_out_with(schema, name, field));
        }
        left_out
    }

    /// What is refused, and the field that is left out with it; 0: all. What is owed again counts as that.
    fn only_refused(&self, schema: &Schema) -> impl Iterator<Item = (&RecordName, FieldNumber)> {
        let owed: BTreeSet<&RecordName> = self.owed.iter().collect();
        let refused = self.refused.iter().filter(move |(name, _)| !owed.contains(name));
        refused.map(|(name, field)| (name, left_out_with(schema, name, *field)))
    }

    /// How many of the keys that this end leaves out are refused ones, not counting those that are left out `already`.
    fn refused(&self, schema: &Schema, already: &LeftOut) -> u64 {
        let mut refused = LeftOut::default();
        for (name, field) in self.only_refused(schema) {
            if !already.has(name, field) {
                refused.add(name.clone(), field);
            }
        }
        refused.count() as u64
    }

    /// How many keys of records that are left out `already` in part this end refuses as a whole: they are no keys of their
    /// own any more.
    fn taken_over(&self, schema: &Schema, already: &LeftOut) -> u64 {
        let whole = self.only_refused(schema).filter(|(_, field)| *field == 0);
        let names: BTreeSet<&RecordName> = whole.map(|(name, _)| name).collect();
        names.into_iter().filter(|name| !already.has(name, 0)).map(|name| already.keys_of(name)).sum()
    }

    /// The shares of what is left out.
    fn shares_of(&self, left_out: &LeftOut) -> Shares {
        let of = |name| Some((Clone::clone(name), self.shares.get(name)?.clone()));
        left_out.names().filter_map(of).collect()
    }
}

/// The field that is left out with one that was refused; 0: all.
fn left_out_with(schema: &Schema, name: &RecordName, field: FieldNumber) -> FieldNumber {
    let roles = schema.kind(name.kind).roles;
    let decides = [roles.steps, roles.sealed, roles.erased].contains(&Some(field));
    if decides { 0 } else { field }
}

fn comparable(position: Position, checksum: &v1::Checksum) -> bool {
    checksum.last_batch_received == position.last_batch_sent
        && checksum.last_batch_sent == position.last_batch_received
}

impl Comparing {
    /// A comparison is due.
    pub(super) fn begin(&mut self, view: View) {
        let held = self.held_until_ms.is_some();
        if self.retry_ms > 4 * self.pace.retry_ms {
            // It was tried in vain: something always comes between.
            self.hold(view.now_ms);
        }
        match view.position {
            Some(position) if view.drained || held => {
                self.read(Purpose::Ask(position), Read::Standing { named: Vec::new() });
            }
            _ if held || view.now_ms < self.due_ms.saturating_add(self.patience_ms()) => {}
            _ => {
                // The link does not become idle by itself: both ends pause.
                self.hold(view.now_ms);
                let comparison = self.next_comparison();
                let incomparable = Incomparable::Busy.into();
                let pause = v1::Checksum { comparison, incomparable, asks: true, ..v1::Checksum::default() };
                self.steps.push_back(Step::Checksum(None, pause));
            }
        }
    }

    fn next_comparison(&mut self) -> u64 {
        self.last_comparison += 2;
        self.last_comparison
    }

    /// The link did not come to rest in time.
    pub(super) fn give_up(&mut self, now_ms: u64) {
        self.release();
        self.said = None;
        if let Some(heard) = self.heard.take().filter(|heard| heard.asks) {
            self.decline(heard.comparison, Incomparable::Busy);
        }
        if !self.proof.is_equal() {
            self.unknown(Unknown::Busy, now_ms);
        }
        let own = self.due_ms <= now_ms;
        let next_ms = if own { self.pace.interval_ms } else { self.pace.patience_ms };
        self.due_ms = self.due_ms.max(now_ms.saturating_add(next_ms));
        self.is_urgent = false;
        self.turns = 0;
    }

    fn decline(&mut self, comparison: u64, why: Incomparable) {
        let incomparable = why.into();
        let answer = v1::Checksum { comparison, incomparable, ..v1::Checksum::default() };
        self.steps.push_back(Step::Checksum(None, answer));
    }

    /// The peer's checksum.
    pub(super) fn go_on(&mut self, schema: &Schema, view: View, heard: v1::Checksum) {
        if heard.incomparable() != Incomparable::Unspecified {
            return self.go_without(view.now_ms, &heard);
        }
        let Some(left_out) = LeftOut::read(schema, &heard.left_out) else {
            self.unknown(Unknown::TooMuchOwed, view.now_ms);
            return self.later(view.now_ms);
        };
        let Some(position) = view.position else {
            self.hold(view.now_ms);
            self.heard = Some(heard);
            return;
        };
        if !view.drained {
            self.hold(view.now_ms);
        }
        if !comparable(position, &heard) {
            // One of the two has sent something since. Whoever is asked asks anew, as it stands now.
            if heard.asks && self.turns < TURNS_MAX {
                self.read(Purpose::Ask(position), Read::Standing { named: Vec::new() });
            }
            return;
        }
        let asked_here = |said: &Said| said.asked && said.position == position;
        if self.side == Side::Child && heard.comparison % 2 == 1 && self.said.as_ref().is_some_and(asked_here)
        {
            // Both asked at once: the child's question is the one that is answered.
            return;
        }
        let goes_on = |said: &Said| said.comparison == heard.comparison && said.position == position;
        let goes_on = self.said.as_ref().is_some_and(goes_on);
        if !goes_on && !heard.asks {
            // An answer to what was asked before.
            return;
        }
        match self.said.take().filter(|_| goes_on) {
            Some(said) if left_out == said.left_out => {
                let Some(theirs) = self.common.read(schema, &heard.sums) else {
                    return self.later(view.now_ms);
                };
                let Said { comparison, request, left_out, shares, sums, .. } = said;
                let parts = self.common.differing(&sums, &theirs);
                let refused = heard.quarantined_count;
                self.judge(view.now_ms, Judged { comparison, request, parts, left_out, shares, refused });
            }
            said => {
                self.said = said;
                let named = left_out.names().cloned().collect();
                self.read(Purpose::Answer(position, heard, left_out), Read::Standing { named });
            }
        }
    }

    /// The peer states no sums.
    fn go_without(&mut self, now_ms: u64, heard: &v1::Checksum) {
        if heard.asks {
            // It pauses, and asks this end to pause and to begin.
            self.hold(now_ms);
            self.due_ms = self.due_ms.min(now_ms);
            return;
        }
        match heard.incomparable() {
            Incomparable::Counting => self.unknown(Unknown::PeerCounting, now_ms),
            Incomparable::TooMuchOwed => self.unknown(Unknown::TooMuchOwed, now_ms),
            _ if self.proof.is_equal() => {}
            _ => self.unknown(Unknown::Busy, now_ms),
        }
        self.later(now_ms);
    }

    /// Begins a comparison with what was read.
    pub(super) fn ask_with(
        &mut self,
        schema: &Schema,
        view: View,
        position: Position,
        standing: Result<Standing, Unknown>,
    ) {
        let standing = match standing {
            Ok(standing) => standing,
            Err(why) => {
                self.unknown(why, view.now_ms);
                return self.later(view.now_ms);
            }
        };
        if view.position != Some(position) {
            // The link has moved on: once more, as soon as it rests again.
            return;
        }
        let left_out = standing.left_out(schema, &self.common);
        if left_out.count() > LEFT_OUT_MAX {
            self.unknown(Unknown::TooMuchOwed, view.now_ms);
            return self.later(view.now_ms);
        }
        let (shares, refused) =
            (standing.shares_of(&left_out), standing.refused(schema, &LeftOut::default()));
        let mut sums = standing.sums;
        sums.take_off(&left_out.sums_beyond(&LeftOut::default(), &shares));
        let (comparison, request) = (self.next_comparison(), self.read_after);
        let said = Said { comparison, request, position, left_out, shares, sums, asked: true };
        self.state(schema, &said, refused, true);
        self.said = Some(said);
        // Unless an answer comes before.
        let retry_ms = self.next_retry_ms().max(2 * self.pace.hold_ms);
        self.due_ms = view.now_ms.saturating_add(retry_ms);
    }

    /// Answers the peer's checksum with what was read, and judges where that can be done.
    pub(super) fn answer_with(
        &mut self,
        schema: &Schema,
        view: View,
        position: Position,
        heard: &v1::Checksum,
        mut left_out: LeftOut,
        standing: Result<Standing, Unknown>,
    ) {
        let standing = match standing {
            Ok(standing) => standing,
            Err(why) => return self.cannot_answer(view.now_ms, heard, why),
        };
        if view.position != Some(position) {
            // The link has moved on: once more, or not at all.
            self.heard = Some(heard.clone()).filter(|heard| heard.asks && self.turns < TURNS_MAX);
            return;
        }
        let own = standing.left_out(schema, &self.common);
        // What one end refused and the other owes is on its way.
        let on_its_way: u64 = standing.owed.iter().map(|name| left_out.keys_of(name)).sum();
        let taken_over = standing.taken_over(schema, &left_out);
        let refused = heard.quarantined_count.saturating_sub(on_its_way).saturating_sub(taken_over);
        let refused = refused.saturating_add(standing.refused(schema, &left_out));
        let request = self.said.as_ref().map_or(self.read_after, |said| said.request);
        let (mut sums, judges, already, mut shares) = match self.said.take() {
            Some(said) => {
                // What the peer leaves out beyond counts as it was then, and so it is unless it is owed by now.
                let changed = |name: &_| left_out.names_record(name) && !said.left_out.names_record(name);
                if standing.owed.iter().any(changed) || !left_out.covers(&said.left_out) {
                    return self.later(view.now_ms);
                }
                (said.sums, true, said.left_out, said.shares)
            }
            None => {
                let judges = left_out.covers(&own);
                left_out.join(&own);
                (standing.sums.clone(), judges, LeftOut::default(), Shares::new())
            }
        };
        if left_out.count() > LEFT_OUT_MAX {
            return self.cannot_answer(view.now_ms, heard, Unknown::TooMuchOwed);
        }
        sums.take_off(&left_out.sums_beyond(&already, &standing.shares));
        for (name, share) in standing.shares_of(&left_out) {
            shares.entry(name).or_insert(share);
        }
        let comparison = heard.comparison;
        let said = Said { comparison, request, position, left_out, shares, sums, asked: false };
        if heard.asks {
            self.state(schema, &said, refused, !judges);
        }
        if !judges {
            self.said = Some(said);
            return;
        }
        let Some(theirs) = self.common.read(schema, &heard.sums) else { return self.later(view.now_ms) };
        let Said { left_out, shares, sums, .. } = said;
        let parts = self.common.differing(&sums, &theirs);
        self.judge(view.now_ms, Judged { comparison, request, parts, left_out, shares, refused });
    }

    fn cannot_answer(&mut self, now_ms: u64, heard: &v1::Checksum, why: Unknown) {
        if heard.asks {
            let counting = why == Unknown::Counting;
            let why = if counting { Incomparable::Counting } else { Incomparable::TooMuchOwed };
            self.decline(heard.comparison, why);
        }
        self.unknown(why, now_ms);
        self.later(now_ms);
    }

    /// States sums.
    fn state(&mut self, schema: &Schema, said: &Said, refused: u64, asks: bool) {
        self.turns += 1;
        let Position { last_batch_sent, last_batch_received } = said.position;
        let checksum = v1::Checksum {
            last_batch_sent,
            last_batch_received,
            sums: self.common.write(schema, &said.sums),
            quarantined_count: refused,
            comparison: said.comparison,
            left_out: said.left_out.write(schema),
            asks,
            incomparable: 0,
        };
        self.steps.push_back(Step::Checksum(Some(said.position), checksum));
    }

    /// Both ends' sums, without what either leaves out, were compared.
    fn judge(&mut self, now_ms: u64, judged: Judged) {
        self.release();
        (self.turns, self.is_urgent) = (0, false);
        let left_out = judged.left_out.count() as u64;
        let refused = judged.refused.min(left_out);
        self.answered = judged.request;
        self.proof.compared_ms = Some(self.wall_ms(now_ms));
        (self.proof.left_out, self.proof.refused) = (left_out, refused);
        if self.untold > 0 {
            let repaired = std::mem::take(&mut self.untold);
            self.note(Noted::Repaired(repaired));
        }
        if judged.parts.is_empty() {
            self.equal(now_ms)
        } else {
            self.differs(now_ms, judged)
        }
        if self.requested > self.answered {
            // Somebody asked while this one was under way, and waits for the next.
            (self.due_ms, self.is_urgent) = (now_ms, true);
        }
    }

    fn equal(&mut self, now_ms: u64) {
        let whole = self.proof.left_out == self.proof.refused;
        let differed = matches!(self.proof.state, ProofState::Differs { .. });
        // What differed may be among what is still on its way: that is not equal yet, unless it never ends.
        if whole || !differed || self.retry_ms >= self.pace.interval_ms {
            let noted = if whole { Noted::Equal { after_difference: differed } } else { Noted::Nothing };
            self.proof.equal_ms = self.proof.compared_ms;
            (self.difference, self.descent) = (None, None);
            (self.repaired, self.next_descent_ms) = (0, 0);
            self.tell(ProofState::Equal, now_ms, noted);
        } else {
            self.note(Noted::Nothing);
        }
        if whole {
            self.retry_ms = self.pace.retry_ms;
            self.due_ms = now_ms.saturating_add(self.interval_ms());
        } else {
            self.due_ms = now_ms.saturating_add(self.next_retry_ms());
        }
    }

    fn differs(&mut self, now_ms: u64, judged: Judged) {
        let Judged { comparison, parts, left_out, shares, .. } = judged;
        let difference = Arc::new(Difference { comparison, pair: self.pair, parts, left_out, shares });
        self.difference = Some(difference.clone());
        let leads = self.side == Side::Child;
        let before = match self.proof.state {
            ProofState::Differs { stays, .. } => Some(stays),
            _ => None,
        };
        let wall_ms = self.wall_ms(now_ms);
        let long = before.is_some() && wall_ms >= self.proof.since_ms.saturating_add(self.pace.interval_ms);
        let stays = if leads { self.next_descent_ms > now_ms } else { long };
        let stays = stays || before == Some(true);
        let noted = if stays && before != Some(true) { Noted::Stays(self.repaired) } else { Noted::Nothing };
        self.tell(ProofState::Differs { records: self.repaired, stays }, now_ms, noted);
        self.due_ms = now_ms.saturating_add(self.interval_ms());
        if leads && self.next_descent_ms <= now_ms {
            self.descent = Some(Descent::new(difference));
        } else if leads {
            self.due_ms = self.next_descent_ms;
        }
    }
}
