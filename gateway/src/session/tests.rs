//! Two sessions back to back.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fuzz;
mod greetings;
mod questions;
mod random;

use bytes::Bytes;

use super::greeting::{IssuedTokens, Token, recognise};
use super::*;
use crate::division::Division;

const CHILD: u64 = 220822101000;
const PARENT: u64 = 220822000000;

/// Bytes that do not compress.
pub(super) fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..bytes).map(step).collect()
}

fn division(code: u64) -> Division {
    Division::from_code(code).unwrap()
}

fn settings(side: Side, token: Option<Token>, window_bytes: u32) -> Settings {
    let (own, peer, epoch) = match side {
        Side::Child => (CHILD, PARENT, 0xc),
        Side::Parent => (PARENT, CHILD, 0xa),
    };
    Settings {
        side,
        own: division(own),
        peer: division(peer),
        epoch,
        revision: 1,
        peer_revision: 0,
        token,
        rules: v1::RuleTable::default(),
        window_bytes,
        software_version: "test".into(),
        limits: Limits { batch_raw_bytes: 4_096, ..Limits::default() },
    }
}

/// Both ends, greeted and open, with nothing under way.
fn open_pair() -> (Session, Session) {
    let mut child = Session::new(settings(Side::Child, None, 100_000), 0);
    let mut parent = Session::new(settings(Side::Parent, None, 100_000), 0);
    give(&mut child, &mut parent);
    assert!(matches!(parent.poll(0), Some(Output::Greeted(_))));
    let (token, _) = IssuedTokens::default().issue(None, v1::Recognition::New, 5);
    parent.welcome(0, 0xa, v1::Recognition::New, token);
    give(&mut parent, &mut child);
    assert!(matches!(child.poll(0), Some(Output::Welcomed(_))));
    child.token_stored(0xc);
    (child, parent)
}

/// Gives all frames of one end to the other.
fn give(from: &mut Session, to: &mut Session) {
    while let Some(frame) = from.poll_frame(0) {
        to.handle_frame(0, frame).unwrap();
    }
}

fn row(seq: i64, state: Bytes) -> OutboxRow {
    let record = v1::BatchRecord { name: seq.to_string(), state, ..Default::default() };
    OutboxRow { seq, records: vec![record] }
}

fn all_empty(session: &mut Session) {
    while let Some(want) = session.wants() {
        session.lane_empty(want.lane);
    }
}

fn events(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn only_end(session: &mut Session) -> End {
    match events(session).pop() {
        Some(Output::End(end)) => end,
        other => panic!("no end but {other:?}"),
    }
}
