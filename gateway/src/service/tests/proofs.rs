//! Proof of equality between real stores: a record that a disk lost is noticed, brought back, and both ends say so.

use sqlx::Connection;

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
    let before = township.record(&lost).await.unwrap();

    township = tampered(township, "DELETE FROM record WHERE id = '7'").await;
    assert!(township.record(&lost).await.is_none());
    let line = link(&township, &county).await;
    until(async || township.record(&lost).await.is_some()).await;
    equal(&township, &county, now_ms()).await;
    let back = township.record(&lost).await.unwrap();
    assert_eq!(back.get(fields::case::TITLE), before.get(fields::case::TITLE));
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
