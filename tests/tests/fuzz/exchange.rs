//! What comes over a link: frames, payloads of batches, records.

use bytes::Bytes;
use guantong_gateway::division::{Division, Divisions};
use guantong_gateway::ingest::batch::Batch;
use guantong_gateway::ingest::link::Sender;
use guantong_gateway::ingest::topology::{PeerId, Role, Topology};
use guantong_gateway::ingest::writers::Writers;
use guantong_gateway::ingest::{Context, Work};
use guantong_gateway::record::audience::Audience;
use guantong_gateway::record::{Record, RecordName, Register, codec, raw, view};
use guantong_gateway::schema::Schema;
use guantong_gateway::session::greeting::Token;
use guantong_gateway::session::{Limits, Output, Session, Settings, Side};
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_gateway::whereabouts::{self, erased};
use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use prost::Message;

use super::runner::{fuzz, turn};

const PARENT: &str = "220822";
const CHILD: &str = "220822101";

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

/// A parent's session, as it is before the greeting or after it.
fn session(greeted: bool) -> Session {
    let settings = Settings {
        side: Side::Parent,
        own: division(PARENT),
        peer: division(CHILD),
        epoch: 1,
        revision: 1,
        peer_revision: 0,
        token: None,
        rules: v1::RuleTable::default(),
        window_bytes: 1 << 20,
        software_version: String::new(),
        limits: Limits::default(),
    };
    let mut session = Session::new(settings, 0);
    if greeted {
        session.handle_frame(0, frame(Kind::Hello(hello()))).unwrap();
        while session.poll(0).is_some() {}
        session.welcome(0, 1, v1::Recognition::New, Token { counter: 1, random: 2 });
        while session.poll(0).is_some() {}
    }
    session
}

fn frame(kind: Kind) -> v1::Frame {
    v1::Frame { kind: Some(kind) }
}

fn hello() -> v1::Hello {
    v1::Hello {
        protocol_min: 1,
        protocol_max: 1,
        division: division(CHILD).to_string(),
        epoch: 7,
        rules: Some(Schema::current().rule_table()),
        window_bytes: 1 << 20,
        token: Some(v1::Token { counter: 3, random: 4 }),
        ..v1::Hello::default()
    }
}

/// Records of every kind, with plain fields, siblings, cleared values and steps.
fn records() -> Vec<v1::BatchRecord> {
    let schema = Schema::current();
    let writers = [CHILD, PARENT].map(|code| Writer { division: division(code), id: 5 });
    let kinds = schema.kinds().iter();
    kinds
        .map(|kind| {
            let mut record = Record::default();
            for (n, field) in kind.fields().enumerate() {
                let mut value = Vec::new();
                let mut message = Vec::new();
                raw::put_message(&mut message, raw::message_tag(1), b"1");
                raw::put_message(&mut message, raw::message_tag(4), division(PARENT).to_string().as_bytes());
                raw::put_message(&mut value, raw::message_tag(field.number), &message);
                let value = if n % 5 == 4 { Bytes::new() } else { value.into() };
                let writer = writers[usize::from(n % 3 == 0)];
                record.set(field.number, Register::single(writer, Stamp::from_ms(n as u64 / 4), value));
            }
            let name = format!("divisions/{}/{}/1", division(CHILD), kind.rule.collection);
            v1::BatchRecord { name, state: codec::encode(&record), ..v1::BatchRecord::default() }
        })
        .collect()
}

fn batch(payload: Bytes, raw_bytes: u32) -> v1::Batch {
    v1::Batch { batch_id: 1, epoch: 7, peer_epoch: 1, last: true, raw_bytes, payload, ..v1::Batch::default() }
}

fn packed(records: Vec<v1::BatchRecord>) -> (Vec<u8>, u32) {
    let raw = v1::RecordBatch { records }.encode_to_vec();
    (zstd(&raw), raw.len() as u32)
}

fn zstd(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 1).unwrap()
}

/// Gives a frame, and takes what comes of it.
fn run(session: &mut Session, frame: v1::Frame) -> Vec<v1::BatchRecord> {
    let mut records = Vec::new();
    let _ = session.handle_frame(0, frame);
    while let Some(output) = session.poll(0) {
        if let Output::Ingest(inbound) = output {
            session.ingested(inbound.batch_id, Vec::new());
            records.extend(inbound.records);
        }
    }
    records
}

/// A frame of each sort, as this child sends it.
pub(super) fn frames_of(child: &str) -> Vec<v1::Frame> {
    let child = division(child);
    let (payload, raw_bytes) = packed(records());
    let refusals = vec![v1::Refusal { record: "r".into(), field: 3, ..v1::Refusal::default() }];
    let record = format!("divisions/{}/cases/1", child);
    let part = v1::PartSum { name: "1".into(), count: 1, sum: vec![7; 16].into() };
    [
        Kind::Hello(v1::Hello { division: child.to_string(), ..hello() }),
        Kind::Welcome(v1::Welcome { token: Some(v1::Token::default()), ..v1::Welcome::default() }),
        Kind::Batch(batch(payload.into(), raw_bytes)),
        Kind::Receipt(v1::Receipt { batch_id: 1, epoch: 7, peer_epoch: 1, refusals, ..Default::default() }),
        Kind::Checksum(v1::Checksum {
            sums: vec![v1::FieldSum { kind: "case".into(), field: 3, sum: vec![7; 16].into() }],
            comparison: 2,
            left_out: vec![v1::LeftOut { record: record.clone(), fields: vec![3, 4] }],
            ..v1::Checksum::default()
        }),
        Kind::Probe(v1::Probe {
            comparison: 2,
            probe_id: 1,
            kind: "case".into(),
            extent: Some(v1::probe::Extent::Records(v1::RecordExtent {
                home: child.to_string(),
                records: vec![part.clone(), part],
                ..v1::RecordExtent::default()
            })),
        }),
        Kind::Finding(v1::Finding {
            comparison: 2,
            probe_id: 1,
            differing: vec!["1".into()],
            ..Default::default()
        }),
        Kind::Ask(v1::Ask {
            ask_id: 1,
            hops_left: 3,
            time_left_ms: 9_000,
            question: Some(v1::ask::Question::Where(v1::WhereQuestion { record: record.clone() })),
        }),
        Kind::Ask(v1::Ask {
            question: Some(v1::ask::Question::Erasure(v1::ErasureQuestion { record })),
            ..v1::Ask::default()
        }),
        Kind::Answer(v1::Answer {
            ask_id: 1,
            last: true,
            places: vec![v1::RecordPlace::default()],
            shared: Some(v1::SharedForm::default()),
            erasures: vec![v1::ErasurePlace {
                erased: vec![v1::ErasedField { field_number: 3, before: 7 }],
                copies: vec![v1::ErasureCopies::default()],
                ..v1::ErasurePlace::default()
            }],
            ..v1::Answer::default()
        }),
        Kind::Claim(v1::Claim { division: child.to_string(), ..v1::Claim::default() }),
        Kind::Goodbye(v1::Goodbye::default()),
    ]
    .map(frame)
    .into()
}

#[test]
fn frames() {
    let turn = turn();
    let samples: Vec<Vec<u8>> = frames_of(CHILD).iter().map(Message::encode_to_vec).collect();
    fuzz(&turn, "frames", &samples, |input| {
        let Ok(frame) = v1::Frame::decode(input) else { return };
        assert_eq!(v1::Frame::decode(&*frame.encode_to_vec()).as_ref(), Ok(&frame));
        for greeted in [false, true] {
            run(&mut session(greeted), frame.clone());
        }
        if let Some(Kind::Answer(answer)) = frame.kind {
            judge(answer);
        }
    });
}

/// Joins what an answer says of nodes: that all have purged is said only where each said so, and knows the same.
fn judge(answer: v1::Answer) {
    let mut places = answer.erasures;
    erased::settle(&mut places);
    let is_settled = |place: &v1::ErasurePlace| {
        [v1::ErasurePlaceState::Purged, v1::ErasurePlaceState::Absent].contains(&place.state())
    };
    let everywhere = erased::spread(&places, false) == v1::ErasureSpread::Everywhere;
    assert!(!everywhere || places.iter().all(is_settled));
    assert!(erased::spread(&places, true) != v1::ErasureSpread::Everywhere);
    let _ = whereabouts::judge(&answer.places, &answer.links);
}

/// The input is a payload; what it claims to be before compression is drawn from its first bytes, too.
#[test]
fn payloads_of_batches() {
    let turn = turn();
    let (payload, _) = packed(records());
    let empty = [0x0a, 0].repeat(500_000);
    let samples = [payload, zstd(&empty), zstd(&[0; 1 << 20]), zstd(&vec![0; 64 << 20])];
    fuzz(&turn, "payloads", &samples, |input| {
        for raw_bytes in [1 << 10, 1 << 20, u32::MAX] {
            run(&mut session(true), frame(Kind::Batch(batch(Bytes::copy_from_slice(input), raw_bytes))));
        }
    });
}

/// The input is what a payload holds.
#[test]
fn batches_of_records() {
    let turn = turn();
    let bombs = [[0x0a, 0].repeat(40_000), [0x0a, 2, 0x12, 0].repeat(900)];
    let samples = [bombs.to_vec(), vec![v1::RecordBatch { records: records() }.encode_to_vec()]].concat();
    let schema = Schema::current();
    fuzz(&turn, "batches", &samples, |input| {
        let sent = batch(zstd(input).into(), input.len() as u32);
        let records = run(&mut session(true), frame(Kind::Batch(sent)));
        let batch = Batch::read(&schema, &records);
        assert!(batch.names().count() <= records.len());
    });
}

/// The input is a record's state: from a peer, and out of the store.
#[test]
fn states_of_records() {
    let turn = turn();
    let samples: Vec<Vec<u8>> = records().into_iter().map(|record| record.state.to_vec()).collect();
    let (schema, divisions) = (Schema::current(), Divisions::embedded());
    let mut topology = Topology::new(division(PARENT));
    topology.add_child(PeerId(1), division(CHILD));
    let ctx = Context {
        schema: &schema,
        topology: &topology,
        divisions: &divisions,
        now_ms: 9_000,
        drift_ms: 1_000,
    };
    fuzz(&turn, "records", &samples, |input| {
        let state = Bytes::copy_from_slice(input);
        if let Ok(pieces) = raw::split(&state) {
            assert_eq!(pieces.iter().map(|piece| piece.1.len()).sum::<usize>(), input.len());
        }
        let Ok(record) = codec::decode(state.clone()) else { return };
        assert_eq!(codec::decode(codec::encode(&record)).as_ref(), Ok(&record));
        for kind in schema.kinds() {
            let home = division(CHILD);
            assert_eq!(Audience::of(kind, home, &record).divisions()[0], home);
            for (number, register) in record.fields() {
                let shown = kind.field(*number).and_then(|field| view::shown(field, register, home));
                assert!(shown.is_none() || register.live().next().is_some());
            }
            for role in [Role::Child, Role::Parent] {
                take(ctx, role, kind.rule.collection, &state);
            }
        }
    });
}

/// As a peer sends it: everything that is counted, found and passed on of the record is worked out.
fn take(ctx: Context<'_>, role: Role, collection: &str, state: &Bytes) {
    let name = format!("divisions/{}/{collection}/1", division(CHILD));
    let sent = v1::BatchRecord { name: name.clone(), state: state.clone(), ..v1::BatchRecord::default() };
    let mut writers = Writers::new(Vec::new());
    writers.provide_ids(2, || 9);
    let mut work = Work::new(ctx, &mut writers);
    work.bring(RecordName::parse(ctx.schema, &name).unwrap(), 1, None).unwrap();
    let sender = Sender {
        peer: PeerId(1),
        role,
        division: division(if role == Role::Child { CHILD } else { "2208" }),
        recovering_to: None,
        same_epoch: true,
        bulk: false,
    };
    work.take_batch(&sender, Batch::read(ctx.schema, &[sent]));
    for change in work.finish().records {
        codec::decode(change.state).unwrap();
    }
}
