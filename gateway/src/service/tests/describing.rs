//! The record that a node keeps of itself.

use std::sync::Arc;

use super::super::NodeInfo;
use super::super::describing::Describing;
use super::*;

fn describing(node: &Node, version: &str) -> Describing {
    let info = NodeInfo {
        software_version: version.into(),
        started_ms: 1,
        certificate_expire_ms: Arc::new(|| Some(5_000)),
        refused_connections: Arc::new(Vec::new),
        parent_line: Default::default(),
        bundles: None,
        warnings: Arc::new(Vec::new),
    };
    Describing { engine: node.engine.clone(), links: node.links.clone(), info, written_ms: 0 }
}

async fn said(at: &Node, of: &Node) -> v1::Node {
    let name = at.engine.name(&format!("divisions/{}/nodes/node", of.own)).unwrap();
    let record = at.record(&name).await.unwrap_or_default();
    v1::Node::decode(view::record(&at.engine.shared().schema, &name, &record, |_| true).fields).unwrap()
}

#[tokio::test]
async fn a_node_tells_those_above_what_it_is_and_then_rests() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let mut own = describing(&township, "1.2.3");
    own.look().await.unwrap();
    let line = link(&township, &county).await;
    until(async || said(&county, &township).await.software_version() == "1.2.3").await;
    let node = said(&county, &township).await;
    assert_eq!((node.tier(), &node.acts_for[..]), (v1::Tier::Township, &["220822101000".to_owned()][..]));
    assert_eq!(node.certificate_expire_time.unwrap().seconds, 5);

    let revision = async || {
        let stored = township.engine.name("divisions/220822101000/nodes/node").unwrap();
        township.engine.shared().store.get(&stored).await.unwrap().unwrap().revision
    };
    let before = revision().await;
    for _ in 0..5 {
        own.look().await.unwrap();
    }
    assert_eq!(revision().await, before, "counts are told every few minutes only");
    own.written_ms = 0;
    until(async || {
        own.look().await.unwrap();
        said(&county, &township).await.last_linked_time.is_some()
    })
    .await;
    line.cut().await;
    own.written_ms = 0;
    let before = revision().await;
    own.look().await.unwrap();
    assert_eq!(revision().await, before, "while nobody hears it, it does not count what it owes");
    let mut newer = describing(&township, "1.3.0");
    newer.look().await.unwrap();
    assert_ne!(revision().await, before);
}

#[tokio::test]
async fn what_a_node_said_in_a_life_that_it_lost_leaves_no_conflict() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    describing(&township, "1").look().await.unwrap();
    until(async || said(&county, &township).await.software_version() == "1").await;
    line.cut().await;
    let (township, backup) = township.backup().await;
    let line = link(&township, &county).await;
    describing(&township, "2").look().await.unwrap();
    until(async || said(&county, &township).await.software_version() == "2").await;
    line.cut().await;
    let township = township.replace(backup).await;
    describing(&township, "3").look().await.unwrap();
    let _line = link(&township, &county).await;
    let conflicts = async |node: &Node| node.engine.shared().store.counts().await.unwrap().conflicts;
    until(async || conflicts(&township).await > 0).await;
    until(async || {
        describing(&township, "3").look().await.unwrap();
        conflicts(&township).await + conflicts(&county).await == 0
    })
    .await;
    // Before word of it arrives the county has no conflict either.
    until(async || said(&county, &township).await.software_version() == "3").await;
}
