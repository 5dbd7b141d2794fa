//! What a child that lies may send: records that look right, and are changed in every way that it could think of.

use bytes::Bytes;
use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use proptest::prelude::*;

use crate::division::Division;
use crate::record::{Entry, FieldNumber, Record, Register, codec, raw};
use crate::stamp::{Stamp, Writer};

/// The child's own scope, a county beside it, and their parent.
pub(super) const SCOPE: &str = "220822";
pub(super) const BESIDE: &str = "220821";
pub(super) const OWN: &str = "220800";
/// Where writers and homes are: the first three inside the child's scope.
pub(super) const PLACES: [&str; 8] =
    [SCOPE, "220822101", "220822102", OWN, BESIDE, "220821101", "220000", "220881"];
pub(super) const KINDS: [&str; 4] = ["grids", "cases", "cameras", "divisions"];
/// Fields that a record of the tests may have, as `field_of` numbers them.
pub(super) const FIELDS: usize = 9;
/// Between two stamps.
pub(super) const STEP_MS: u64 = 1_000;
/// No clock of the parent gives out such a counter in these tests.
pub(super) const COUNTER: u64 = 0xa000;

pub(super) fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

/// Fields that differ in who may write them, how they merge, how far they are released; some that nobody knows.
pub(super) fn field_of(kind: usize, which: usize) -> FieldNumber {
    let fields: [FieldNumber; FIELDS] = match KINDS[kind] {
        "grids" => [2, 4, 5, 9, 13, 90, 91, 93, 700],
        "cases" => [6, 12, 15, 18, 19, 23, 24, 25, 85],
        "cameras" => [4, 16, 17, 18, 25, 90, 91, 93, 700],
        _ => [2, 3, 4, 5, 90, 91, 93, 85, 700],
    };
    fields[which]
}

/// One entry of a register.
#[derive(Clone, Debug)]
pub(super) struct EntrySpec {
    place: usize,
    id: u64,
    step: u64,
    value: Option<u8>,
}

/// What is done to one field of a record.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Entries beside those held.
    Put(usize, Vec<EntrySpec>),
    /// A register of these entries alone.
    Replace(usize, Vec<EntrySpec>),
    /// One of the entries of one of the fields is altered.
    Tamper(usize, usize, Tamper),
    /// The field is left out.
    Drop(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Tamper {
    Replaced,
    Forged(u8),
    Later,
    Gone,
}

/// One record of a batch.
#[derive(Clone, Debug)]
pub(super) struct RecordSpec {
    pub(super) home: usize,
    pub(super) kind: usize,
    pub(super) id: usize,
    /// Begin with what the parent holds.
    from_held: bool,
    changes: Vec<Change>,
    /// A byte of the encoding to change.
    flip: Option<(usize, u8)>,
    /// An end of the name to add.
    name_end: &'static str,
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A new link: what the Hello says of token and revisions.
    Greet { token: u8, revision: u64, peer_revision: u64 },
    /// A batch, cut in parts of this size, with a byte of its payload changed.
    Batch { records: Vec<RecordSpec>, part_bytes: usize, flip: Option<(usize, u8)>, same_epoch: bool },
    /// Any other frame.
    Frame(Box<Kind>),
    /// Something comes from above.
    Above(RecordSpec),
    /// The parent writes a field itself.
    Write { home: usize, kind: usize, id: usize, field: usize, value: u8 },
    /// The parent purges a field.
    Purge { home: usize, kind: usize, id: usize, field: usize },
    /// Time passes, in seconds.
    Wait(u64),
}

fn entry() -> impl Strategy<Value = EntrySpec> {
    let value = prop_oneof![1 => Just(None), 4 => (0u8..6).prop_map(Some)];
    let step = prop_oneof![8 => 1u64..30, 1 => Just(100_000)];
    let made = |(place, id, step, value)| EntrySpec { place, id, step, value };
    (0..PLACES.len(), prop_oneof![4 => Just(1u64), 1 => Just(2)], step, value).prop_map(made)
}

/// A field; often the one that makes the audience.
fn field() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..FIELDS, 1 => Just(5usize)]
}

fn change() -> impl Strategy<Value = Change> {
    let entries = || proptest::collection::vec(entry(), 1..4);
    let tamper = prop_oneof![
        3 => Just(Tamper::Replaced),
        2 => (0u8..6).prop_map(Tamper::Forged),
        1 => Just(Tamper::Later),
        1 => Just(Tamper::Gone)
    ];
    prop_oneof![
        4 => (field(), entries()).prop_map(|(f, e)| Change::Put(f, e)),
        2 => (field(), entries()).prop_map(|(f, e)| Change::Replace(f, e)),
        4 => (0usize..4, 0usize..4, tamper).prop_map(|(f, e, t)| Change::Tamper(f, e, t)),
        1 => (0..FIELDS).prop_map(Change::Drop),
    ]
}

fn record() -> impl Strategy<Value = RecordSpec> {
    let flip = proptest::option::weighted(0.05, (any::<usize>(), any::<u8>()));
    let name_end = prop_oneof![20 => Just(""), 1 => Just("/x"), 1 => Just(" ")];
    let home = prop_oneof![3 => 0usize..3, 2 => 0..PLACES.len()];
    let changes = proptest::collection::vec(change(), 0..4);
    let kind = prop_oneof![0..KINDS.len(), Just(1usize)];
    let id = prop_oneof![3 => Just(0usize), 1 => Just(1)];
    (home, kind, id, any::<bool>(), changes, flip, name_end).prop_map(
        |(home, kind, id, from_held, changes, flip, name_end)| RecordSpec {
            home,
            kind,
            id,
            from_held,
            changes,
            flip,
            name_end,
        },
    )
}

fn frame() -> impl Strategy<Value = Kind> {
    let number = || prop_oneof![0u64..5, any::<u64>()];
    prop_oneof![
        4 => (number(), number()).prop_map(|(a, b)| Kind::Checksum(v1::Checksum {
            last_batch_sent: a,
            last_batch_received: b,
            ..v1::Checksum::default()
        })),
        4 => (0..PLACES.len(), any::<i64>(), number()).prop_map(|(place, through_ms, quarantined_count)| {
            let division = division(PLACES[place]).to_string();
            Kind::Claim(v1::Claim { division, through_ms, quarantined_count })
        }),
        4 => (number(), number(), number()).prop_map(|(batch_id, epoch, revision)| Kind::Receipt(v1::Receipt {
            batch_id,
            epoch,
            revision,
            ..v1::Receipt::default()
        })),
        1 => Just(Kind::Goodbye(v1::Goodbye::default())),
        1 => Just(Kind::Hello(v1::Hello::default())),
        1 => Just(Kind::Welcome(v1::Welcome::default())),
    ]
}

/// Anything that can happen.
pub(super) fn action() -> impl Strategy<Value = Action> {
    let flip = proptest::option::weighted(0.05, (any::<usize>(), any::<u8>()));
    let batch = (proptest::collection::vec(record(), 1..4), 1usize..400, flip, any::<bool>());
    let revision = || prop_oneof![3 => Just(0u64), 2 => 1u64..50, 1 => Just(u64::MAX)];
    let place = || (0..PLACES.len(), 0..KINDS.len(), 0usize..2, 0..FIELDS);
    prop_oneof![
        8 => batch.prop_map(|(records, part_bytes, flip, same_epoch)| Action::Batch {
            records, part_bytes, flip, same_epoch
        }),
        3 => record().prop_map(Action::Above),
        2 => (place(), 0u8..6).prop_map(|((home, kind, id, field), value)| Action::Write {
            home, kind, id, field, value
        }),
        2 => (0u8..4, revision(), revision()).prop_map(|(token, revision, peer_revision)| Action::Greet {
            token, revision, peer_revision
        }),
        1 => frame().prop_map(|f| Action::Frame(Box::new(f))),
        1 => place().prop_map(|(home, kind, id, field)| Action::Purge { home, kind, id, field }),
        1 => (1u64..20).prop_map(Action::Wait),
    ]
}

/// A value of a field: a message that is a step to some place where a step is read.
pub(super) fn value(field: FieldNumber, place: usize, n: u8) -> Bytes {
    if n == 0 {
        return Bytes::new();
    }
    let mut message = Vec::new();
    raw::put_message(&mut message, raw::message_tag(1), format!("s{place}-{n}").as_bytes());
    let to = division(PLACES[usize::from(n) % PLACES.len()]).to_string();
    raw::put_message(&mut message, raw::message_tag(4), to.as_bytes());
    let mut out = Vec::new();
    raw::put_message(&mut out, raw::message_tag(field), &message);
    out.into()
}

impl EntrySpec {
    fn entry(&self, field: FieldNumber) -> Entry {
        let writer = Writer { division: division(PLACES[self.place]), id: self.id };
        let stamp = Stamp(Stamp::from_ms(self.step * STEP_MS).0 | COUNTER);
        Entry::new(writer, stamp, self.value.map(|n| value(field, self.place, n)))
    }
}

impl Change {
    fn apply(&self, kind: usize, record: &mut Record) {
        let entries_of = |record: &Record, field| {
            record.get(field).map(|register: &Register| register.entries().to_vec()).unwrap_or_default()
        };
        match self {
            Change::Put(field, entries) => {
                let field = field_of(kind, *field);
                let all = entries_of(record, field).into_iter().chain(entries.iter().map(|e| e.entry(field)));
                record.set(field, Register::from_entries(all));
            }
            Change::Replace(field, entries) => {
                let field = field_of(kind, *field);
                record.set(field, Register::from_entries(entries.iter().map(|e| e.entry(field))));
            }
            Change::Tamper(field, which, tamper) => {
                let held = record.fields().len().max(1);
                let Some((field, register)) = record.fields().get(field % held) else { return };
                let (field, mut entries) = (*field, register.entries().to_vec());
                let which = which % entries.len();
                match tamper {
                    Tamper::Replaced => entries[which].value = None,
                    Tamper::Forged(n) => entries[which].value = Some(value(field, 9, *n)),
                    Tamper::Later => entries[which].stamp.0 += 1,
                    Tamper::Gone if entries.len() > 1 => drop(entries.remove(which)),
                    Tamper::Gone => {}
                }
                record.set(field, Register::from_entries(entries));
            }
            Change::Drop(field) => record.retain(|f, _| f != field_of(kind, *field)),
        }
    }
}

impl RecordSpec {
    /// The record that is sent, made of what is held.
    pub(super) fn record(&self, held: &Record) -> Record {
        let mut record = if self.from_held { held.clone() } else { Record::default() };
        record.forget_purged();
        self.changes.iter().for_each(|change| change.apply(self.kind, &mut record));
        record
    }

    /// The record as a batch carries it.
    pub(super) fn on_the_wire(&self, held: &Record) -> v1::BatchRecord {
        let mut state = codec::encode(&self.record(held)).to_vec();
        flip(&mut state, self.flip);
        let name = format!("{}{}", name(self.home, self.kind, self.id), self.name_end);
        v1::BatchRecord { name, state: state.into(), ..v1::BatchRecord::default() }
    }
}

/// A record's name.
pub(super) fn name(home: usize, kind: usize, id: usize) -> String {
    format!("divisions/{}/{}/r{id}", division(PLACES[home]), KINDS[kind])
}

/// Changes a byte.
pub(super) fn flip(bytes: &mut [u8], flip: Option<(usize, u8)>) {
    if let Some((at, by)) = flip.filter(|_| !bytes.is_empty()) {
        let at = at % bytes.len();
        bytes[at] ^= by;
    }
}
