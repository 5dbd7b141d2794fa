//! Random interleavings of everything two drivers do, with connections that break at any frame.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::session::lanes::LANES;

#[derive(Clone, Debug)]
enum Op {
    Write { node: usize, lane: usize, records: usize, bytes: usize },
    Read { node: usize },
    Carry { node: usize, frames: usize },
    Commit { node: usize, which: usize },
    StoreToken,
    Grant { node: usize, window_bytes: u32 },
    RepeatReceipt { node: usize },
    Break { windows: [u32; 2] },
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0..2usize;
    let window = prop_oneof![Just(0u32), 1..20_000u32, Just(1 << 20)];
    prop_oneof![
        6 => (node.clone(), 0..3usize, 0..6usize, 0..3_000usize)
            .prop_map(|(node, lane, records, bytes)| Op::Write { node, lane, records, bytes }),
        8 => node.clone().prop_map(|node| Op::Read { node }),
        16 => (node.clone(), 1..6usize).prop_map(|(node, frames)| Op::Carry { node, frames }),
        8 => (node.clone(), any::<usize>()).prop_map(|(node, which)| Op::Commit { node, which }),
        4 => Just(Op::StoreToken),
        1 => (node.clone(), window.clone()).prop_map(|(node, window_bytes)| Op::Grant { node, window_bytes }),
        1 => node.prop_map(|node| Op::RepeatReceipt { node }),
        1 => [window.clone(), window].prop_map(|windows| Op::Break { windows }),
    ]
}

/// A node: its end of the link, its outbox, and what it has on disk.
struct Node {
    session: Session,
    outbox: BTreeMap<i64, (usize, Vec<v1::BatchRecord>)>,
    /// Frames on their way to this node.
    wire: VecDeque<v1::Frame>,
    ingesting: Vec<Inbound>,
    on_disk: BTreeMap<String, Bytes>,
    /// Rows delivered over this connection.
    delivered: BTreeSet<i64>,
}

impl Node {
    fn new(side: Side) -> Node {
        Node {
            session: Session::new(settings(side, None, 1 << 20), 0),
            outbox: BTreeMap::new(),
            wire: VecDeque::new(),
            ingesting: Vec::new(),
            on_disk: BTreeMap::new(),
            delivered: BTreeSet::new(),
        }
    }

    fn answer(&mut self, want: Want) {
        let lane = LANES.iter().position(|lane| *lane == want.lane).unwrap();
        let mut bytes = 0;
        let fits = |row: &OutboxRow| {
            let before = bytes;
            bytes += row.records.iter().map(Message::encoded_len).sum::<usize>();
            before < want.budget_bytes
        };
        let rows = self.outbox.iter().filter(|(seq, row)| row.0 == lane && Some(**seq) > want.after_seq);
        let rows = rows.map(|(seq, row)| OutboxRow { seq: *seq, records: row.1.clone() });
        self.session.offer(want.lane, rows.take_while(fits).collect());
    }

    fn commit(&mut self, which: usize) {
        if self.ingesting.is_empty() {
            return;
        }
        let batch = self.ingesting.remove(which % self.ingesting.len());
        self.on_disk.extend(batch.records.into_iter().map(|record| (record.name, record.state)));
        self.session.ingested(batch.batch_id, vec![]);
    }
}

struct World {
    /// The child and the parent.
    nodes: [Node; 2],
    token: Option<Token>,
    token_to_store: Option<Token>,
    issued: IssuedTokens,
    next_seq: i64,
    truth: [BTreeMap<String, Bytes>; 2],
}

impl World {
    fn new() -> World {
        World {
            nodes: [Node::new(Side::Child), Node::new(Side::Parent)],
            token: None,
            token_to_store: None,
            issued: IssuedTokens::default(),
            next_seq: 0,
            truth: Default::default(),
        }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Write { node, lane, records, bytes } => self.write(node, lane, records, bytes),
            Op::Read { node } => {
                if let Some(want) = self.nodes[node].session.wants() {
                    self.nodes[node].answer(want);
                }
            }
            Op::Carry { node, frames } => self.carry(node, frames),
            Op::Commit { node, which } => self.nodes[node].commit(which),
            Op::StoreToken => self.store_token(),
            Op::Grant { node, window_bytes } => self.nodes[node].session.grant(window_bytes),
            Op::RepeatReceipt { node } => {
                let wire = &mut self.nodes[node].wire;
                let receipt = wire.iter().find(|f| matches!(f.kind, Some(Kind::Receipt(_)))).cloned();
                wire.extend(receipt);
            }
            Op::Break { windows } => self.reconnect(windows),
        }
        self.drive(0);
        self.drive(1);
    }

    fn write(&mut self, node: usize, lane: usize, records: usize, bytes: usize) {
        self.next_seq += 1;
        let seq = self.next_seq;
        let record = |i: usize| v1::BatchRecord {
            name: format!("{seq}-{i}"),
            state: noise((seq as u64) << 8 | i as u64, bytes * (1 + i * i)),
            ..Default::default()
        };
        let records: Vec<_> = (0..records).map(record).collect();
        self.truth[node].extend(records.iter().map(|r| (r.name.clone(), r.state.clone())));
        self.nodes[node].outbox.insert(seq, (lane, records));
        self.nodes[node].session.notify(LANES[lane]);
    }

    fn carry(&mut self, node: usize, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.nodes[node].wire.pop_front() else { return };
            self.nodes[node].session.handle_frame(0, frame).unwrap();
            self.drive(node);
        }
    }

    fn store_token(&mut self) {
        if let Some(token) = self.token_to_store.take() {
            self.token = Some(token);
            self.nodes[0].session.token_stored(0xc);
        }
    }

    fn reconnect(&mut self, windows: [u32; 2]) {
        self.token_to_store = None;
        let token = self.token;
        for (node, (side, window)) in
            self.nodes.iter_mut().zip([Side::Child, Side::Parent].into_iter().zip(windows))
        {
            node.session = Session::new(settings(side, token, window), 0);
            node.wire.clear();
            node.delivered.clear();
            // What was being written gets to the disk or does not.
            let half = node.ingesting.len() / 2;
            for batch in std::mem::take(&mut node.ingesting).into_iter().take(half) {
                node.on_disk.extend(batch.records.into_iter().map(|record| (record.name, record.state)));
            }
        }
    }

    /// Does what the session of a node asks for, and checks it.
    fn drive(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].session.poll(0) {
            let [child, parent] = &mut self.nodes;
            let (this, other) = if node == 0 { (child, parent) } else { (parent, child) };
            match output {
                Output::Send(frame) => other.wire.push_back(frame),
                Output::Greeted(hello) => {
                    let returned = hello.token.map(Token::from);
                    let recognition = recognise(&self.issued, returned);
                    let expected =
                        if returned.is_some() { v1::Recognition::Known } else { v1::Recognition::New };
                    assert_eq!(recognition, expected);
                    let (token, issued) = self.issued.issue(returned, recognition, 5);
                    self.issued = issued;
                    this.session.welcome(0, 0xa, recognition, token);
                }
                Output::Welcomed(welcome) => self.token_to_store = welcome.token.map(Token::from),
                Output::TokenConfirmed => self.issued = self.issued.confirmed(),
                Output::Ingest(batch) => {
                    assert!(batch.same_epoch);
                    this.ingesting.push(batch);
                }
                Output::Delivered { seqs, .. } => {
                    for seq in seqs {
                        assert!(this.delivered.insert(seq), "row {seq} was delivered twice");
                        let (_, records) = this.outbox.remove(&seq).unwrap();
                        for record in records {
                            assert_eq!(
                                other.on_disk.get(&record.name),
                                Some(&record.state),
                                "row {seq} is not there"
                            );
                        }
                    }
                }
                Output::Drained => assert!(this.outbox.is_empty()),
                other => panic!("{other:?}"),
            }
        }
        let stats = self.nodes[node].session.stats();
        assert!(stats.in_flight_bytes <= 1 << 20 || stats.in_flight_batches <= 1);
        assert!(stats.in_flight_batches <= IN_FLIGHT_BATCHES_MAX);
    }

    /// Both ends do all they can until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.act(Op::StoreToken);
            for node in 0..2 {
                while let Some(want) = self.nodes[node].session.wants() {
                    self.nodes[node].answer(want);
                }
                self.drive(node);
                self.carry(node, usize::MAX);
                while !self.nodes[node].ingesting.is_empty() {
                    self.nodes[node].commit(0);
                }
                self.drive(node);
            }
            if self
                .nodes
                .iter()
                .all(|n| n.session.is_drained() && n.session.position().is_some() && n.wire.is_empty())
            {
                return;
            }
        }
        panic!("the link did not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_row_arrives_and_none_is_called_delivered_before(ops in proptest::collection::vec(op(), 1..250)) {
        let mut world = World::new();
        world.drive(0);
        ops.into_iter().for_each(|op| world.act(op));
        world.settle();
        for (node, truth) in world.truth.iter().enumerate() {
            prop_assert!(world.nodes[node].outbox.is_empty());
            prop_assert_eq!(&world.nodes[1 - node].on_disk, truth);
            prop_assert!(world.nodes[node].session.is_idle());
            prop_assert_eq!(world.nodes[node].session.buffers(), 0);
        }
    }

    #[test]
    fn an_urgent_row_is_in_the_batch_after_the_one_under_way(bulk in 1..40i64, parts_sent in 0..6usize) {
        let (mut child, _) = open_pair();
        child.offer(v1::Lane::Bulk, (1..=bulk).map(|seq| super::row(seq, noise(1, 3_500))).collect());
        let mut last_id = 0;
        for _ in 0..parts_sent {
            if let Some(v1::Frame { kind: Some(Kind::Batch(part)) }) = child.poll_frame(0) {
                last_id = part.batch_id;
            }
        }
        child.offer(v1::Lane::Urgent, vec![super::row(1_000, noise(1, 500))]);
        let urgent = std::iter::from_fn(|| child.poll_frame(0)).find_map(|frame| match frame.kind {
            Some(Kind::Batch(part)) if part.lane() == v1::Lane::Urgent => Some(part.batch_id),
            _ => None,
        });
        prop_assert_eq!(urgent, Some(last_id + 1));
    }
}
