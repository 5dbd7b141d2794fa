//! What comes in over a link. A refused field never blocks the others: it is named with its reason, and the rest goes
//! in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::rules::{self, Lane, Policy, fields};
use guantong_proto::v1::RefusalReason;

use super::changes::Refused;
use super::topology::{PeerId, Role};
use super::{SIBLINGS_MAX, Slot, VALUE_MAX_BYTES, WRITERS_MAX, Work, derive, lost_life};
use crate::access::{self, ChildRight};
use crate::division::Division;
use crate::erasure::{self, Erasures};
use crate::merge;
use crate::record::audience::Audience;
use crate::record::{Entry, FieldNumber, Record, Register, view};
use crate::release::{self, Concern, Direction};
use crate::schema::Kind;
use crate::stamp::{Stamp, Writer};

/// Where a record comes from.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The peer.
    pub peer: PeerId,
    /// What it is to this node.
    pub role: Role,
    /// Its division.
    pub division: Division,
    /// While this node recovers: foreign stamps up to here are taken from the child.
    pub recovering_to: Option<Stamp>,
    /// The batch was made by and for the stores that greeted each other; otherwise the sender is owed the record.
    pub same_epoch: bool,
    /// The batch came in the bulk lane: what it changes goes on in bulk.
    pub bulk: bool,
}

/// What became of one record.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Fields that were not taken; 0 stands for the whole record.
    pub refused: Vec<Refused>,
    /// One stamp stood for two contents: the writer was cloned.
    pub forked: bool,
    /// Something is new here.
    pub changed: bool,
    /// Entries of writers outside the child's scope that went in only because this node recovers.
    pub recovered: usize,
}

/// A record that is being taken in.
struct Taking {
    /// The record with what was taken so far.
    after: Record,
    /// Whom it concerns with the steps that came.
    audience: Audience,
    changed: Vec<FieldNumber>,
    /// What came of a life that this store has lost, and may be taken for replaced elsewhere.
    lost: Vec<(FieldNumber, Entry)>,
    accepted: Accepted,
}

fn refused(field: FieldNumber, reason: RefusalReason, detail: impl Into<String>) -> Refused {
    Refused { field, reason, detail: detail.into(), retry_at_ms: None }
}

/// Both sides without what is erased, as they must be before any other field is merged. `after` has the marks of both.
fn without_erased<'r>(kind: &Kind, after: &mut Record, incoming: &'r Record) -> Cow<'r, Record> {
    let erasures = Erasures::of(kind, after);
    erasures.apply(after);
    let mut clean = Cow::Borrowed(incoming);
    if !erasures.is_empty() {
        erasures.apply(clean.to_mut());
    }
    clean
}

impl Work<'_> {
    /// Takes in a record that a peer sent; `state` is its encoding.
    pub fn accept(
        &mut self,
        sender: &Sender,
        slot: Slot,
        incoming: Record,
        state: &Bytes,
        traceparent: Option<&Arc<str>>,
    ) -> Accepted {
        let kind = self.kind(slot);
        let home = self.name(slot).home;
        let before = Audience::of(kind, home, self.record(slot));
        let may_send = |audience: &Audience| access::may_send(sender.division, audience);
        // The steps first: they say whom the record concerns, and the other fields are judged by that. An entry of
        // them may need another one of the same batch, so they are judged as if they were in.
        let steps = kind.roles.steps.and_then(|n| incoming.get(n).map(|r| (n, r)));
        let joined = steps.map(|(field, register)| {
            let mut with_steps = self.record(slot).clone();
            merge::merge_field(&mut with_steps, field, register);
            Audience::of(kind, home, &with_steps)
        });
        // While this node recovers, the step that brought the record to the child may be among what it lost.
        let brought_back = || {
            let (Some((field, register)), Some(joined)) = (steps, &joined) else { return false };
            let judged = || self.judge(sender, slot, field, register, joined, self.record(slot));
            sender.recovering_to.is_some() && may_send(joined) && judged().is_ok()
        };
        if sender.role == Role::Child && !may_send(&before) && !brought_back() {
            let detail =
                format!("the record does not concern {}; it is not that node's to send", sender.division);
            let refused = vec![refused(0, RefusalReason::OutOfScope, detail)];
            return Accepted { refused, ..Accepted::default() };
        }
        let (after, audience) = (self.record(slot).clone(), joined.unwrap_or(before));
        let (changed, lost, accepted) = Default::default();
        let mut taking = Taking { after, audience, changed, lost, accepted };
        let marks = kind.roles.erased.and_then(|n| incoming.get(n).map(|r| (n, r)));
        let unmarked = marks.map(|_| taking.after.clone());
        self.take_fields(sender, slot, steps.into_iter().chain(marks), &mut taking);
        let clean = without_erased(kind, &mut taking.after, &incoming);
        let first = [kind.roles.steps, kind.roles.erased];
        let others = clean.fields().iter().map(|(n, r)| (*n, r)).filter(|(n, _)| !first.contains(&Some(*n)));
        self.take_fields(sender, slot, others, &mut taking);
        let Taking { mut after, changed, mut accepted, .. } = taking;
        accepted.changed = !changed.is_empty();
        if accepted.changed {
            let lane = self.lane_of(slot, &changed, sender.bulk);
            let derived = derive::derive(kind, &mut after);
            let whole = after == incoming && accepted.refused.is_empty();
            self.put(slot, after);
            if let Some(unmarked) = unmarked {
                self.erased_anew(slot, &unmarked, String::new(), String::new());
            }
            let completed = self.complete(slot, None);
            if whole && !completed && derived.is_empty() {
                self.touched[slot.0].encoded = Some(state.clone());
            }
            self.owe_all(slot, Some(sender.peer), lane, traceparent);
            if completed {
                // What this node wrote itself the sender does not have, whatever was refused of the field.
                self.owe(sender.peer, lane, false, traceparent, self.key(slot));
            }
        }
        self.owe_back(sender, slot, incoming, &accepted.refused, traceparent);
        accepted
    }

    /// Takes in the fields that may go in.
    fn take_fields<'r>(
        &mut self,
        sender: &Sender,
        slot: Slot,
        fields: impl Iterator<Item = (FieldNumber, &'r Register)>,
        taking: &mut Taking,
    ) {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        for (field, register) in fields {
            match self.judge(sender, slot, field, register, &taking.audience, &taking.after) {
                Ok(recovered) => {
                    taking.accepted.recovered += recovered;
                    taking.lost.extend(lost_life::values(&taking.after, field, register));
                    let merged = merge::merge_field(&mut taking.after, field, register);
                    taking.accepted.forked |= merged.forked;
                    taking.changed.extend(merged.changed.then_some(field));
                }
                Err(refused) => {
                    taking.accepted.refused.push(refused);
                    if Some(field) == kind.roles.steps {
                        taking.audience = Audience::of(kind, home, &taking.after);
                    }
                }
            }
        }
        let lost = std::mem::take(&mut taking.lost);
        taking.changed.extend(self.write_lost(slot, &mut taking.after, lost));
    }

    /// Whether a field may go in, and how many of its entries only because this node recovers. The audience is the one
    /// with this batch's steps taken in.
    fn judge(
        &self,
        sender: &Sender,
        slot: Slot,
        field: FieldNumber,
        register: &Register,
        audience: &Audience,
        after: &Record,
    ) -> Result<usize, Refused> {
        let kind = self.kind(slot);
        if rules::is_beside(field) {
            let detail =
                "the contract keeps this number for what is said beside a record; it is never stored";
            return Err(refused(field, RefusalReason::Malformed, detail));
        }
        let rule = kind.field(field);
        let union = rule.is_some_and(|r| r.policy == Policy::Union);
        let live = register.live().count();
        if register.live().any(|(_, v)| v.len() > VALUE_MAX_BYTES)
            || register.entries().len() > 2 * WRITERS_MAX
            || live > 2 * SIBLINGS_MAX && !union
        {
            let detail =
                "a value over 64 KiB, or too many values or writers; settle the field's conflicts first";
            return Err(refused(field, RefusalReason::TooLarge, detail));
        }
        self.judge_time(field, register, rule.is_some_and(|r| r.policy == Policy::Observed))?;
        if sender.role == Role::Parent {
            return Ok(0);
        }
        let recovered = self.judge_writers(sender, slot, field, register, audience, after)?;
        self.judge_release(sender, slot, field, audience, after)?;
        Ok(recovered)
    }

    /// Whether a child may pass on each entry of a register, and how many only because this node recovers. `held` is what
    /// this node has of the field, without what is erased.
    fn judge_writers(
        &self,
        sender: &Sender,
        slot: Slot,
        field: FieldNumber,
        register: &Register,
        audience: &Audience,
        held: &Record,
    ) -> Result<usize, Refused> {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let rule = kind.field(field);
        let is_own = |w: Writer| self.ctx.topology.acts_for(w.division) || self.writers.is_ours(w);
        let is_current = |w: Writer| self.writers.states().iter().any(|s| s.current && s.writer == w);
        let (scope, recovering_to) = (sender.division, sender.recovering_to);
        let right = ChildRight { scope, recovering_to, is_own: &is_own, is_current: &is_current };
        if let Some(writer) = right.foreign_entry(home, field, register, held) {
            let detail = format!("a write of {} that did not come from there", writer.division);
            return Err(refused(field, RefusalReason::ForeignWriter, detail));
        }
        let may_write = |division| access::may_write(kind, rule, home, audience, division);
        // What was replaced says less than what stands: rules of the contract may have been wider once.
        let may_have_written = |e: &Entry| match e.value {
            Some(_) => may_write(e.writer.division),
            None => audience.has_at_or_below(e.writer.division),
        };
        let stranger =
            register.entries().iter().find(|e| held.had(field, e.writer).is_none() && !may_have_written(e));
        let name = || rule.map_or_else(|| field.to_string(), |r| format!("{} ({})", r.label, r.name));
        if let Some(entry) = stranger {
            let detail = format!("{} may not write the field {}", entry.writer.division, name());
            return Err(refused(field, RefusalReason::WriterNotAllowed, detail));
        }
        let union = rule.is_some_and(|r| r.policy == Policy::Union);
        let dropped = held.get(field).map(|ours| right.dropped_values(union, register, ours, may_write));
        let dropped = dropped.unwrap_or_default();
        if let Some(gone) = dropped.iter().find(|gone| !right.brings_back(home, gone)) {
            let division = gone.writer.division;
            let detail = format!("a value of {division} in {} is gone, and nothing replaced it", name());
            return Err(refused(field, RefusalReason::ForeignWriter, detail));
        }
        if Some(field) == kind.roles.steps {
            let before = Audience::of(kind, home, held);
            if let Some(left) = before.divisions().iter().find(|d| !audience.divisions().contains(d)) {
                let detail = format!("a step to {left} is gone; steps are only ever added");
                return Err(refused(field, RefusalReason::Malformed, detail));
            }
        }
        Ok(right.recovered(field, register, held) + dropped.len())
    }

    /// Stamps and observations from the future.
    fn judge_time(&self, field: FieldNumber, register: &Register, observed: bool) -> Result<(), Refused> {
        let (now_ms, drift_ms) = (self.ctx.now_ms, self.ctx.drift_ms);
        if let Some((entry, _)) = register.live().find(|(e, _)| e.stamp.beyond(now_ms, drift_ms)) {
            let ahead_s = entry.stamp.ms().saturating_sub(now_ms) / 1_000;
            return Err(Refused {
                retry_at_ms: Some(entry.stamp.ms().saturating_sub(drift_ms)),
                ..refused(
                    field,
                    RefusalReason::FutureStamp,
                    format!(
                        "written {ahead_s} s in the future by the clock here; set the clock of {}",
                        entry.writer.division
                    ),
                )
            });
        }
        // A mark that reached further would erase what is yet to be written.
        let marks = field == fields::ERASED;
        let before =
            erasure::latest_before(register).filter(|before| marks && before.beyond(now_ms, drift_ms));
        if let Some(before) = before {
            let detail = "it erases what is yet to be written; set the clock of the node that made the mark";
            let retry_at_ms = Some(before.ms().saturating_sub(drift_ms));
            return Err(Refused { retry_at_ms, ..refused(field, RefusalReason::FutureStamp, detail) });
        }
        let early = |entry: Stamp, value: &[u8]| view::observed_ms(value) > (entry.ms() + drift_ms) as i64;
        if observed && register.live().any(|(e, v)| early(e.stamp, v)) {
            let detail = "observed later than it was written; set the clock of the device or platform";
            return Err(refused(field, RefusalReason::FutureObservation, detail));
        }
        Ok(())
    }

    /// Fields that this tier may not hold.
    fn judge_release(
        &self,
        sender: &Sender,
        slot: Slot,
        field: FieldNumber,
        audience: &Audience,
        after: &Record,
    ) -> Result<(), Refused> {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let Some(rule) = kind.field(field) else { return Ok(()) };
        if release::within_limit(rule, home, self.ctx.topology.own().tier()) {
            return Ok(());
        }
        let sealed = release::is_sealed(kind, home, after);
        let concern = Concern { home, audience, sealed };
        if release::may_hold(rule, concern, self.ctx.topology.own(), Some(sender.division)) {
            return Ok(());
        }
        let (reason, why) = if rule.file && sealed {
            (RefusalReason::Sealed, "the case is sealed")
        } else {
            (RefusalReason::NotReleased, "this tier may not hold it")
        };
        Err(refused(field, reason, format!("{} ({}): {why}", rule.label, rule.name)))
    }

    /// Owes the record to its sender if what this node has would tell it something. A field that was refused is left
    /// out: where both ends refuse the other's values, they would answer each other for ever.
    fn owe_back(
        &mut self,
        sender: &Sender,
        slot: Slot,
        mut incoming: Record,
        refused: &[Refused],
        traceparent: Option<&Arc<str>>,
    ) {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        if sender.same_epoch && *self.record(slot) == incoming {
            return;
        }
        let mut projection = self.projection(slot, sender.role, sender.division);
        if sender.role == Role::Child {
            // What does not cross upward is missing in what it sent, whether it has it or not.
            let audience = Audience::of(kind, home, self.record(slot));
            let sealed = release::is_sealed(kind, home, self.record(slot));
            let concern = Concern { home, audience: &audience, sealed };
            let own = self.ctx.topology.own();
            let crosses = |f| release::crosses_up(f, concern, sender.division, own);
            projection.retain(|field, _| kind.field(field).is_some_and(crosses));
        }
        if !refused.is_empty() {
            let taken = |field: FieldNumber| !refused.iter().any(|r| r.field == field);
            incoming.retain(|field, _| taken(field));
            projection.retain(|field, _| taken(field));
        }
        if !sender.same_epoch || merge::would_change(&incoming, &projection) {
            let audience = Audience::of(kind, home, self.record(slot));
            if sender.role == Role::Parent || audience.concerns(sender.division) {
                let key = self.key(slot);
                self.owe(sender.peer, Lane::Bulk, false, traceparent, key);
            }
        }
    }

    /// What a peer is sent of a record.
    fn projection(&self, slot: Slot, role: Role, division: Division) -> Record {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let record = self.record(slot);
        let audience = Audience::of(kind, home, record);
        let sealed = release::is_sealed(kind, home, record);
        let to = match role {
            Role::Parent => Direction::Up(division),
            Role::Child | Role::Partner => Direction::Down,
        };
        let concern = Concern { home, audience: &audience, sealed };
        release::project(kind, concern, self.ctx.topology.own(), to, record)
    }

    /// The lane of the most urgent of some changed fields.
    pub(super) fn lane_of(&self, slot: Slot, changed: &[FieldNumber], bulk: bool) -> Lane {
        if bulk {
            return Lane::Bulk;
        }
        let kind = self.kind(slot);
        let lanes = changed.iter().filter_map(|n| kind.field(*n)).map(|f| f.lane);
        lanes.min().unwrap_or(Lane::Bulk)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Context;
    use super::super::topology::Topology;
    use super::super::writers::Writers;
    use super::*;
    use crate::division::Divisions;
    use crate::record::{RecordName, codec};
    use crate::schema::Schema;

    #[test]
    fn what_a_node_adds_goes_back_to_a_sender_whose_own_field_was_refused() {
        let (schema, divisions) = (Schema::current(), Divisions::embedded());
        let home = Division::parse("220822101").unwrap();
        let mut topology = Topology::new(home.county());
        topology.set_parent(PeerId(1), Division::parse("2208").unwrap());
        let mut writers = Writers::new(Vec::new());
        writers.provide_ids(4, || 2);
        let ctx = Context {
            schema: &schema,
            topology: &topology,
            divisions: &divisions,
            now_ms: 9_000,
            drift_ms: 1_000,
        };
        let kind = schema.kind_named("grid").unwrap();
        let writer = Writer { division: home, id: 1 };
        let text = |field, text: &[u8]| {
            let mut value = Vec::new();
            crate::record::raw::put_message(&mut value, crate::record::raw::message_tag(field), text);
            Bytes::from(value)
        };
        let note = kind.field_named("display_name").unwrap().number;
        let complete = kind.roles.record_complete.unwrap();
        let mut incoming = Record::default();
        incoming.set(note, Register::single(writer, Stamp::from_ms(5_000), text(note, b"x")));
        let ahead = Register::single(writer, Stamp::from_ms(50_000), vec![0xe8, 5, 0].into());
        incoming.set(complete, ahead);

        let mut work = Work::new(ctx, &mut writers);
        let name = RecordName::new(home, kind.id, "g").unwrap();
        let slot = work.bring(name, 1, None).unwrap();
        let sender = Sender {
            peer: PeerId(1),
            role: Role::Parent,
            division: Division::parse("2208").unwrap(),
            recovering_to: None,
            same_epoch: true,
            bulk: false,
        };
        let state = codec::encode(&incoming);
        let accepted = work.accept(&sender, slot, incoming, &state, None);
        let refused: Vec<FieldNumber> = accepted.refused.iter().map(|r| r.field).collect();
        assert_eq!(refused, [complete]);
        assert!(work.record(slot).get(complete).is_some(), "the county says it itself");
        let owed = work.finish().outbox;
        assert!(owed.iter().any(|group| group.peer == PeerId(1) && !group.fresh), "{owed:?}");
    }
}
