//! A parent as its driver and engine make it, without tasks and disk, that checks the laws after every step.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use bytes::Bytes;
use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use prost::Message;

use super::super::Batch;
use super::child::{
    Action, BESIDE, COUNTER, OWN, PLACES, SCOPE, STEP_MS, division, field_of, flip, name, value,
};
use crate::claiming;
use crate::division::{Division, Divisions};
use crate::ingest::changes::{PeerState, RecordKey};
use crate::ingest::link::Sender;
use crate::ingest::renewal::Doubt;
use crate::ingest::topology::{PeerId, Role, Topology};
use crate::ingest::writers::{LOCAL, Writers};
use crate::ingest::{Context, Work};
use crate::peering::{self, OwnStore};
use crate::record::audience::Audience;
use crate::record::{Entry, FieldNumber, Record, RecordName, Register, codec};
use crate::schema::Schema;
use crate::session::greeting::Token;
use crate::session::{Inbound, Limits, Output, Session, Settings, Side};
use crate::stamp::{Stamp, Writer};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::current);
static DIVISIONS: LazyLock<Divisions> = LazyLock::new(Divisions::embedded);

const DRIFT_MS: u64 = 2 * STEP_MS;
const EPOCH: u64 = 0xe;
const CHILD_EPOCH: u64 = 0xc;

/// What a run met, to see that the generator reaches it.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    pub(super) taken: usize,
    pub(super) recovered: usize,
    pub(super) refused: BTreeMap<String, usize>,
}

impl Met {
    pub(super) fn add(&mut self, other: &Met) {
        self.taken += other.taken;
        self.recovered += other.recovered;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
    }
}

type Store = BTreeMap<RecordName, (RecordKey, i64, Record)>;

pub(super) struct Parent {
    topology: Topology,
    writers: Writers,
    store: Store,
    /// Every value that stood here once.
    values: HashMap<(RecordName, FieldNumber, Writer, Stamp), HashSet<Bytes>>,
    peer: PeerState,
    tokens: Vec<Token>,
    session: Session,
    open: bool,
    batches: u64,
    revision: u64,
    now_ms: u64,
    random: u64,
    pub(super) met: Met,
}

impl Parent {
    pub(super) fn new() -> Parent {
        let own = division(OWN);
        let mut topology = Topology::new(own);
        topology.set_parent(PeerId(1), division("22"));
        topology.add_child(PeerId(2), division(SCOPE));
        topology.add_child(PeerId(3), division(BESIDE));
        let mut parent = Parent {
            topology,
            writers: Writers::new(Vec::new()),
            store: Store::new(),
            values: HashMap::new(),
            peer: PeerState::new(PeerId(2), Role::Child, division(SCOPE)),
            tokens: Vec::new(),
            session: session(0, 0),
            open: false,
            batches: 0,
            revision: 1,
            now_ms: 20 * STEP_MS,
            random: 100,
            met: Met::default(),
        };
        parent.greet(0, 0, 0);
        parent
    }

    fn context(&self) -> Context<'static> {
        // Leaked once a thread: a context borrows, and the tests' topology never changes.
        thread_local!(static TOPOLOGY: RefCell<Option<&'static Topology>> = const { RefCell::new(None) });
        let topology = TOPOLOGY
            .with_borrow_mut(|t| *t.get_or_insert_with(|| Box::leak(Box::new(self.topology.clone()))));
        Context { schema: &SCHEMA, topology, divisions: &DIVISIONS, now_ms: self.now_ms, drift_ms: DRIFT_MS }
    }

    pub(super) fn take(&mut self, action: Action) {
        self.now_ms += 10;
        match action {
            Action::Wait(seconds) => self.now_ms += seconds * STEP_MS,
            Action::Greet { token, revision, peer_revision } => self.greet(token, revision, peer_revision),
            Action::Frame(kind) => self.frame(*kind),
            Action::Above(spec) => {
                let name = parse(&name(spec.home, spec.kind, spec.id));
                let record = spec.record(&self.held(&name));
                self.take_from(Role::Parent, &name, record);
            }
            Action::Write { home, kind, id, field, value: n } => {
                let (name, field) = (parse(&name(home, kind, id)), field_of(kind, field));
                self.writers.provide_ids(2, || 77);
                let own = division(OWN);
                let (writer, stamp) = self.writers.stamp(own, LOCAL, self.now_ms).unwrap();
                let mut record = self.held(&name);
                record.forget_purged();
                let mut register = record.get(field).cloned().unwrap_or_default();
                let replaced: Vec<_> = register.live().map(|(e, _)| (e.writer, e.stamp)).collect();
                crate::merge::write(&mut register, writer, stamp, value(field, 3, n), &replaced);
                record.set(field, register);
                self.take_from(Role::Parent, &name, record);
            }
            Action::Purge { home, kind, id, field } => {
                let name = parse(&name(home, kind, id));
                if let Some((_, _, record)) = self.store.get_mut(&name) {
                    record.purge(field_of(kind, field));
                }
            }
            Action::Batch { records, part_bytes, flip: flipped, same_epoch } => {
                let sent = |spec: &super::child::RecordSpec| {
                    spec.on_the_wire(&self.held(&parse(&name(spec.home, spec.kind, spec.id))))
                };
                let records = records.iter().map(sent).collect();
                self.batch(records, part_bytes, flipped, same_epoch);
            }
        }
    }

    fn held(&self, name: &RecordName) -> Record {
        self.store.get(name).map(|(_, _, record)| record.clone()).unwrap_or_default()
    }

    /// From above: any writer is accepted.
    fn take_from(&mut self, role: Role, name: &RecordName, record: Record) {
        let sender = Sender {
            peer: PeerId(1),
            role,
            division: division("22"),
            recovering_to: None,
            same_epoch: true,
            bulk: false,
        };
        let wire = v1::BatchRecord {
            name: name.display(&SCHEMA).to_string(),
            state: codec::encode(&record),
            ..v1::BatchRecord::default()
        };
        self.decide(&sender, &[wire]);
        self.remember();
    }

    /// As the engine does: reads, brings in, takes, stores. Gives the refusals and how many were recovered.
    fn decide(&mut self, sender: &Sender, records: &[v1::BatchRecord]) -> (Vec<v1::Refusal>, usize) {
        let ctx = self.context();
        let random = &mut self.random;
        self.writers.provide_ids(records.len() + 1, || {
            *random += 1;
            *random
        });
        let batch = Batch::read(&SCHEMA, records);
        let names: HashSet<RecordName> = batch.names().cloned().collect();
        let mut work = Work::new(ctx, &mut self.writers);
        for name in names {
            let next = self.store.len() as RecordKey + 1_000 * (work.touched.len() as RecordKey + 1);
            let stored = self.store.get(&name).map(|(key, revision, r)| (*key, *revision, codec::encode(r)));
            let key = stored.as_ref().map_or(next, |s| s.0);
            work.bring(name, key, stored.map(|s| (s.1, s.2))).unwrap();
        }
        let taken = work.take_batch(sender, batch);
        for change in work.finish().records {
            let record = codec::decode(change.state).unwrap();
            self.store.insert(change.name, (change.key, change.revision + 1, record));
        }
        self.writers.take_created();
        self.revision += 1;
        (taken.refusals, taken.recovered)
    }

    fn remember(&mut self) {
        for (name, (_, _, record)) in &self.store {
            for (field, register) in record.fields() {
                for (entry, value) in register.live() {
                    let key = (name.clone(), *field, entry.writer, entry.stamp);
                    self.values.entry(key).or_default().insert(value.clone());
                }
            }
        }
    }

    fn greet(&mut self, token: u8, revision: u64, peer_revision: u64) {
        self.session = session(self.revision, self.now_ms);
        (self.open, self.batches) = (true, 0);
        let ahead = self.tokens.last().map(|t| Token { counter: t.counter + 5, random: 1 });
        let token = match token {
            0 => self.tokens.last().copied(),
            1 => self.tokens.iter().rev().nth(2).copied(),
            2 => ahead,
            _ => None,
        };
        let revision = self.peer.revision.saturating_add(revision);
        let peer_revision = if peer_revision == 0 { 0 } else { self.revision.saturating_add(peer_revision) };
        self.frame(Kind::Hello(v1::Hello {
            protocol_min: 1,
            protocol_max: 1,
            division: division(SCOPE).to_string(),
            epoch: CHILD_EPOCH,
            token: token.map(Into::into),
            revision,
            peer_revision,
            ..v1::Hello::default()
        }));
    }

    fn welcome(&mut self, hello: &v1::Hello) {
        let own = OwnStore {
            revision: self.revision,
            latest: self.writers.latest(),
            now_ms: self.now_ms,
            drift_ms: DRIFT_MS,
            renewed_ms: None,
        };
        self.random += 1;
        let known = Some(self.peer.clone());
        let (plan, token) = peering::welcome(known, PeerId(2), division(SCOPE), hello, own, self.random);
        self.peer = plan.peer;
        if let Some(after) = plan.renew_after {
            self.renew(after);
        }
        self.peer.clock_at_token = self.writers.latest();
        self.tokens.push(token);
        self.session.welcome(self.now_ms, EPOCH, plan.recognition, token);
    }

    fn renew(&mut self, after: Stamp) {
        self.writers.renew(|_| true);
        let ctx = self.context();
        let random = &mut self.random;
        self.writers.provide_ids(8, || {
            *random += 1;
            *random
        });
        let mut work = Work::new(ctx, &mut self.writers);
        for (name, (key, revision, record)) in &self.store {
            let slot = work.bring(name.clone(), *key, Some((*revision, codec::encode(record)))).unwrap();
            work.restamp(slot, after, Doubt::Copied);
        }
        for change in work.finish().records {
            let record = codec::decode(change.state).unwrap();
            self.store.insert(change.name, (change.key, change.revision + 1, record));
        }
        self.remember();
    }

    fn batch(
        &mut self,
        records: Vec<v1::BatchRecord>,
        part_bytes: usize,
        flipped: Option<(usize, u8)>,
        same_epoch: bool,
    ) {
        if !self.open {
            self.greet(0, 0, 0);
        }
        let raw = v1::RecordBatch { records }.encode_to_vec();
        let mut payload = zstd::bulk::compress(&raw, 1).unwrap();
        flip(&mut payload, flipped);
        let chunks: Vec<&[u8]> = payload.chunks(part_bytes).collect();
        self.batches += 1;
        let batch_id = self.batches;
        for (part, chunk) in chunks.iter().enumerate() {
            self.frame(Kind::Batch(v1::Batch {
                batch_id,
                epoch: CHILD_EPOCH,
                peer_epoch: if same_epoch { EPOCH } else { 9 },
                part: part as u32,
                last: part + 1 == chunks.len(),
                raw_bytes: if part == 0 { raw.len() as u32 } else { 0 },
                payload: Bytes::copy_from_slice(chunk),
                ..v1::Batch::default()
            }));
        }
    }

    /// A frame, and all that the driver does about it.
    fn frame(&mut self, kind: Kind) {
        let _ = self.session.handle_frame(self.now_ms, v1::Frame { kind: Some(kind) });
        while let Some(output) = self.session.poll(self.now_ms) {
            match output {
                Output::Greeted(hello) => self.welcome(&hello),
                Output::TokenConfirmed => self.peer.issued = self.peer.issued.confirmed(),
                Output::PeerChecksum(_) => self.peer.recovering_to = None,
                Output::PeerClaim(claim) => self.claim(&claim),
                Output::Ingest(inbound) => self.ingest(inbound),
                Output::End(_) => self.open = false,
                Output::Send(_) | Output::Drained | Output::Delivered { .. } | Output::Welcomed(_) => {}
                Output::PeerAsks(_) | Output::PeerAnswers(_) => {}
                Output::PeerProbe(_) | Output::PeerFinding(_) => {}
            }
        }
    }

    fn claim(&self, claim: &v1::Claim) {
        let division = Division::parse(&claim.division).unwrap();
        let Ok(through_ms) = u64::try_from(claim.through_ms) else { return };
        let claimed = (division, through_ms, claim.quarantined_count);
        if let Ok(taken) = claiming::take(self.peer.division, claimed, None, self.now_ms, DRIFT_MS) {
            assert!(self.peer.division.contains(division), "claims for {division}");
            assert!(taken.through_ms <= self.now_ms);
        }
    }

    fn ingest(&mut self, inbound: Inbound) {
        let sender = Sender {
            peer: self.peer.id,
            role: Role::Child,
            division: self.peer.division,
            recovering_to: self.peer.recovering_to,
            same_epoch: inbound.same_epoch,
            bulk: inbound.lane == v1::Lane::Bulk,
        };
        let (before, clock) = (self.store.clone(), self.writers.latest());
        let (refusals, recovered) = self.decide(&sender, &inbound.records);
        self.met.taken += inbound.records.len();
        self.met.recovered += recovered;
        for refusal in &refusals {
            *self.met.refused.entry(format!("{:?}", refusal.reason())).or_default() += 1;
        }
        let law = Law { parent: self, before: &before, clock };
        let foreign: usize = self.store.iter().map(|(name, stored)| law.check(name, &stored.2)).sum();
        assert!(foreign <= recovered, "{foreign} foreign entries came in, {recovered} were told");
        self.remember();
        self.session.ingested(inbound.batch_id, refusals);
    }
}

fn session(revision: u64, now_ms: u64) -> Session {
    let settings = Settings {
        side: Side::Parent,
        own: division(OWN),
        peer: division(SCOPE),
        epoch: EPOCH,
        revision,
        peer_revision: 0,
        token: None,
        rules: v1::RuleTable::default(),
        window_bytes: 1 << 20,
        software_version: String::new(),
        limits: Limits::default(),
    };
    Session::new(settings, now_ms)
}

fn parse(name: &str) -> RecordName {
    RecordName::parse(&SCHEMA, name).unwrap()
}

/// What must hold of a record after a batch of the child.
struct Law<'a> {
    parent: &'a Parent,
    before: &'a Store,
    /// The latest of the parent's own stamps before the batch.
    clock: Stamp,
}

impl Law<'_> {
    /// Checks a record; gives how many foreign entries are new, which only a recovering parent takes.
    fn check(&self, name: &RecordName, after: &Record) -> usize {
        let none = Record::default();
        let before = self.before.get(name).map_or(&none, |(_, _, record)| record);
        let kind = SCHEMA.kind(name.kind);
        let (was, is) = (Audience::of(kind, name.home, before), Audience::of(kind, name.home, after));
        for place in was.divisions() {
            assert!(is.divisions().contains(place), "{name:?} no longer concerns {place}");
        }
        let mut foreign = 0;
        for (field, register) in after.fields() {
            for entry in register.entries().iter().filter(|e| !self.is_of_child(e.writer)) {
                foreign += usize::from(self.is_new(name, before, *field, entry));
            }
            if let Some(held) = before.get(*field) {
                held.live().for_each(|(entry, _)| self.stays(name, *field, held, register, entry));
            }
        }
        for (field, _) in before.fields() {
            assert!(after.get(*field).is_some(), "field {field} of {name:?} is gone");
        }
        foreign
    }

    fn is_of_child(&self, writer: Writer) -> bool {
        self.parent.peer.division.contains(writer.division)
    }

    /// Whether an entry of someone else is one that the parent did not have. If so it recovers, and the stamp is not
    /// beyond the moment of noticing.
    fn is_new(&self, name: &RecordName, before: &Record, field: FieldNumber, entry: &Entry) -> bool {
        let source = SCHEMA.kind(name.kind).field(field).and_then(|f| f.derived_from).unwrap_or(field);
        let had = before.had(field, entry.writer).max(before.had(source, entry.writer));
        let what = || format!("{entry:?} in field {field} of {name:?}");
        if had >= Some(entry.stamp) {
            let key = |field| (name.clone(), field, entry.writer, entry.stamp);
            let known = |field, value: &Bytes| {
                self.parent.values.get(&key(field)).is_some_and(|values| values.contains(value))
            };
            let purged = |field| before.purged().iter().find(|(f, _)| *f == field);
            let purged = |field| purged(field).and_then(|(_, r)| r.seen(entry.writer)) >= Some(entry.stamp);
            if let Some(value) = &entry.value {
                let derived = source != field;
                assert!(known(field, value) || purged(field) || derived, "a value was forged: {}", what());
            }
            return false;
        }
        if self.is_own_write(entry) {
            return false;
        }
        assert!(self.recovers(entry), "it does not recover: {}", what());
        assert!(self.is_to_return(name, entry), "not the child's to return: {}", what());
        true
    }

    /// Whether the parent recovers, and the entry may be one that it lost. One that was replaced may be of a clock that was
    /// ahead, if the parent writes as that no more.
    fn recovers(&self, entry: &Entry) -> bool {
        let (to, writer) = (self.parent.peer.recovering_to, entry.writer);
        let current = || self.parent.writers.states().iter().any(|s| s.current && s.writer == writer);
        to >= Some(entry.stamp) || to.is_some() && entry.value.is_none() && self.is_own(writer) && !current()
    }

    fn is_own(&self, writer: Writer) -> bool {
        self.parent.topology.acts_for(writer.division) || self.parent.writers.is_ours(writer)
    }

    /// Whether a child may return an entry to a parent that recovers.
    fn is_to_return(&self, name: &RecordName, entry: &Entry) -> bool {
        self.is_own(entry.writer) || self.parent.peer.division.contains(name.home)
    }

    /// Whether the parent wrote this just now.
    fn is_own_write(&self, entry: &Entry) -> bool {
        self.parent.writers.is_ours(entry.writer)
            && entry.stamp > self.clock
            && entry.stamp.0 & 0xffff < COUNTER
    }

    /// Nothing of others goes without a write that can have replaced it; a parent that recovers takes the child's word
    /// that there was one.
    fn stays(&self, name: &RecordName, field: FieldNumber, held: &Register, now: &Register, entry: &Entry) {
        let stands = now.live().any(|(e, _)| e.writer == entry.writer);
        let later = |e: &&Entry| held.seen(e.writer) < Some(e.stamp);
        let returned = self.recovers(entry) && self.is_to_return(name, entry);
        if self.is_of_child(entry.writer) || stands || returned || now.entries().iter().any(|e| later(&e)) {
            return;
        }
        panic!("{entry:?} in field {field} of {name:?} is gone, and nothing new is there; places {PLACES:?}");
    }
}
