//! Records and conflicts as callers see them.

use bytes::Bytes;
use guantong_proto::v1;
use prost_types::Timestamp;

use super::figures::Missed;
use crate::completeness::{Completeness, State};
use crate::engine::Shared;
use crate::ingest::conflicting_fields;
use crate::ingest::local::etag;
use crate::ingest::writers::WriterState;
use crate::record::audience::Audience;
use crate::record::{Entry, FieldNumber, Record, RecordName, Register, codec, view};
use crate::schema::{Kind, Schema};
use crate::stamp::{Stamp, Writer};

pub(super) use crate::calendar::timestamp;

fn written(stamp: Stamp) -> Option<Timestamp> {
    Some(timestamp(stamp.ms()))
}

/// Who took no snapshot of days that were asked about.
pub(super) fn missed(shared: &Shared, missed: &Missed) -> Vec<v1::MissedSnapshot> {
    let divisions = shared.divisions();
    let named = missed.named.iter().map(|(day, division)| v1::MissedSnapshot {
        division: division.to_string(),
        display_name: divisions.full_name(*division),
        day: day.to_string(),
    });
    named.collect()
}

/// A record as its policies show it, with those fields that `shows` allows. The etag is over all of them: it tells
/// nothing but that something changed.
pub(super) fn record(
    schema: &Schema,
    name: &RecordName,
    record: &Record,
    shows: impl Fn(FieldNumber) -> bool,
) -> v1::Record {
    let kind = schema.kind(name.kind);
    let mut fields = Vec::new();
    let mut origins = Vec::with_capacity(record.fields().len());
    for (number, register) in record.fields().iter().filter(|(number, _)| shows(*number)) {
        let Some(shown) = kind.field(*number).and_then(|f| view::shown(f, register, name.home)) else {
            continue;
        };
        fields.extend_from_slice(&shown.value);
        origins.push(v1::FieldOrigin {
            field: *number,
            writer_division: shown.writer.division.to_string(),
            write_time: written(shown.stamp),
        });
    }
    v1::Record {
        name: name.display(schema).to_string(),
        fields: fields.into(),
        etag: etag(record),
        read_token: read_token(record, &shows),
        conflicting_fields: conflicting_fields(kind, record).into_iter().filter(|f| shows(*f)).collect(),
        origins,
        audience: Audience::of(kind, name.home, record).divisions().iter().map(ToString::to_string).collect(),
    }
}

/// The live stamps of the fields that are shown, as a record without values.
fn read_token(record: &Record, shows: impl Fn(FieldNumber) -> bool) -> Bytes {
    let mut token = Record::default();
    for (field, register) in record.fields().iter().filter(|(field, _)| shows(*field)) {
        let live = register.live().map(|(e, _)| Entry::seen(e.writer, e.stamp));
        let live: Vec<Entry> = live.collect();
        if !live.is_empty() {
            token.set(*field, Register::from_entries(live));
        }
    }
    codec::encode(&token)
}

/// Whether a list leaves the record out.
pub(super) fn is_deleted(kind: &Kind, name: &RecordName, record: &Record) -> bool {
    let Some(field) = kind.roles.deleted.and_then(|n| kind.field(n)) else { return false };
    let shown = record.get(field.number).and_then(|r| view::shown(field, r, name.home));
    shown.is_some_and(|s| view::number(&s.value) == Some(1))
}

/// The values of a conflict, the one shown first, then the latest first.
pub(super) fn conflict_entries(
    kind: &Kind,
    name: &RecordName,
    field: FieldNumber,
    register: &Register,
) -> Vec<Entry> {
    let shown = kind.field(field).and_then(|f| view::shown(f, register, name.home));
    let is_shown = |e: &Entry| shown.as_ref().is_some_and(|s| (s.writer, s.stamp) == (e.writer, e.stamp));
    let mut entries: Vec<Entry> = register.live().map(|(e, _)| e.clone()).collect();
    entries.sort_by_key(|e| (!is_shown(e), std::cmp::Reverse((e.stamp, e.writer))));
    entries
}

/// A conflict in one field of a record. `writers` are those of this store.
pub(super) fn conflict(
    schema: &Schema,
    name: &RecordName,
    field: FieldNumber,
    register: &Register,
    writers: &[WriterState],
) -> v1::Conflict {
    let kind = schema.kind(name.kind);
    let entries = conflict_entries(kind, name, field, register);
    let values = entries.iter().enumerate().map(|(i, entry)| v1::ConflictValue {
        fields: entry.value.clone().unwrap_or_default(),
        writer_division: entry.writer.division.to_string(),
        write_time: written(entry.stamp),
        shown: i == 0,
        writer_source: source(writers, entry.writer),
    });
    v1::Conflict {
        name: conflict_name(schema, name, field),
        record: name.display(schema).to_string(),
        field_name: kind.field(field).map_or_else(|| field.to_string(), |f| f.name.to_owned()),
        field,
        values: values.collect(),
        resolve_time: None,
        etag: conflict_etag(field, register),
    }
}

/// The name of a conflict.
pub(super) fn conflict_name(schema: &Schema, name: &RecordName, field: FieldNumber) -> String {
    let field_name =
        schema.kind(name.kind).field(field).map_or_else(|| field.to_string(), |f| f.name.to_owned());
    format!("{}/conflicts/{field_name}", name.display(schema))
}

/// The ledger or partner that a writer of this store stands for.
fn source(writers: &[WriterState], writer: Writer) -> String {
    let found = writers.iter().find(|state| state.writer == writer);
    found.map_or_else(String::new, |state| state.purpose.clone())
}

/// Hash over the values of a conflict.
pub(super) fn conflict_etag(field: FieldNumber, register: &Register) -> String {
    let mut only = Record::default();
    only.set(field, register.clone());
    etag(&only)
}

/// How complete a division is.
pub(super) fn completeness(shared: &Shared, complete: &Completeness) -> v1::Completeness {
    let divisions = shared.divisions();
    let incomplete = complete.incomplete.iter().map(|i| {
        let (state, through_ms) = match i.state {
            State::NotLinked => (v1::CompletenessState::NotLinked, None),
            State::Silent => (v1::CompletenessState::Silent, None),
            State::Behind { through_ms } => (v1::CompletenessState::Behind, Some(through_ms)),
        };
        v1::IncompleteDivision {
            division: i.division.to_string(),
            display_name: divisions.full_name(i.division),
            state: state.into(),
            complete_through_time: through_ms.map(timestamp),
            incomplete_since_time: i.since_ms.map(timestamp),
            quarantined_count: i.quarantined_count,
        }
    });
    v1::Completeness {
        as_of_time: Some(timestamp(complete.as_of_ms)),
        complete_through_time: complete.through_ms.map(timestamp),
        incomplete: incomplete.collect(),
        quarantined_count: complete.quarantined_count,
        ..v1::Completeness::default()
    }
}
