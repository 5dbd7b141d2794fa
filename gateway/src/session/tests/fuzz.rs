//! Frames that nobody would send, at any time: refused or passed over, never a panic.

use proptest::prelude::*;

use super::*;

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(0xa), Just(0xc), Just(u64::MAX), any::<u64>()]
}

fn payload_bytes() -> impl Strategy<Value = Bytes> {
    let packed = (0..3usize, 0..40usize).prop_map(|(records, bytes)| {
        let record = v1::BatchRecord { name: "n".into(), state: noise(1, bytes), ..Default::default() };
        payload::pack(vec![record; records]).unwrap().0
    });
    prop_oneof![packed, proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)]
}

fn batch() -> impl Strategy<Value = Kind> {
    let raw_bytes = prop_oneof![0..150u32, any::<u32>()];
    (small(), 0..5i32, small(), small(), 0..3u32, any::<bool>(), raw_bytes, payload_bytes()).prop_map(
        |(batch_id, lane, epoch, peer_epoch, part, last, raw_bytes, payload)| {
            let revision = epoch;
            Kind::Batch(v1::Batch {
                batch_id,
                lane,
                epoch,
                peer_epoch,
                part,
                last,
                raw_bytes,
                payload,
                revision,
            })
        },
    )
}

fn receipt() -> impl Strategy<Value = Kind> {
    (small(), small(), small(), any::<u32>()).prop_map(|(batch_id, epoch, peer_epoch, window_bytes)| {
        let refusals = vec![v1::Refusal { reason: 77, ..Default::default() }];
        Kind::Receipt(v1::Receipt { batch_id, epoch, peer_epoch, refusals, window_bytes, revision: batch_id })
    })
}

fn greeting() -> impl Strategy<Value = Kind> {
    let token =
        proptest::option::of((small(), small()).prop_map(|(c, r)| v1::Token { counter: c, random: r }));
    let of = prop_oneof![Just(CHILD.to_string()), Just(PARENT.to_string()), "[0-9a]{0,13}"];
    (any::<bool>(), of, 0..3u32, token, 0..6i32, any::<u32>()).prop_map(
        |(hello, division, protocol, token, recognition, window_bytes)| match hello {
            true => Kind::Hello(v1::Hello {
                protocol_max: protocol,
                division,
                token,
                window_bytes,
                ..Default::default()
            }),
            false => Kind::Welcome(v1::Welcome {
                protocol,
                division,
                token,
                recognition,
                window_bytes,
                ..Default::default()
            }),
        },
    )
}

fn frame() -> impl Strategy<Value = v1::Frame> {
    let other = (0..6u8, small()).prop_map(|(which, n)| match which {
        0 => Some(Kind::Checksum(v1::Checksum { last_batch_sent: n, ..Default::default() })),
        1 => Some(Kind::Claim(v1::Claim::default())),
        2 => Some(Kind::Ask(v1::Ask { ask_id: n, ..Default::default() })),
        3 => Some(Kind::Answer(v1::Answer { ask_id: n, last: n % 2 == 0, ..Default::default() })),
        4 => Some(Kind::Goodbye(v1::Goodbye { reason: n as i32, ..Default::default() })),
        _ => None,
    });
    let kind = prop_oneof![
        4 => batch().prop_map(Some),
        4 => receipt().prop_map(Some),
        2 => greeting().prop_map(Some),
        1 => other,
    ];
    kind.prop_map(|kind| v1::Frame { kind })
}

#[derive(Clone, Debug)]
enum Op {
    Frame(v1::Frame),
    Offer(i32, i64, usize, usize),
    Ingested(u64),
    Poll(usize),
    Other(u8, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => frame().prop_map(Op::Frame),
        3 => (0..4i32, 0..9i64, 0..4usize, 0..20_000usize).prop_map(|(l, s, n, b)| Op::Offer(l, s, n, b)),
        2 => (0..5u64).prop_map(Op::Ingested),
        4 => (0..9usize).prop_map(Op::Poll),
        2 => (any::<u8>(), small()).prop_map(|(which, n)| Op::Other(which, n)),
    ]
}

fn apply(session: &mut Session, op: Op) {
    match op {
        Op::Frame(frame) => {
            let _ = session.handle_frame(0, frame);
        }
        Op::Offer(lane, seq, records, bytes) => {
            let record = v1::BatchRecord { state: noise(seq as u64, bytes), ..Default::default() };
            let lane = v1::Lane::try_from(lane).unwrap();
            session.offer(lane, vec![OutboxRow { seq, records: vec![record; records] }]);
        }
        Op::Ingested(batch_id) => session.ingested(batch_id, vec![]),
        Op::Poll(times) => (0..times).for_each(|_| drop(session.poll(0))),
        Op::Other(which, n) => match which % 10 {
            0 => session.handle_timeout(n),
            1 => session.welcome(n, n, v1::Recognition::Known, Token { counter: n, random: n }),
            2 => session.welcome(n, n, v1::Recognition::ChildRestored, Token { counter: n, random: n }),
            3 => session.token_stored(n),
            4 => drop(session.wants()),
            5 => session.lane_empty(v1::Lane::Bulk),
            6 => session.notify(v1::Lane::Unspecified),
            7 => session.grant(n as u32),
            8 => session.set_revision(n),
            _ if n == 3 => session.shutdown(n, v1::GoodbyeReason::Shutdown, "", 0),
            _ => drop(session.queue_checksum(session.position(), v1::Checksum::default())),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_and_no_call_panics(
        start in 0..4u8,
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let mut session = match start {
            0 => Session::new(settings(Side::Child, None, 1_000), 0),
            1 => Session::new(settings(Side::Parent, None, 1_000), 0),
            2 => open_pair().0,
            _ => open_pair().1,
        };
        ops.into_iter().for_each(|op| apply(&mut session, op));
        session.shutdown(0, v1::GoodbyeReason::Shutdown, "", 0);
        session.handle_timeout(u64::MAX);
        let rest: Vec<Output> = std::iter::from_fn(|| session.poll(0)).collect();
        let ends = rest.iter().filter(|output| matches!(output, Output::End(_))).count();
        prop_assert!(ends <= 1);
        prop_assert!(session.next_timeout().is_none() && session.wants().is_none());
    }
}
