//! Who says what when: single turns of a comparison.

use super::*;

#[test]
fn equal_ends_say_so_with_few_reads_whatever_they_hold() {
    let schema = schema();
    let all = records(&schema, 300);
    let mut link = Link::new(all.clone(), all);
    link.rest();
    for end in &link.ends {
        assert!(end.comparing.proof().is_equal());
        assert_eq!(end.noted.last(), Some(&Noted::Equal { after_difference: false }));
        assert!(end.reads <= 2, "{}", end.reads);
    }
    let frames = link.frames;
    link.rest();
    assert_eq!(link.frames, frames, "and then nothing, until the next interval");
    link.rest_for(300_000);
    assert_eq!(link.ends[0].noted.last(), Some(&Noted::Equal { after_difference: false }));
}

#[test]
fn nothing_is_said_while_an_end_counts_its_own_records() {
    let mut link = Link::new(BTreeMap::new(), BTreeMap::new());
    link.ends[1].unknown = Some(Unknown::Counting);
    link.rest_for(2_000);
    let [child, parent] = link.proofs();
    assert_eq!(child.state, ProofState::Unknown(Unknown::PeerCounting));
    assert_eq!(parent.state, ProofState::Unknown(Unknown::Counting));
    link.ends[1].unknown = None;
    link.rest_for(10_000);
    assert!(link.proofs().iter().all(LinkProof::is_equal));
}

#[test]
fn a_difference_that_stays_is_said_and_not_looked_for_again_at_once() {
    let schema = schema();
    let all = records(&schema, 900);
    let mut link = Link::new(all.clone(), all);
    link.ends[0].records.remove(&name(&schema, 10, 10));
    link.step(0);
    while link.ends[1].owed.is_empty() {
        assert!(link.step(0) | link.step(1));
    }
    // It never arrives, and nobody says so.
    link.ends[1].owed.clear();
    link.rest_for(20_000);
    let [child, _] = link.proofs();
    assert_eq!(child.state, ProofState::Differs { records: 1, stays: true });
    assert_eq!(link.ends[0].noted.iter().filter(|n| **n == Noted::Repaired(1)).count(), 1);
    assert!(link.ends[0].noted.contains(&Noted::Stays(1)));
    link.rest_for(300_000);
    assert_eq!(link.ends[1].owed.len(), 1, "with the next interval it is tried again");
    link.deliver();
    link.rest_for(600_000);
    assert!(link.proofs().iter().all(LinkProof::is_equal));
}

#[test]
fn a_link_that_never_rests_pauses_and_what_is_owed_is_left_out() {
    let schema = schema();
    let all = records(&schema, 50);
    let mut link = Link::new(all.clone(), all);
    for end in &mut link.ends {
        end.owed.insert(name(&schema, 3, 3));
        end.position = None;
    }
    link.rest();
    assert_eq!(link.proofs()[0].compared_ms, None);
    link.now_ms += 31_000;
    link.rest();
    assert!(link.ends.iter().all(|end| end.held), "both pause");
    for end in &mut link.ends {
        end.position = Some(Position { last_batch_sent: 4, last_batch_received: 4 });
    }
    link.rest();
    let [child, parent] = link.proofs();
    assert!(child.is_equal() && parent.is_equal(), "{child:?} {parent:?}");
    assert_eq!((child.left_out, child.refused), (1, 0));
    assert!(link.ends.iter().all(|end| !end.held));
}

#[test]
fn a_link_that_does_not_come_to_rest_goes_on_after_a_second() {
    let mut link = Link::new(BTreeMap::new(), BTreeMap::new());
    for end in &mut link.ends {
        end.position = None;
        end.owed.insert(name(&link.schema, 3, 3));
    }
    link.now_ms += 31_000;
    link.rest();
    assert!(link.ends[0].held);
    link.rest_for(1_000);
    assert!(link.ends.iter().all(|end| !end.held));
    assert_eq!(link.proofs()[0].state, ProofState::Unknown(Unknown::Busy));
}

#[test]
fn sums_of_other_batches_are_not_compared() {
    let schema = schema();
    let all = records(&schema, 5);
    let mut link = Link::new(all.clone(), BTreeMap::new());
    // What the child has sent is not all that the parent has received.
    link.ends[0].position = Some(Position { last_batch_sent: 1, last_batch_received: 0 });
    link.rest_for(60_000);
    assert!(link.proofs().iter().all(|proof| proof.compared_ms.is_none()), "{:?}", link.proofs());
    link.ends[1].position = Some(Position { last_batch_sent: 0, last_batch_received: 1 });
    link.ends[1].records = all;
    link.rest_for(300_000);
    assert!(link.proofs().iter().all(LinkProof::is_equal), "{:?}", link.proofs());
}

#[test]
fn an_older_program_proves_nothing() {
    let mut link = Link::new(BTreeMap::new(), BTreeMap::new());
    link.ends[1].comparing.handle_checksum(5, v1::Checksum::default());
    assert_eq!(link.proofs()[1].state, ProofState::Unknown(Unknown::OldProgram));
}

#[test]
fn a_probe_without_a_difference_found_here_is_refused() {
    let schema = schema();
    let all = records(&schema, 30);
    let mut link = Link::new(all.clone(), all);
    link.rest();
    let extent = v1::RecordExtent { home: HOMES[0].to_string(), ..v1::RecordExtent::default() };
    let extent = Some(v1::probe::Extent::Records(extent));
    let probe = v1::Probe { comparison: 2, probe_id: 1, kind: "grid".into(), extent };
    link.ends[1].comparing.handle_probe(probe);
    let view = link.ends[1].view(link.now_ms);
    let step = link.ends[1].comparing.poll(&schema, view);
    assert!(matches!(step, Some(Step::Finding(finding)) if finding.refused), "the child would learn digests");
}

/// A node's clock that is set while a link lives changes what is said of the link, and nothing that is waited for.
#[test]
fn moments_are_said_by_the_nodes_clock_and_waited_for_by_the_links() {
    let schema = schema();
    let all = records(&schema, 3);
    let mut link = Link::new(all.clone(), all);
    link.now_ms = 1_000_000_000;
    link.rest();
    assert_eq!(link.proofs().map(|proof| proof.equal_ms), [Some(1_000_000_000); 2]);
    link.ends[0].wall_ahead_ms = -900_000_000;
    link.ends[1].wall_ahead_ms = 900_000_000;
    link.rest_for(300_000);
    let now_ms = link.now_ms;
    assert!(now_ms >= 1_000_300_000, "the next comparison comes as it would have");
    let said = [now_ms - 900_000_000, now_ms + 900_000_000].map(Some);
    let proofs = link.proofs();
    assert_eq!(proofs.map(|proof| proof.equal_ms), said);
    assert_eq!(proofs.map(|proof| proof.compared_ms), said);
}

#[test]
fn a_request_is_answered_by_what_was_read_after_it() {
    let schema = schema();
    let all = records(&schema, 3);
    let mut link = Link::new(all.clone(), all);
    // The child has read its sums, and no frame has left it.
    assert!(link.step(0));
    assert_eq!(link.ends[0].reads, 1);
    let now_ms = link.now_ms;
    link.ends[0].comparing.compare_now(now_ms, 5);
    while link.ends[0].noted.is_empty() {
        assert!(link.step(0) | link.step(1));
    }
    assert!(link.ends[0].comparing.proof().is_equal());
    assert_eq!(link.ends[0].comparing.answered(), 0, "that one was under way before");
    link.rest();
    assert_eq!(link.ends[0].comparing.answered(), 5, "the next follows at once");
}

#[test]
fn every_comparison_is_told_of_also_where_nothing_is_new() {
    let schema = schema();
    let all = records(&schema, 3);
    let mut link = Link::new(all.clone(), all);
    link.ends[0].owed.insert(name(&schema, 1, 1));
    link.ends[0].comparing.compare_now(1, 1);
    link.rest_for(5_000);
    let before = link.ends[0].noted.len();
    let now_ms = link.now_ms;
    link.ends[0].comparing.compare_now(now_ms, 2);
    link.rest();
    assert_eq!(link.ends[0].comparing.answered(), 2);
    assert!(link.ends[0].noted.len() > before, "whoever waits is woken");
}
