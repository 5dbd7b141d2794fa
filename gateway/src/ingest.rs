//! One pure decision for everything that comes in: access, merge, sums, who is owed what. A `Work` takes the records
//! that a group of writes touches, decides each write in turn, and ends as the `Changes` of one transaction.
//!
//! Nothing here reads a clock, draws a random number, or does input or output: time, entropy and stored records come
//! in as arguments.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::rules::{Lane, fields};
use guantong_proto::v1;
use prost::Message;

use crate::aggregate::{self, Contribution, Sheet};
use crate::audit::{Event, Note};
use crate::division::{Division, DivisionEntry, Divisions};
use crate::facet::{self, FacetValue, FacetValues};
use crate::period::Day;
use crate::proof::Crossing;
use crate::record::audience::Audience;
use crate::record::codec::{self, CodecError};
use crate::record::{FieldNumber, Record, RecordName, view};
use crate::schema::{Kind, Schema};
use crate::threshold::{Bounds, ThresholdEntry};

/// Settled conflicts of one transaction that are noted one by one.
const SETTLED_NOTED_MAX: usize = 32;

pub mod batch;
mod cases;
pub mod changes;
pub mod checks;
pub mod derive;
pub mod erasure;
pub mod import;
pub mod link;
pub mod local;
mod lost_life;
pub mod mandate;
pub mod recovery;
pub mod renewal;
pub mod snapshot;
pub mod sums;
pub mod topology;
pub mod traceparent;
pub mod union;
pub mod writers;

use changes::{Changes, FacetRow, HeldRow, OutboxGroup, RecordChange, RecordKey, RequestMemory, Resolution};
use sums::Sums;
use topology::{PeerId, Topology};
use writers::Writers;

/// The largest value of one field, in bytes.
pub const VALUE_MAX_BYTES: usize = 64 * 1024;
/// The most values that may stand side by side after a local write; a link refuses beyond twice that.
pub const SIBLINGS_MAX: usize = 32;
/// The most writers that a field remembers after a local write; a link refuses beyond twice that.
pub const WRITERS_MAX: usize = 64;

/// What decisions depend on besides the records.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The rules of all fields.
    pub schema: &'a Schema,
    /// Whom the node exchanges with.
    pub topology: &'a Topology,
    /// The divisions that the node knows.
    pub divisions: &'a Divisions,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How far in the future a stamp may lie.
    pub drift_ms: u64,
}

/// A record's place in a `Work`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(usize);

struct Touched {
    name: RecordName,
    key: RecordKey,
    revision: i64,
    record: Record,
    /// What it was when it was read; `None`: not changed yet.
    before: Option<Before>,
    /// Its encoding, while that is known to be of `record`.
    encoded: Option<Bytes>,
}

struct Before {
    /// What it added to the counts of this store is no longer in them.
    uncounted: bool,
    conflicts: Vec<FieldNumber>,
    audience: Audience,
    facets: FacetValues,
    record: Record,
}

type Owed = (PeerId, Lane, bool, Option<Arc<str>>);

/// A group of writes being decided.
pub struct Work<'a> {
    ctx: Context<'a>,
    writers: &'a mut Writers,
    touched: Vec<Touched>,
    by_name: HashMap<RecordName, Slot>,
    owed: BTreeMap<Owed, Vec<RecordKey>>,
    changes: Changes,
}

impl<'a> Work<'a> {
    /// Starts with nothing.
    pub fn new(ctx: Context<'a>, writers: &'a mut Writers) -> Work<'a> {
        Work {
            ctx,
            writers,
            touched: Vec::new(),
            by_name: HashMap::new(),
            owed: BTreeMap::new(),
            changes: Changes::default(),
        }
    }

    /// What the decisions depend on.
    pub fn context(&self) -> Context<'a> {
        self.ctx
    }

    /// Brings in a record: as it is stored, or new under a key given out for it. Each name once.
    pub fn bring(
        &mut self,
        name: RecordName,
        key: RecordKey,
        stored: Option<(i64, Bytes)>,
    ) -> Result<Slot, CodecError> {
        let (revision, record, encoded) = match stored {
            Some((revision, state)) => (revision, codec::decode(state.clone())?, Some(state)),
            None => (0, Record::default(), None),
        };
        let slot = Slot(self.touched.len());
        self.by_name.insert(name.clone(), slot);
        self.touched.push(Touched { name, key, revision, record, before: None, encoded });
        Ok(slot)
    }

    /// The place of a record that was brought in.
    pub fn slot(&self, name: &RecordName) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// A record as it is at this point of the group.
    pub fn record(&self, slot: Slot) -> &Record {
        &self.touched[slot.0].record
    }

    /// A record's name.
    pub fn name(&self, slot: Slot) -> &RecordName {
        &self.touched[slot.0].name
    }

    /// A record's number in the store.
    pub fn key(&self, slot: Slot) -> RecordKey {
        self.touched[slot.0].key
    }

    /// Whether the record is stored, or was written earlier in this group.
    pub fn exists(&self, slot: Slot) -> bool {
        !self.touched[slot.0].record.is_empty()
    }

    fn kind(&self, slot: Slot) -> &'a Kind {
        self.ctx.schema.kind(self.touched[slot.0].name.kind)
    }

    /// Remembers what a record was before its first change in this group.
    fn touch(&mut self, slot: Slot) {
        let kind = self.kind(slot);
        let touched = &mut self.touched[slot.0];
        if touched.before.is_none() {
            let home = touched.name.home;
            touched.before = Some(Before {
                uncounted: false,
                conflicts: conflicting_fields(kind, &touched.record),
                audience: Audience::of(kind, home, &touched.record),
                facets: facet::facets_of(kind, home, &touched.record),
                record: touched.record.clone(),
            });
        }
        touched.encoded = None;
    }

    /// As `touch`, for a record of which the store has forgotten everything but its state.
    fn touch_as_new(&mut self, slot: Slot) {
        let kind = self.kind(slot);
        let touched = &mut self.touched[slot.0];
        touched.before = Some(Before {
            uncounted: true,
            conflicts: Vec::new(),
            audience: Audience::of_home(kind, touched.name.home),
            facets: FacetValues::new(),
            record: touched.record.clone(),
        });
        touched.encoded = None;
    }

    /// Puts a changed record in place of the one before.
    fn put(&mut self, slot: Slot, record: Record) {
        self.touch(slot);
        self.touched[slot.0].record = record;
    }

    /// Notes that a peer is owed a record.
    fn owe(&mut self, peer: PeerId, lane: Lane, fresh: bool, traceparent: Option<&Arc<str>>, key: RecordKey) {
        self.owed.entry((peer, lane, fresh, traceparent.cloned())).or_default().push(key);
    }

    /// Notes that a record goes to everyone it concerns, except `sender`.
    fn owe_all(&mut self, slot: Slot, sender: Option<PeerId>, lane: Lane, traceparent: Option<&Arc<str>>) {
        let touched = &self.touched[slot.0];
        let (kind, home) = (touched.name.kind, touched.name.home);
        let audience = Audience::of(self.kind(slot), home, &touched.record);
        let fresh = touched.revision == 0 && sender.is_none();
        let key = touched.key;
        for peer in self.ctx.topology.concerned(kind, &audience).filter(|p| Some(*p) != sender) {
            self.owe(peer, lane, fresh, traceparent, key);
        }
    }

    /// Notes that a record goes to the subscriptions that it concerns.
    fn owe_subscribers(&mut self, slot: Slot) {
        let touched = &self.touched[slot.0];
        let (kind, home, key) = (touched.name.kind, touched.name.home, touched.key);
        let audience = Audience::of(self.kind(slot), home, &touched.record);
        for peer in self.ctx.topology.subscribers(kind, &audience) {
            self.owe(peer, Lane::Bulk, false, None, key);
        }
    }

    /// Keeps the answer to a request that may be repeated.
    pub fn remember(&mut self, request: RequestMemory) {
        self.changes.requests.push(request);
    }

    /// The content and record of a request that came earlier in this group.
    pub fn repeated(&self, request_id: &str) -> Option<(u64, RecordKey)> {
        let found = self.changes.requests.iter().find(|r| r.request_id == request_id);
        found.map(|r| (r.content, r.key))
    }

    /// Keeps a row aside until its division is known.
    pub fn hold(&mut self, row: HeldRow) {
        self.changes.held.push(row);
    }

    /// A held row has gone in.
    pub fn release_held(&mut self, id: i64) {
        self.changes.released_rows.push(id);
    }

    /// Ends the group: everything that its transaction must write.
    pub fn finish(mut self) -> Changes {
        let (mut sheet, mut sums) = (Sheet::default(), Sums::default());
        for touched in std::mem::take(&mut self.touched) {
            self.finish_record(touched, &mut sheet, &mut sums);
        }
        self.changes.sums = sums.into_changes();
        self.changes.tallies = sheet.into_changes(self.ctx.topology.own(), Day::of_ms(self.ctx.now_ms));
        self.changes.outbox = std::mem::take(&mut self.owed)
            .into_iter()
            .map(|((peer, lane, fresh, traceparent), mut keys)| {
                keys.sort_unstable();
                keys.dedup();
                let traceparent = traceparent.map(|t| t.to_string());
                OutboxGroup { peer, lane, traceparent, fresh, keys }
            })
            .collect();
        self.changes.clocks = self.writers.take_ticked();
        self.changes
    }

    fn finish_record(&mut self, touched: Touched, sheet: &mut Sheet, sums: &mut Sums) {
        let Some(before) = touched.before else { return };
        let kind = self.ctx.schema.kind(touched.name.kind);
        let home = touched.name.home;
        if self.ctx.topology.own().contains(home)
            && (before.uncounted || aggregate::may_differ(kind, &before.record, &touched.record))
        {
            let counted = if before.uncounted {
                Contribution::default()
            } else {
                aggregate::contribution_of(kind, home, &before.record)
            };
            let counts = aggregate::contribution_of(kind, home, &touched.record);
            if counts != counted {
                sheet.add(&counted, home, -1);
                sheet.add(&counts, home, 1);
            }
        }
        let conflicts = conflicting_fields(kind, &touched.record);
        let settled = before.conflicts.iter().filter(|field| !conflicts.contains(field));
        for field in settled {
            let record = touched.name.display(self.ctx.schema).to_string();
            note_settled(&mut self.changes.audit, record, *field);
            self.changes.resolutions.push(Resolution {
                key: touched.key,
                field: *field,
                before: only_field(&before.record, *field),
                after: only_field(&touched.record, *field),
                resolved_ms: self.ctx.now_ms,
            });
        }
        let was = Crossing::of(kind, home, &before.record);
        let is = Crossing::of(kind, home, &touched.record);
        sums.change(self.ctx.topology, touched.key, &touched.name, &was, &is);
        if is.is_sealed() && !was.is_sealed() {
            let record = touched.name.display(self.ctx.schema).to_string();
            self.changes.audit.push(Event::Sealed { record }.into());
        }
        let facets = facet::facets_of(kind, home, &touched.record);
        let row = |value: &FacetValue| FacetRow { value: *value, home, key: touched.key };
        self.changes.facets_removed.extend(before.facets.iter().filter(|f| !facets.contains(f)).map(row));
        self.changes.facets_added.extend(facets.iter().filter(|f| !before.facets.contains(f)).map(row));
        let audience = is.audience();
        if !renewal::excess(self.ctx.topology, kind, home, &touched.record).is_empty() {
            self.changes.purges.push(touched.key);
        }
        let joined = audience.divisions().iter().filter(|d| !before.audience.divisions().contains(d));
        self.changes.divisions.extend(division_entry(kind, home, &touched.record));
        self.changes.thresholds.extend(threshold_entry(kind, home, &touched.name.id, &touched.record));
        self.changes.records.push(RecordChange {
            key: touched.key,
            revision: touched.revision,
            state: touched.encoded.unwrap_or_else(|| codec::encode(&touched.record)),
            conflicts: (conflicts != before.conflicts).then_some(conflicts),
            audience_added: joined.copied().collect(),
            name: touched.name,
        });
    }
}

/// Notes a conflict that was settled; the last of very many in one transaction are counted together.
fn note_settled(audit: &mut Vec<Note>, record: String, field: FieldNumber) {
    if audit.len() >= SETTLED_NOTED_MAX
        && let Some(Note { event: Event::Resolved { conflicts, .. }, .. }) = audit.last_mut()
    {
        *conflicts += 1;
        return;
    }
    audit.push(Event::Resolved { record, field, conflicts: 1 }.into());
}

/// The fields of a record where values stand side by side, ascending.
pub fn conflicting_fields(kind: &Kind, record: &Record) -> Vec<FieldNumber> {
    let conflicting =
        |field: &FieldNumber, register| kind.field(*field).is_some_and(|f| view::conflicts(f, register));
    record.fields().iter().filter(|(field, register)| conflicting(field, register)).map(|f| f.0).collect()
}

/// One field of a record, encoded as a record.
fn only_field(record: &Record, field: FieldNumber) -> Bytes {
    let mut only = record.clone();
    only.forget_purged();
    only.retain(|f, _| f == field);
    codec::encode(&only)
}

/// What a record of kind `division` tells the table of divisions.
pub fn division_entry(kind: &Kind, home: Division, record: &Record) -> Option<DivisionEntry> {
    if kind.rule.name != "division" {
        return None;
    }
    let shown = |name| {
        let field = kind.field_named(name)?;
        view::shown(field, record.get(field.number)?, home).map(|s| s.value)
    };
    let text = |name| shown(name).and_then(|v| view::text(&v));
    let flag = |name| shown(name).and_then(|v| view::number(&v)).unwrap_or(0);
    let retired = flag("state") == v1::ActiveState::Retired as u64 || flag("deleted") == 1;
    Some(DivisionEntry {
        code: Division::parse(&text("code")?).ok()?,
        name: text("display_name").unwrap_or_default(),
        active: !retired,
    })
}

/// What a record of kind `threshold` tells the table of thresholds.
pub fn threshold_entry(kind: &Kind, home: Division, id: &str, record: &Record) -> Option<ThresholdEntry> {
    if kind.rule.name != "threshold" {
        return None;
    }
    let shown = |field: FieldNumber| {
        view::shown(kind.field(field)?, record.get(field)?, home).map(|shown| shown.value)
    };
    let deleted = shown(fields::DELETED).and_then(|value| view::number(&value)) == Some(1);
    let bounds = shown(fields::threshold::BOUNDS).filter(|_| !deleted);
    let bounds = bounds.and_then(|value| v1::Threshold::decode(value).ok()?.bounds);
    // A form that this program does not understand colors nothing.
    let bounds = bounds.and_then(|bounds| Bounds::of(&bounds).ok());
    Some(ThresholdEntry { home, measure: id.to_owned(), bounds })
}
