//! Writes that begin here: by local systems, operators and partners, by ledgers, by the moves of a case. All rules that
//! depend on state are judged here and nowhere else; a write that breaks one changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::rules::{Field, Lane, Policy, Writers as WriterRule};

use super::checks::{self, Subject, Violation};
use super::mandate::NotGranted;
use super::{SIBLINGS_MAX, Slot, VALUE_MAX_BYTES, WRITERS_MAX, Work, derive, union, writers};
use crate::access;
use crate::casework::{self, First, MoveRefused};
use crate::division::Division;
use crate::erasure::Erasures;
use crate::grant::Mandate;
use crate::merge;
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record, Register, raw, view};
use crate::release::{self, Concern};
use crate::stamp::{Stamp, Writer};

/// Which values a write replaces. Values that its author did not see stay beside it.
#[derive(Clone, Debug, Default)]
pub enum Basis {
    /// The value shown now.
    #[default]
    Shown,
    /// Those shown when this etag was given out; refused if anything changed since.
    Etag(String),
    /// Those named: a record whose entries are the live stamps that the author saw.
    Token(Record),
    /// The writer's own earlier value only, as ledgers do.
    Own,
}

/// Values for some fields of one record.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// Field and encoding; empty: clear the field.
    pub fields: Vec<(FieldNumber, Bytes)>,
    /// What is replaced.
    pub basis: Basis,
    /// In whose name; `None`: see `Work::writing_division`.
    pub acting: Option<Division>,
    /// `writers::LOCAL`, or the name of an import source.
    pub purpose: String,
    /// Go in this lane instead of the fields' own.
    pub lane: Option<Lane>,
    /// Whether the record must be there already, or must not.
    pub existence: Existence,
    /// Register a new case that comes without a lifecycle, as reported to its home.
    pub register: bool,
    /// What was judged already.
    pub authority: Authority,
    /// Whom it is made for, where that limits what may be done with a case.
    pub mandate: Option<Arc<Mandate>>,
}

/// Whether a record must be there before a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existence {
    /// It may be or not.
    #[default]
    Any,
    /// It must not be.
    New,
    /// It must be.
    Known,
}

/// Why a write may go past the rules that depend on state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// It may not.
    #[default]
    Plain,
    /// It is a case's move, judged by `casework`: it may write `steps`, and its lifecycle is not judged again.
    Move,
    /// It chooses between values that were each judged when they were written.
    Resolution,
    /// It is what an office's ledger says: a case that is new here may stand anywhere on its way.
    Ledger,
}

impl LocalWrite {
    /// A write of what is shown now, in the ordinary name.
    pub fn of(fields: Vec<(FieldNumber, Bytes)>) -> LocalWrite {
        LocalWrite {
            fields,
            basis: Basis::Shown,
            acting: None,
            purpose: writers::LOCAL.into(),
            lane: None,
            existence: Existence::Any,
            register: false,
            authority: Authority::Plain,
            mandate: None,
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record is new.
    pub created: bool,
    /// Something changed.
    pub changed: bool,
    /// The write stands beside another value.
    pub conflicts: bool,
}

/// Why a write was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// The record belongs elsewhere and was never handed here.
    #[error(
        "divisions/{home} is outside {own}: write the record at its home, or ask for it to be handed over"
    )]
    OutOfScope {
        /// The record's home.
        home: Division,
        /// The node.
        own: Division,
    },
    /// The node does not act for the division that the write names.
    #[error("this node cannot write as {0}: it is neither its own division nor one that it acts for")]
    NotActing(Division),
    /// The schema has no such field.
    #[error("field {0} does not exist; see the contract for the fields of this kind")]
    UnknownField(FieldNumber),
    /// The bytes are not an encoding of the field.
    #[error("the bytes given for field {0} are not an encoding of it")]
    Malformed(FieldNumber),
    /// Over 64 KiB.
    #[error("the value of field {0} is over 64 KiB")]
    TooLarge(FieldNumber),
    /// The division may not write the field.
    #[error("{division} may not write {field}: {why}")]
    NotAllowed {
        /// Label and name of the field.
        field: String,
        /// In whose name the write was tried.
        division: Division,
        /// Who may, or how.
        why: &'static str,
    },
    /// Someone wrote in between.
    #[error("the record was changed meanwhile; read it again and repeat the write")]
    Stale,
    /// There is such a record.
    #[error("the record already exists")]
    Exists,
    /// There is no such record.
    #[error("there is no such record here")]
    NotFound,
    /// The case is sealed.
    #[error("the case is sealed: {0} can no longer be written")]
    Sealed(String),
    /// Too many values or writers side by side.
    #[error("field {0} has too many values or writers side by side; settle its conflicts first")]
    TooManyValues(FieldNumber),
    /// What this writer wrote before was purged here, and is not back yet.
    #[error(
        "field {0} was purged here when another node took it over, and has not come back yet; try again later"
    )]
    Purged(FieldNumber),
    /// The caller does not act for whom this takes.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    /// A value breaks a rule.
    #[error("{}", .0.iter().map(Violation::detail).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// The case's state does not allow the move.
    #[error(transparent)]
    Move(#[from] MoveRefused),
    /// No random bits were provided for a new writer: a fault of the program.
    #[error("the node could not make a new writer; try again")]
    NoWriter,
}

/// Where a case may stand that a write of this authority brings.
pub(super) fn first_of(authority: Authority) -> First {
    if authority == Authority::Ledger { First::Anywhere } else { First::Reported }
}

/// Label and name of a field, for messages.
pub fn title(field: &Field) -> String {
    format!("{} ({})", field.label, field.name)
}

/// Hash over the stamps of all values that stand, 16 hex digits.
pub fn etag(record: &Record) -> String {
    let mut hash = blake3::Hasher::new();
    for (field, register) in record.fields() {
        for (entry, _) in register.live() {
            hash.update(&field.to_le_bytes());
            hash.update(&entry.writer.division.code().to_le_bytes());
            hash.update(&entry.writer.id.to_le_bytes());
            hash.update(&entry.stamp.0.to_le_bytes());
        }
    }
    hash.finalize().to_hex()[..16].to_owned()
}

impl Work<'_> {
    /// In whose name a write goes: the one asked for, if the node may; else the record's home (for a case, its holder)
    /// where the node acts for it; else the node's own division.
    pub fn writing_division(&self, slot: Slot, asked: Option<Division>) -> Result<Division, WriteError> {
        let topology = self.ctx.topology;
        if let Some(division) = asked {
            return topology.acts_for(division).then_some(division).ok_or(WriteError::NotActing(division));
        }
        let holder = self.lifecycle(slot).and_then(|l| casework::holder(&l));
        let candidate = holder.unwrap_or(self.name(slot).home);
        Ok(if topology.acts_for(candidate) { candidate } else { topology.own() })
    }

    /// Writes fields of a record.
    pub fn write(
        &mut self,
        slot: Slot,
        write: &LocalWrite,
        traceparent: Option<&Arc<str>>,
    ) -> Result<Written, WriteError> {
        let (home, own) = (self.name(slot).home, self.ctx.topology.own());
        let kind = self.kind(slot);
        let created = !self.exists(slot);
        let audience = Audience::of(kind, home, self.record(slot));
        if created && !own.contains(home) || !audience.concerns(own) {
            return Err(WriteError::OutOfScope { home, own });
        }
        match write.existence {
            Existence::New if !created => return Err(WriteError::Exists),
            Existence::Known if created => return Err(WriteError::NotFound),
            _ => {}
        }
        if let Basis::Etag(etag_seen) = &write.basis
            && *etag_seen != etag(self.record(slot))
        {
            return Err(WriteError::Stale);
        }
        let division = self.writing_division(slot, write.acting)?;
        let registered = self.registration(slot, write, division)?;
        let write = registered.as_ref().unwrap_or(write);
        let implied = self.implied_step(slot, write, division);
        let mut wanted = self.wanted(slot, write, division, &audience)?;
        wanted.extend(implied.as_ref().map(|(field, value)| (*field, value)));
        if wanted.is_empty() {
            return Ok(Written { created: false, changed: false, conflicts: false });
        }
        self.judge_mandate(slot, write, division, &wanted)?;
        // The stamp is taken before the rules are judged; one that is not used is lost, which costs nothing.
        let erasures = Erasures::of(kind, self.record(slot));
        let later_ms = erasures.after(wanted.iter().map(|w| w.0), self.ctx.now_ms);
        let stamped = self.writers.stamp(division, &write.purpose, later_ms);
        let (writer, stamp) = stamped.ok_or(WriteError::NoWriter)?;
        let mut after = self.record(slot).clone();
        let mut conflicts = false;
        for (field, value) in &wanted {
            let held = self.record(slot).get(*field).and_then(|r| r.seen(writer));
            if self.record(slot).had(*field, writer) > held {
                return Err(WriteError::Purged(*field));
            }
            let register = self.written(slot, write, *field, value, writer, stamp)?;
            conflicts |= kind.field(*field).is_some_and(|f| view::conflicts(f, &register));
            after.set(*field, register);
        }
        let written: Vec<FieldNumber> = wanted.iter().map(|w| w.0).collect();
        self.check(slot, &after, &written, division, write.authority)?;
        derive::derive(kind, &mut after);
        self.put(slot, after);
        self.complete(slot, Some((writer, stamp)));
        let lane = write.lane.unwrap_or_else(|| self.lane_of(slot, &written, false));
        self.owe_all(slot, None, lane, traceparent);
        Ok(Written { created, changed: true, conflicts })
    }

    /// The fields of a write that may be written and say something new.
    fn wanted<'w>(
        &self,
        slot: Slot,
        write: &'w LocalWrite,
        division: Division,
        audience: &Audience,
    ) -> Result<Vec<(FieldNumber, &'w Bytes)>, WriteError> {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let record = self.record(slot);
        let sealed = release::is_sealed(kind, home, record);
        let mut wanted = Vec::with_capacity(write.fields.len());
        for (number, value) in &write.fields {
            let field = kind.field(*number).ok_or(WriteError::UnknownField(*number))?;
            if !raw::is_value_of(*number, value) {
                return Err(WriteError::Malformed(*number));
            }
            if value.len() > VALUE_MAX_BYTES {
                return Err(WriteError::TooLarge(*number));
            }
            let refuse = |why| WriteError::NotAllowed { field: title(field), division, why };
            match field.writers {
                _ if field.derived_from.is_some() => {
                    return Err(refuse("it is derived from another field; write that one"));
                }
                WriterRule::Node if kind.rule.name != "node" => {
                    return Err(refuse("the node writes it itself"));
                }
                WriterRule::Moves if write.authority != Authority::Move => {
                    return Err(refuse("only the moves of a case write it"));
                }
                _ => {}
            }
            if field.name == "erased" {
                return Err(refuse("only an erasure writes it"));
            }
            if !access::may_write(kind, Some(field), home, audience, division) {
                return Err(refuse("see the field's writers in the contract"));
            }
            if sealed && field.file {
                return Err(WriteError::Sealed(title(field)));
            }
            // Whoever may not hold a field cannot see what it would write over.
            let concern = Concern { home, audience, sealed };
            let topology = self.ctx.topology;
            if !release::may_hold(field, concern, topology.own(), topology.child_over(home).map(|c| c.1)) {
                return Err(refuse("this tier may not hold it; it is written further down"));
            }
            let shown = record.get(*number).and_then(|r| view::shown(field, r, home));
            let same =
                shown.as_ref().is_some_and(|s| s.value == *value) || shown.is_none() && value.is_empty();
            let settles = record.get(*number).is_some_and(|r| view::conflicts(field, r))
                && !matches!(write.basis, Basis::Own);
            if !same || settles {
                wanted.push((*number, value));
            }
        }
        Ok(wanted)
    }

    /// The register of a field after the write.
    fn written(
        &self,
        slot: Slot,
        write: &LocalWrite,
        field: FieldNumber,
        value: &Bytes,
        writer: Writer,
        stamp: Stamp,
    ) -> Result<Register, WriteError> {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let rule = kind.field(field).ok_or(WriteError::UnknownField(field))?;
        let mut register = self.record(slot).get(field).cloned().unwrap_or_default();
        if rule.policy == Policy::Union {
            let value = union::union_value(&register, field, value, writer, stamp);
            merge::write(&mut register, writer, stamp, value, &[]);
            return Ok(register);
        }
        // Whoever saw the value shown saw all that say the same.
        let shown = view::shown(rule, &register, home).map(|s| s.value);
        let replaced: Vec<(Writer, Stamp)> = match &write.basis {
            Basis::Shown => {
                let same = register.live().filter(|(_, v)| Some(*v) == shown.as_ref());
                same.map(|(e, _)| (e.writer, e.stamp)).collect()
            }
            // The etag covers all values, so its holder saw all of them.
            Basis::Etag(_) => register.live().map(|(e, _)| (e.writer, e.stamp)).collect(),
            Basis::Token(seen) => {
                let seen = seen.get(field).map(Register::entries).unwrap_or_default();
                seen.iter().map(|e| (e.writer, e.stamp)).collect()
            }
            Basis::Own => {
                let own: Vec<Writer> = self.writers.of(writer.division, &write.purpose).collect();
                register
                    .live()
                    .filter(|(e, _)| own.contains(&e.writer))
                    .map(|(e, _)| (e.writer, e.stamp))
                    .collect()
            }
        };
        merge::write(&mut register, writer, stamp, value.clone(), &replaced);
        if register.live().count() > SIBLINGS_MAX || register.entries().len() > WRITERS_MAX {
            return Err(WriteError::TooManyValues(field));
        }
        Ok(register)
    }

    fn check(
        &self,
        slot: Slot,
        after: &Record,
        written: &[FieldNumber],
        writer: Division,
        authority: Authority,
    ) -> Result<(), WriteError> {
        if authority == Authority::Resolution {
            return Ok(());
        }
        let judged = authority == Authority::Move;
        let name = self.name(slot);
        let lifecycle = self.kind(slot).roles.lifecycle;
        let unjudged: Vec<FieldNumber> =
            written.iter().copied().filter(|f| !judged || Some(*f) != lifecycle).collect();
        let subject = Subject {
            kind: self.kind(slot),
            home: name.home,
            id: &name.id,
            before: self.record(slot),
            after,
            written: &unjudged,
            writer,
            own: self.ctx.topology.own(),
            first: first_of(authority),
            divisions: self.ctx.divisions,
            now_ms: self.ctx.now_ms,
            drift_ms: self.ctx.drift_ms,
        };
        checks::check(&subject).map_err(WriteError::Invalid)
    }

    /// Lets the home's node say whether the record is complete, where that changed. A write gives its own stamp.
    /// Returns whether something was written.
    pub(super) fn complete(&mut self, slot: Slot, stamped: Option<(Writer, Stamp)>) -> bool {
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let Some(role) = kind.roles.record_complete else { return false };
        let Some(rule) = kind.field(role) else { return false };
        if !self.ctx.topology.acts_for(home) {
            return false;
        }
        let record = self.record(slot).clone();
        let present = |f: &Field| {
            record.get(f.number).and_then(|r| view::shown(f, r, home)).is_some_and(|s| !s.value.is_empty())
        };
        let complete = kind.fields().filter(|f| f.required).all(present);
        let shown = record.get(role).and_then(|r| view::shown(rule, r, home));
        if shown.is_some_and(|s| view::number(&s.value) == Some(u64::from(complete))) {
            return false;
        }
        let home_stamp = stamped.filter(|(writer, _)| writer.division == home);
        let stamped = home_stamp.or_else(|| self.writers.stamp(home, writers::LOCAL, self.ctx.now_ms));
        let Some((writer, stamp)) = stamped else { return false };
        let mut value = Vec::new();
        raw::put_varint(&mut value, u64::from(role) << 3);
        raw::put_varint(&mut value, u64::from(complete));
        let mut after = record;
        let mut register = after.get(role).cloned().unwrap_or_default();
        let replaced: Vec<_> = register.live().map(|(e, _)| (e.writer, e.stamp)).collect();
        merge::write(&mut register, writer, stamp, value.into(), &replaced);
        after.set(role, register);
        self.put(slot, after);
        true
    }
}
