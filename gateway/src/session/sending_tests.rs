//! What goes out when: windows, lanes, parts, and the receipt that delivers a row.

#![allow(clippy::unwrap_used)]

use v1::Lane::{Bulk, Normal, Urgent};

use super::*;
use crate::session::tests::noise;

const KIB: usize = 1024;

fn record(seq: i64, bytes: usize) -> v1::BatchRecord {
    v1::BatchRecord { name: seq.to_string(), state: noise(seq as u64, bytes), ..Default::default() }
}

/// A row of `count` records of `bytes` each, which do not compress.
fn row(seq: i64, count: usize, bytes: usize) -> OutboxRow {
    OutboxRow { seq, records: (0..count).map(|_| record(seq, bytes)).collect() }
}

fn sending(window_bytes: usize) -> Sending {
    let mut sending = Sending::new(&Limits { batch_raw_bytes: 64 * KIB, ..Limits::default() });
    sending.set_window(window_bytes as u32);
    sending
}

/// Sends all that may be sent now; gives the lane and the payload bytes of each batch.
fn send(sending: &mut Sending) -> Vec<(v1::Lane, usize)> {
    let mut batches: Vec<(v1::Lane, usize)> = Vec::new();
    let mut stats = Stats::default();
    while let Some(part) = sending.next_part(0, &mut stats).unwrap() {
        assert!(part.payload.len() <= PART_BYTES_MAX);
        match part.part {
            0 => batches.push((part.lane(), part.payload.len())),
            _ => batches.last_mut().unwrap().1 += part.payload.len(),
        }
    }
    assert_eq!(stats.sent_batches, batches.len() as u64);
    batches
}

fn receipt(sending: &mut Sending, batch_id: u64) -> Option<Vec<i64>> {
    let window_bytes = sending.window_bytes as u32;
    let receipt = v1::Receipt { batch_id, window_bytes, ..Default::default() };
    sending.receipt(0, receipt).map(|delivered| delivered.seqs)
}

#[test]
fn a_row_is_delivered_with_the_last_of_its_batches() {
    let mut sending = sending(1024 * KIB);
    sending.offer(Normal, vec![row(1, 1, 10), row(2, 5, 40 * KIB), row(3, 1, 10)]);
    assert_eq!(send(&mut sending).len(), 5);
    assert_eq!(receipt(&mut sending, 2), Some(vec![]));
    assert_eq!(receipt(&mut sending, 1), Some(vec![1]));
    assert_eq!(receipt(&mut sending, 1), None, "twice");
    assert_eq!(receipt(&mut sending, 4), Some(vec![]));
    assert_eq!(receipt(&mut sending, 5), Some(vec![3]));
    assert_eq!(receipt(&mut sending, 9), None, "never sent");
    assert_eq!(receipt(&mut sending, 3), Some(vec![2]));
    assert!(sending.is_idle());
    assert_eq!(sending.in_flight(), (0, 0));
}

#[test]
fn a_batch_with_parts_to_go_has_no_receipt() {
    let mut sending = sending(1024 * KIB);
    sending.offer(Bulk, vec![row(1, 1, 40 * KIB)]);
    let first = sending.next_part(0, &mut Stats::default()).unwrap().unwrap();
    assert!(!first.last);
    assert_eq!(receipt(&mut sending, first.batch_id), None);
    while sending.next_part(0, &mut Stats::default()).unwrap().is_some() {}
    assert_eq!(receipt(&mut sending, first.batch_id), Some(vec![1]));
}

#[test]
fn rows_of_nothing_are_delivered_at_once_and_rows_under_way_are_not_sent_twice() {
    let mut sending = sending(1024 * KIB);
    assert_eq!(sending.offer(Normal, vec![row(1, 0, 0), row(2, 1, 10)]).seqs, vec![1]);
    assert!(sending.offer(Normal, vec![row(2, 1, 10)]).seqs.is_empty());
    assert_eq!(send(&mut sending).len(), 1);
    sending.offer(Normal, vec![row(2, 1, 10)]);
    assert_eq!(send(&mut sending).len(), 0);
    assert_eq!(receipt(&mut sending, 1), Some(vec![2]));
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut sending = sending(200 * KIB);
    sending.offer(Urgent, vec![row(1, 20, 50 * KIB)]);
    assert_eq!(send(&mut sending).len(), 3);
    assert!(sending.in_flight().0 <= 200 * 1024);
    assert_eq!(sending.wants().unwrap().lane, Normal, "enough that is urgent waits already");
    receipt(&mut sending, 1);
    assert_eq!(send(&mut sending).len(), 1);
}

#[test]
fn one_batch_goes_through_any_window() {
    let mut sending = sending(0);
    sending.offer(Bulk, vec![row(1, 3, 30 * KIB)]);
    for batch_id in 1..=3 {
        assert_eq!(send(&mut sending).len(), 1);
        receipt(&mut sending, batch_id);
    }
    assert!(sending.is_idle());
}

#[test]
fn bulk_leaves_room_for_urgent_and_does_not_go_before_it() {
    let mut sending = sending(400 * KIB);
    sending.offer(Bulk, vec![row(1, 20, 50 * KIB)]);
    assert_eq!(send(&mut sending).len(), 5, "up to three quarters of the window");
    sending.offer(Urgent, vec![row(2, 1, 50 * KIB)]);
    assert_eq!(send(&mut sending).iter().map(|b| b.0).collect::<Vec<_>>(), [Urgent]);
    sending.offer(Urgent, vec![row(3, 1, 50 * KIB)]);
    sending.offer(Normal, vec![row(4, 1, 50 * KIB)]);
    for batch_id in 1..=4 {
        receipt(&mut sending, batch_id);
    }
    assert_eq!(send(&mut sending).iter().map(|b| b.0).collect::<Vec<_>>(), [Urgent, Normal, Bulk]);
}

#[test]
fn no_more_batches_in_flight_than_allowed() {
    let mut sending = sending(64 * 1024 * KIB);
    sending.offer(Urgent, (1..200).map(|seq| row(seq, 1, 60 * KIB)).collect());
    assert_eq!(send(&mut sending).len(), IN_FLIGHT_BATCHES_MAX);
}

#[test]
fn a_record_too_large_for_a_batch_goes_in_parts_or_is_given_back() {
    use crate::division::Division;
    use crate::record::{Record, Register, codec, raw};
    use crate::stamp::{Stamp, Writer};
    let writer = Writer { division: Division::from_code(220822101000).unwrap(), id: 1 };
    let mut large = Record::default();
    for field in 1..=40 {
        let mut value = Vec::new();
        raw::put_message(&mut value, raw::message_tag(field), &noise(u64::from(field), 60 * KIB));
        large.set(field, Register::single(writer, Stamp(1), value.into()));
    }
    let large = v1::BatchRecord { name: "large".into(), state: codec::encode(&large), ..Default::default() };
    let unreadable =
        v1::BatchRecord { name: "unreadable".into(), state: noise(1, 2048 * KIB), ..Default::default() };

    let mut sending = sending(64 * 1024 * KIB);
    let rows = vec![OutboxRow { seq: 1, records: vec![large, unreadable] }];
    let at_once = sending.offer(Normal, rows);
    assert_eq!(at_once.refusals.len(), 1);
    assert_eq!((at_once.seqs, &*at_once.refusals[0].record), (vec![], "unreadable"));
    let batches = send(&mut sending);
    assert!(batches.len() >= 3 && batches.iter().all(|b| b.1 <= BATCH_RAW_BYTES_MAX));
    let delivered: Vec<i64> =
        (1..=batches.len() as u64).flat_map(|id| receipt(&mut sending, id).unwrap()).collect();
    assert_eq!(delivered, [1]);
}

#[test]
fn each_lane_is_asked_for_once_and_from_where_it_was_read() {
    let mut sending = sending(1024 * KIB);
    let asked = [(); 3].map(|()| sending.wants().unwrap());
    assert_eq!(asked.map(|want| want.lane), [Urgent, Normal, Bulk]);
    assert_eq!(sending.wants(), None);
    sending.offer(Normal, vec![row(7, 1, 10)]);
    let again = sending.wants().unwrap();
    assert_eq!((again.lane, again.after_seq), (Normal, Some(7)));
}

#[test]
fn a_notice_during_the_read_is_not_lost() {
    let mut sending = sending(1024 * KIB);
    while sending.wants().is_some() {}
    sending.notify(Normal);
    for lane in [Urgent, Normal, Bulk] {
        sending.lane_empty(lane);
    }
    assert!(!sending.is_drained());
    assert_eq!(sending.wants().unwrap().lane, Normal);
    sending.lane_empty(Normal);
    assert!(sending.is_drained());
    assert_eq!(sending.wants(), None);
    sending.notify(Bulk);
    assert_eq!(sending.wants().unwrap().lane, Bulk);
}

#[test]
fn the_oldest_batch_sets_the_time_limit() {
    let mut sending = sending(1024 * KIB);
    assert_eq!(sending.receipt_due_ms(100), None);
    sending.offer(Normal, vec![row(1, 2, 60 * KIB)]);
    send(&mut sending);
    assert_eq!(sending.receipt_due_ms(100), Some(100));
    sending.receipt(70, v1::Receipt { batch_id: 1, window_bytes: 1, ..Default::default() });
    assert_eq!(sending.receipt_due_ms(100), Some(170), "a slow line is not a dead one");
    sending.receipt(90, v1::Receipt { batch_id: 2, ..Default::default() });
    assert_eq!(sending.receipt_due_ms(100), None);
}
