//! Checksums of links between real engines: both ends come to the same, however the records got there; what was computed
//! page by page is what differences give; and a recount finds what is wrong.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_server::AggregateService;
use tokio_stream::StreamExt;

use super::figures::{called, service};
use super::{Node, case, division, link, new_case, risk, until, value};
use crate::engine::SumRepair;
use crate::ingest::changes::{Changes, LinkChange, SumChange};
use crate::ingest::local::LocalWrite;
use crate::ingest::topology::{PeerId, Role};
use crate::proof::Sum;
use crate::store::LinkStanding;

async fn peer(node: &Node, role: Role, other: &Node) -> PeerId {
    node.engine.peer(role, other.own).await.unwrap().unwrap().id
}

async fn standing(node: &Node, role: Role, other: &Node) -> LinkStanding {
    // Before the first greeting nothing is known.
    let Some(peer) = node.engine.peer(role, other.own).await.unwrap() else { return LinkStanding::default() };
    node.engine.shared().store.link_standing(peer.id, &[]).await.unwrap()
}

/// Both ends know their sums, owe each other nothing, and have the same of something.
async fn are_equal(child: &Node, parent: &Node) -> bool {
    let below = standing(child, Role::Parent, parent).await;
    let above = standing(parent, Role::Child, child).await;
    let at_rest = |end: &LinkStanding| end.owed.as_ref().is_some_and(|owed| owed.is_empty());
    at_rest(&below)
        && at_rest(&above)
        && below.sums.as_ref().is_some_and(|sums| !sums.is_empty())
        && below.sums == above.sums
}

/// What a recount says: links compared, and peer, home, kind and fields of what differs.
async fn recount(node: &Node, repair: bool) -> (u32, Vec<(String, String, String, Vec<u32>)>) {
    let request = called(v1::RecountAggregatesRequest { repair });
    let mut progress = service(node).recount_aggregates(request).await.unwrap().into_inner();
    let (mut links, mut found) = (0, Vec::new());
    while let Some(said) = progress.next().await {
        let said = said.unwrap();
        links = said.link_count;
        found.extend(said.checksum_differences.into_iter().map(|d| (d.peer, d.home, d.kind, d.fields)));
    }
    (links, found)
}

#[tokio::test]
async fn both_ends_come_to_the_same_and_what_is_computed_anew_is_what_was_kept() {
    let county = Node::new("220822", None).await;
    // What the county held before the child was ever there, and what it has of its own.
    let held = case(&county, "220822101000", "held");
    county.write(&held, new_case("220822101000")).await.unwrap();
    let beside = case(&county, "220822102000", "beside");
    county.write(&beside, new_case("220822102000")).await.unwrap();
    let township = Node::new("220822101", Some("220822")).await;
    let before = case(&township, "220822101000", "before");
    township.write(&before, new_case("220822101000")).await.unwrap();
    let line = link(&township, &county).await;
    until(async || are_equal(&township, &county).await).await;
    let first = standing(&county, Role::Child, &township).await.sums;
    township.write(&held, risk(v1::CaseRisk::Red)).await.unwrap();
    county
        .write(&before, LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Green) })
        .await
        .unwrap();
    let changed = async || standing(&county, Role::Child, &township).await.sums != first;
    until(async || changed().await && are_equal(&township, &county).await).await;
    // Parties do not cross: they change no sum.
    let kept = standing(&township, Role::Parent, &county).await.sums;
    let parties = v1::Case {
        parties: vec![v1::Party { name: "李乙".into(), ..v1::Party::default() }],
        ..v1::Case::default()
    };
    township.write(&before, LocalWrite::of(vec![(fields::case::PARTIES, value(parties))])).await.unwrap();
    assert_eq!(standing(&township, Role::Parent, &county).await.sums, kept);
    line.cut().await;
    let id = peer(&township, Role::Parent, &county).await;
    let township = township
        .reopened(async |writer| {
            writer.apply(&Changes::default(), &[LinkChange::ForgetSums(id)], 1).await.unwrap();
        })
        .await;
    until(async || standing(&township, Role::Parent, &county).await.sums == kept).await;
    county.engine.sum_anew(vec![peer(&county, Role::Child, &township).await]).await.unwrap();
    until(async || standing(&county, Role::Child, &township).await.sums == kept).await;
}

#[tokio::test]
async fn sums_of_a_parent_that_was_replaced_are_computed_anew_when_it_is_back() {
    let township = Node::new("220822101", Some("220822")).await;
    let county = Node::new("220822", None).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let known = async |node: &Node| standing(node, Role::Parent, &county).await.sums;
    until(async || known(&township).await.is_some_and(|sums| !sums.is_empty())).await;
    let (own, parent, folder) = township.close().await;
    let elsewhere = Node::open(own, Some(division("2208")), super::environment(), folder).await;
    assert_eq!(known(&elsewhere).await, None, "nobody keeps them up");
    elsewhere.write(&name, risk(v1::CaseRisk::Red)).await.unwrap();
    let (own, _, folder) = elsewhere.close().await;
    let back = Node::open(own, parent, super::environment(), folder).await;
    until(async || known(&back).await.is_some()).await;
    assert_eq!(recount(&back, false).await, (1, vec![]));
}

#[tokio::test]
async fn a_recount_finds_wrong_checksums_and_puts_them_right() {
    let county = Node::new("220822", Some("2208")).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    for id in ["1", "2"] {
        township.write(&case(&township, "220822101000", id), new_case("220822101000")).await.unwrap();
    }
    until(async || are_equal(&township, &county).await).await;
    assert_eq!(recount(&county, false).await, (2, vec![]));
    line.cut().await;
    let id = peer(&county, Role::Child, &township).await;
    let sums = vec![(fields::case::TITLE, Sum(5)), (fields::case::RISK, Sum(5))];
    let kind = case(&county, "220822101000", "1").kind;
    until(async || county.engine.shared().is_counted()).await;
    let wrong = SumChange { peer: id, home: division("220822101"), kind, sums };
    let repair = SumRepair { missing: vec![wrong.clone()], ..SumRepair::default() };
    county.engine.repair_sums(repair).await.unwrap();
    assert!(!are_equal(&township, &county).await);
    let mut differing = vec![fields::case::TITLE, fields::case::RISK];
    differing.sort_unstable();
    let of = |home: &str| ("220822101000".to_owned(), home.to_owned(), "case".to_owned(), differing.clone());
    assert_eq!(recount(&county, true).await, (2, vec![of("220822101000"), of("")]));
    assert!(are_equal(&township, &county).await, "what is missing is added: they are known all the time");
    assert_eq!(recount(&county, false).await, (2, vec![]));
    // What was forgotten meanwhile is not what was compared: it is computed anew.
    county.engine.sum_anew(vec![id]).await.unwrap();
    let late = SumRepair { missing: vec![wrong], ..SumRepair::default() };
    county.engine.repair_sums(late).await.unwrap();
    until(async || are_equal(&township, &county).await).await;
    assert_eq!(recount(&county, false).await, (2, vec![]));
}
