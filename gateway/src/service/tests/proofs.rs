//! Proof of equality between real stores: a record that a disk lost is noticed, brought back, and both ends say so.

use std::sync::atomic::AtomicI64;

use sqlx::Connection;

use super::whereabouts::verified;
use super::*;
use crate::comparing::{LinkProof, ProofState};

fn proofs(child: &Node, parent: &Node) -> [LinkProof; 2] {
    let up = child.engine.shared().topology().parent().unwrap().0;
    let down = parent.engine.shared().topology().children().find(|c| c.1 == child.own).unwrap().0;
    [child.engine.shared().proof(up), parent.engine.shared().proof(down)]
}

/// Waits until both ends compared after `since_ms`, with nothing on its way, and found each other equal.
async fn equal(child: &Node, parent: &Node, since_ms: u64) {
    until(async || {
        let whole = |proof: &LinkProof| {
            proof.is_equal() && proof.equal_ms >= Some(since_ms) && proof.left_out == proof.refused
        };
        if parent.engine.shared().topology().children().all(|c| c.1 != child.own) {
            return false;
        }
        let done = proofs(child, parent).iter().all(whole);
        if !done {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let up = child.engine.shared().topology().parent().unwrap().0;
            child.engine.shared().compare_now(up);
        }
        done
    })
    .await;
}

fn now_ms() -> u64 {
    (environment().now_ms)()
}

/// How many records and open conflicts the store says that it has.
async fn counts(node: &Node) -> (u64, u64) {
    let counts = node.engine.shared().store.counts().await.unwrap();
    (counts.records, counts.conflicts)
}

/// Stops a node, does something to its file by hand, and starts it again.
async fn tampered(node: Node, statement: &'static str) -> Node {
    let (own, parent, folder) = node.close().await;
    let path = folder.path().join("store.sqlite");
    let mut file = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let done = sqlx::query(statement).execute(&mut file).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    file.close().await.unwrap();
    Node::open(own, parent, environment(), folder).await
}

#[tokio::test]
async fn a_record_that_a_disk_lost_is_noticed_and_brought_back_at_either_end() {
    let mut county = Node::new("220822", None).await;
    let mut township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    for id in 0..20 {
        let name = case(&township, "220822101000", &id.to_string());
        township.write(&name, new_case("220822101000")).await.unwrap();
    }
    equal(&township, &county, 0).await;
    line.cut().await;
    let lost = case(&township, "220822101000", "7");
    // Two values side by side: they are listed as a conflict, also when the record is back.
    township.write(&lost, risk(v1::CaseRisk::Red)).await.unwrap();
    county.write(&lost, LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Green) }).await.unwrap();
    let line = link(&township, &county).await;
    until(async || counts(&township).await == (20, 1) && counts(&county).await == (20, 1)).await;
    equal(&township, &county, now_ms()).await;
    line.cut().await;
    let before = township.record(&lost).await.unwrap();

    township = tampered(township, "DELETE FROM record WHERE id = '7'").await;
    assert!(township.record(&lost).await.is_none());
    until(async || counts(&township).await == (19, 0)).await;
    let line = link(&township, &county).await;
    until(async || township.record(&lost).await.is_some()).await;
    equal(&township, &county, now_ms()).await;
    let back = township.record(&lost).await.unwrap();
    assert_eq!(back.get(fields::case::TITLE), before.get(fields::case::TITLE));
    assert_eq!(counts(&township).await, (20, 1));
    let listed = township.engine.shared().store.conflicts(None, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|row| &row.name).collect::<Vec<_>>(), [&lost]);
    line.cut().await;

    county = tampered(county, "DELETE FROM record WHERE id = '8'").await;
    let _line = link(&township, &county).await;
    let lost = case(&township, "220822101000", "8");
    until(async || county.record(&lost).await.is_some()).await;
    equal(&township, &county, now_ms()).await;
}

#[tokio::test]
async fn before_an_end_has_counted_its_records_nothing_is_said() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    equal(&township, &county, 0).await;
    assert!(township.engine.shared().is_counted() && county.engine.shared().is_counted());
}

#[tokio::test]
async fn what_a_link_proved_outlives_the_process() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    equal(&township, &county, 0).await;
    line.cut().await;
    let (own, parent, folder) = township.close().await;
    let township = Node::open(own, parent, environment(), folder).await;
    let up = township.engine.shared().topology().parent().unwrap().0;
    let proof = township.engine.shared().proof(up);
    assert_eq!(proof.state, ProofState::Equal);
    assert!(proof.equal_ms.is_some());
}

/// By how much the county's clock is wrong.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

fn wrong_now_ms() -> u64 {
    now_ms().saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed))
}

/// Whoever asks is answered by a comparison of after the question, at once, though the clock was set since the link began.
#[tokio::test]
async fn a_clock_that_is_set_while_a_link_lives_changes_no_answer() {
    const DAY_MS: i64 = 86_400_000;
    AHEAD_MS.store(2 * DAY_MS, Ordering::Relaxed);
    let wrong = Environment { now_ms: wrong_now_ms, ..environment() };
    let county = Node::in_environment("220822", None, wrong).await;
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    equal(&township, &county, 0).await;
    for ahead_ms in [0, 5 * DAY_MS, -DAY_MS] {
        AHEAD_MS.store(ahead_ms, Ordering::Relaxed);
        let begun_ms = wrong_now_ms();
        let nodes = verified(&county, "", false).await;
        let link = &nodes[0].links[0];
        assert_eq!(link.state(), v1::EqualityState::Equal, "{link:?}");
        let compared = link.compare_time.as_ref().unwrap();
        let compared_ms = compared.seconds as u64 * 1_000 + compared.nanos as u64 / 1_000_000;
        assert!((begun_ms..=wrong_now_ms()).contains(&compared_ms), "{compared_ms} {begun_ms}");
    }
}
