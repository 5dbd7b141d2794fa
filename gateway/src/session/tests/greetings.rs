//! The life of a link, step by step.

use super::*;
use v1::GoodbyeReason as Reason;

fn frame(kind: Kind) -> v1::Frame {
    v1::Frame { kind: Some(kind) }
}

#[test]
fn nothing_is_sent_before_the_token_is_stored_nor_given_to_ingest() {
    let mut child = Session::new(settings(Side::Child, None, 100_000), 0);
    let mut parent = Session::new(settings(Side::Parent, None, 100_000), 0);
    assert!(child.wants().is_none() && parent.wants().is_none());
    give(&mut child, &mut parent);
    assert!(parent.wants().is_none());
    let Some(Output::Greeted(hello)) = parent.poll(0) else { panic!() };
    assert_eq!((hello.token, hello.epoch, hello.revision), (None, 0xc, 1));
    parent.welcome(0, 0xa, v1::Recognition::New, Token { counter: 1, random: 2 });
    parent.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    give(&mut parent, &mut child);

    let before = events(&mut child);
    assert!(
        matches!(&before[..], [Output::Welcomed(w)] if w.token == Some(v1::Token { counter: 1, random: 2 }))
    );
    assert!(child.wants().is_none() && child.poll_frame(0).is_none());
    child.token_stored(0xc);
    assert!(matches!(&events(&mut child)[..], [Output::Ingest(batch)] if batch.same_epoch));
    child.ingested(1, vec![]);
    give(&mut child, &mut parent);
    let after = events(&mut parent);
    assert!(matches!(&after[..], [Output::TokenConfirmed, Output::Delivered { seqs, .. }] if seqs == &[1]));
}

#[test]
fn refusals_and_revisions_travel() {
    let (mut child, mut parent) = open_pair();
    child.set_revision(40);
    child.offer(v1::Lane::Normal, vec![row(1, noise(1, 40_000))]);
    give(&mut child, &mut parent);
    assert_eq!(parent.peer_revision(), 40);
    let refusal = v1::Refusal { record: "1".into(), field: 3, ..Default::default() };
    parent.set_revision(70);
    let never_sent = v1::Refusal { record: "2".into(), ..refusal.clone() };
    parent.ingested(1, vec![refusal.clone(), never_sent]);
    give(&mut parent, &mut child);
    assert_eq!(child.peer_revision(), 70);
    assert_eq!(events(&mut child), [Output::Delivered { seqs: vec![1], refusals: vec![refusal] }]);
    assert_eq!((child.stats().refused, child.stats().delivered_rows), (1, 1));
}

#[test]
fn a_receipt_of_another_epoch_is_ignored_and_a_batch_of_one_is_marked() {
    let (mut child, mut parent) = open_pair();
    child.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    while child.poll_frame(0).is_some() {}
    let receipt = |epoch, peer_epoch| {
        frame(Kind::Receipt(v1::Receipt {
            batch_id: 1,
            epoch,
            peer_epoch,
            revision: 99,
            ..Default::default()
        }))
    };
    child.handle_frame(0, receipt(0xb, 0xc)).unwrap();
    child.handle_frame(0, receipt(0xa, 0xd)).unwrap();
    assert_eq!((child.stats().ignored_receipts, child.peer_revision()), (2, 1));
    assert_eq!(events(&mut child), []);
    child.handle_frame(0, receipt(0xa, 0xc)).unwrap();
    assert_eq!(events(&mut child).len(), 1);

    for (batch_id, (epoch, peer_epoch)) in [(0xc, 0xa), (0xd, 0xa), (0xc, 0xb)].into_iter().enumerate() {
        let (payload, raw_bytes) = payload::pack(vec![]).unwrap();
        let (batch_id, raw_bytes) = (batch_id as u64 + 1, raw_bytes as u32);
        let batch =
            v1::Batch { batch_id, epoch, peer_epoch, raw_bytes, last: true, payload, ..Default::default() };
        parent.handle_frame(0, frame(Kind::Batch(batch))).unwrap();
    }
    let same = |output: &Output| matches!(output, Output::Ingest(batch) if batch.same_epoch);
    assert_eq!(events(&mut parent)[1..].iter().map(same).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_child_that_was_restored_goes_on_as_a_new_store() {
    let mut child = Session::new(settings(Side::Child, Some(Token { counter: 3, random: 3 }), 100_000), 0);
    let mut parent = Session::new(settings(Side::Parent, None, 100_000), 0);
    give(&mut child, &mut parent);
    parent.welcome(0, 0xa, v1::Recognition::ChildRestored, Token { counter: 9, random: 9 });
    parent.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    give(&mut parent, &mut child);
    child.token_stored(0xcc);
    assert!(matches!(&events(&mut child)[1..], [Output::Ingest(batch)] if batch.same_epoch));
    child.ingested(1, vec![]);
    child.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    give(&mut child, &mut parent);
    let seen = events(&mut parent);
    assert!(
        matches!(&seen[2..], [Output::Delivered { .. }, Output::Ingest(batch)] if batch.same_epoch),
        "{seen:?}"
    );
    parent.ingested(1, vec![]);
    give(&mut parent, &mut child);
    assert!(matches!(&events(&mut child)[..], [Output::Delivered { .. }]));
}

#[test]
fn frames_out_of_order_end_the_link_and_are_named() {
    let hello = || {
        frame(Kind::Hello(v1::Hello { division: CHILD.to_string(), protocol_max: 1, ..Default::default() }))
    };
    let batch = || frame(Kind::Batch(v1::Batch::default()));
    let expect = |mut session: Session, frame, text: &str| {
        let error = session.handle_frame(0, frame).unwrap_err();
        assert_eq!(error.to_string(), text);
        let Some(v1::Frame { kind: Some(Kind::Goodbye(goodbye)) }) =
            std::iter::from_fn(|| session.poll_frame(0)).last()
        else {
            panic!("no goodbye")
        };
        assert_eq!((goodbye.reason(), &*goodbye.detail), (Reason::ProtocolError, text));
        assert_eq!(only_end(&mut session).reason, Reason::ProtocolError);
        assert_eq!(session.poll(0), None);
        assert_eq!(session.handle_frame(0, batch()), Ok(()), "nothing counts after the end");
    };
    let new = |side| Session::new(settings(side, None, 0), 0);
    expect(new(Side::Parent), batch(), "a Batch came before the Hello");
    expect(new(Side::Child), batch(), "a Batch came before the Welcome");
    expect(new(Side::Child), hello(), "a Hello came before the Welcome");
    let mut deciding = new(Side::Parent);
    deciding.handle_frame(0, hello()).unwrap();
    deciding.poll_event();
    expect(deciding, batch(), "a Batch came before the Hello was answered");
    expect(open_pair().1, hello(), "a Hello came after the greeting");
    expect(open_pair().0, frame(Kind::Welcome(v1::Welcome::default())), "a Welcome came after the greeting");
    expect(open_pair().1, batch(), "part 0 of batch 0 came where part 0 of batch 1 was due");
}

#[test]
fn a_stranger_is_told_why_and_frames_of_the_future_are_passed_over() {
    let mut parent = Session::new(settings(Side::Parent, None, 0), 0);
    parent.handle_frame(0, v1::Frame::default()).unwrap();
    let hello = v1::Hello { division: "220822102000".into(), protocol_max: 1, ..Default::default() };
    parent.handle_frame(0, frame(Kind::Hello(hello))).unwrap_err();
    parent.poll_frame(0).unwrap();
    assert_eq!(only_end(&mut parent).reason, Reason::WrongDivision);
}

#[test]
fn silence_ends_a_link() {
    let mut child = Session::new(settings(Side::Child, None, 0), 1_000);
    child.handle_timeout(10_999);
    assert_eq!(child.next_timeout(), Some(11_000));
    child.handle_timeout(11_000);
    while child.poll_frame(11_000).is_some() {}
    let end = only_end(&mut child);
    assert_eq!((end.reason, &*end.detail), (Reason::Timeout, "no greeting for 10 s"));
    assert_eq!(child.next_timeout(), None);

    let (mut child, _) = open_pair();
    assert_eq!(child.next_timeout(), None, "an idle link may be silent");
    child.offer(v1::Lane::Bulk, vec![row(1, noise(1, 10))]);
    while child.poll_frame(5_000).is_some() {}
    assert_eq!(child.next_timeout(), Some(65_000));
    child.handle_timeout(65_000);
    child.poll_frame(65_000).unwrap();
    assert_eq!(only_end(&mut child).detail, "no receipt for 60 s");
}

#[test]
fn a_shutdown_waits_for_what_is_being_written_but_not_for_ever() {
    for in_time in [true, false] {
        let (mut child, mut parent) = open_pair();
        child.offer(v1::Lane::Normal, (1..=3).map(|seq| row(seq, noise(1, 4_000))).collect());
        give(&mut child, &mut parent);
        assert!(matches!(parent.poll_event(), Some(Output::TokenConfirmed)));
        assert!(matches!(parent.poll_event(), Some(Output::Ingest(batch)) if batch.batch_id == 1));
        parent.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
        parent.shutdown(1_000, Reason::Busy, "too much\u{1b} to do", 7_000);
        assert_eq!(parent.poll(1_000), None, "batches 2 and 3 were not given to ingest");
        if in_time {
            parent.ingested(1, vec![]);
        } else {
            assert_eq!(parent.next_timeout(), Some(6_000));
            parent.handle_timeout(6_000);
            parent.ingested(1, vec![]);
        }
        give(&mut parent, &mut child);
        assert!(!only_end(&mut parent).by_peer);
        let told = events(&mut child);
        let end = End {
            by_peer: true,
            reason: Reason::Busy,
            detail: "too much to do".into(),
            retry_after_ms: 7_000,
        };
        assert_eq!(told.last(), Some(&Output::End(end)));
        assert_eq!(told.len(), if in_time { 2 } else { 1 });
    }
}

#[test]
fn what_arrived_before_a_goodbye_is_still_given_to_ingest() {
    let (mut child, mut parent) = open_pair();
    child.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    give(&mut child, &mut parent);
    child.shutdown(0, Reason::Shutdown, "", 0);
    give(&mut child, &mut parent);
    let seen = events(&mut parent);
    assert!(matches!(&seen[1..], [Output::Ingest(_), Output::End(_)]), "{seen:?}");
}

#[test]
fn checksums_go_out_only_where_the_link_stands_as_when_they_were_read() {
    let (mut child, mut parent) = open_pair();
    assert!(!child.is_drained(), "the outbox was not read yet");
    all_empty(&mut child);
    all_empty(&mut parent);
    assert_eq!(events(&mut child), [Output::Drained]);
    let nothing = child.position();
    assert!(nothing.is_some() && child.queue_checksum(nothing, v1::Checksum::default()));
    give(&mut child, &mut parent);
    let seen = events(&mut parent);
    assert!(
        matches!(seen[..], [Output::TokenConfirmed, Output::PeerChecksum(_), Output::Drained]),
        "{seen:?}"
    );

    parent.notify(v1::Lane::Normal);
    assert!(!parent.is_drained(), "something is owed");
    parent.offer(v1::Lane::Normal, vec![row(1, noise(1, 10))]);
    parent.hold(true);
    assert_eq!(parent.poll_frame(0), None, "it pauses");
    assert!(parent.position().is_some(), "what waits here is not under way");
    parent.hold(false);
    give(&mut parent, &mut child);
    assert_eq!((child.position(), parent.position()), (None, None), "a batch is being ingested");
    assert!(!child.queue_checksum(nothing, v1::Checksum::default()));
    child.ingested(1, vec![]);
    assert!(!child.queue_checksum(nothing, v1::Checksum::default()), "the link has moved on");
    give(&mut child, &mut parent);
    let after = parent.position().unwrap();
    assert_eq!((after.last_batch_sent, after.last_batch_received), (1, 0));
}

#[test]
fn claims_go_ahead_and_a_later_one_replaces_one_that_waits() {
    let (mut child, mut parent) = open_pair();
    child.offer(v1::Lane::Urgent, vec![row(1, noise(1, 10))]);
    for through_ms in [1, 2] {
        assert!(child.queue_claim(v1::Claim {
            division: CHILD.to_string(),
            through_ms,
            quarantined_count: 0
        }));
    }
    give(&mut child, &mut parent);
    let seen = events(&mut parent);
    assert!(matches!(&seen[1..], [Output::PeerClaim(claim), Output::Ingest(_)] if claim.through_ms == 2));
}

#[test]
fn an_idle_session_holds_no_buffers_and_says_so_once() {
    let (mut child, mut parent) = open_pair();
    child.offer(v1::Lane::Bulk, (1..50).map(|seq| row(seq, noise(1, 3_000))).collect());
    all_empty(&mut child);
    let mut drained = 0;
    for _ in 0..100 {
        give(&mut child, &mut parent);
        for output in events(&mut parent) {
            if let Output::Ingest(batch) = output {
                parent.ingested(batch.batch_id, vec![]);
            }
        }
        give(&mut parent, &mut child);
        drained += events(&mut child).iter().filter(|o| matches!(o, Output::Drained)).count();
        all_empty(&mut child);
    }
    assert!(child.is_idle() && parent.is_idle());
    assert_eq!((drained, child.buffers(), parent.buffers()), (1, 0, 0));
    assert_eq!(child.stats().delivered_rows, 49);
    child.notify(v1::Lane::Normal);
    all_empty(&mut child);
    assert_eq!(events(&mut child), [Output::Drained], "again, since something may have been owed");
}

#[test]
fn a_receipt_that_refuses_everything_stays_small() {
    let (mut child, mut parent) = open_pair();
    child.offer(v1::Lane::Bulk, vec![row(1, noise(1, 10))]);
    give(&mut child, &mut parent);
    let refusal = v1::Refusal { record: "1".into(), detail: "long".repeat(1_000), ..Default::default() };
    parent.ingested(1, vec![refusal; BATCH_RECORDS_MAX]);
    let receipt = parent.poll_frame(0).unwrap();
    assert!(receipt.encoded_len() < RECEIPT_BYTES_MAX);
    child.handle_frame(0, receipt).unwrap();
    assert_eq!(child.stats().refused, 1_000);
}
