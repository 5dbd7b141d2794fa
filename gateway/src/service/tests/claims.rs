//! Claims on real stores: how far each node's picture of those below is complete.

use v1::aggregate_service_server::AggregateService;

use super::super::aggregates::Aggregates;
use super::super::{Caller, Who};
use super::*;
use crate::claiming::Claimed;
use crate::completeness::State;

fn claimed(node: &Node, of: &str) -> Option<Claimed> {
    node.engine.shared().claims().get(&division(of)).copied()
}

fn through(node: &Node, of: &str) -> u64 {
    claimed(node, of).map_or(0, |c| c.through_ms)
}

fn now_ms() -> u64 {
    (environment().now_ms)()
}

/// What an aggregate answer says of how complete it is.
async fn aggregates(node: &Node, divisions: &[&str]) -> v1::Completeness {
    let query = v1::AggregateQuery {
        divisions: divisions.iter().map(ToString::to_string).collect(),
        measures: vec!["cases_received".into()],
        period: "2026-10".into(),
        ..v1::AggregateQuery::default()
    };
    let mut request = tonic::Request::new(v1::QueryAggregatesRequest { query: Some(query) });
    let caller = Caller { who: Who::Local, address: String::new() };
    request.extensions_mut().insert(caller);
    let service = Aggregates::new(node.engine.clone(), CancellationToken::new());
    service.query_aggregates(request).await.unwrap().into_inner().completeness.unwrap()
}

#[tokio::test]
async fn a_claim_goes_up_tier_by_tier_with_all_that_it_speaks_of() {
    let prefecture = Node::new("2208", None).await;
    let county = Node::new("220822", Some("2208")).await;
    let township = Node::new("220822101", Some("220822")).await;
    let lower = link(&township, &county).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let written_ms = now_ms();
    until(async || through(&county, "220822101") >= written_ms).await;
    assert!(county.record(&name).await.is_some());
    assert_eq!(through(&prefecture, "220822101"), 0, "the county passes nothing on without a link");
    assert!(prefecture.engine.shared().claims().is_empty());

    let _upper = link(&county, &prefecture).await;
    until(async || through(&prefecture, "220822101") >= written_ms).await;
    assert!(prefecture.record(&name).await.is_some());
    until(async || through(&prefecture, "220822") >= written_ms).await;
    assert!(through(&prefecture, "220822") <= now_ms());

    // Cut off, the township stays behind what is said of it, here and above.
    lower.cut().await;
    township.write(&name, risk(v1::CaseRisk::Red)).await.unwrap();
    let later_ms = now_ms();
    county.write(&name, LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Yellow) }).await.unwrap();
    until(async || through(&prefecture, "220822") > later_ms).await;
    let shared = prefecture.engine.shared();
    let completeness = shared.completeness(division("2208"), later_ms);
    let behind_ms = completeness.through_ms.unwrap();
    assert!(behind_ms >= written_ms && behind_ms < later_ms, "{completeness:?}");
    let answered = aggregates(&prefecture, &["divisions/220822000000"]).await;
    let seconds = (written_ms / 1_000) as i64;
    assert!(answered.complete_through_time.unwrap().seconds >= seconds);
    assert!(answered.as_of_time.unwrap().seconds >= answered.complete_through_time.unwrap().seconds);
    let several =
        aggregates(&prefecture, &["divisions/220822000000", "divisions/220821000000"]).await.incomplete;
    let states: Vec<_> = several.iter().map(|i| (i.division.as_str(), i.state())).collect();
    assert_eq!(states, [("220821000000", v1::CompletenessState::NotLinked)]);
    let own = township.engine.shared().completeness(division("220822101"), later_ms);
    assert_eq!(own.through_ms, Some(later_ms), "at home everything is in");
}

#[tokio::test]
async fn claims_outlive_the_process_and_so_does_the_promise_about_later_stamps() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    until(async || through(&county, "220822101") > 0).await;
    line.cut().await;
    // Stored with the next round.
    until(async || !county.engine.shared().store.claims().await.unwrap().is_empty()).await;
    let floor_ms = township.engine.shared().store.claims().await.unwrap()[&township.own].through_ms;
    assert!(floor_ms >= through(&county, "220822101"), "nothing is claimed that is not on disk");
    let before = through(&county, "220822101");
    let (own, parent, folder) = county.close().await;
    let county = Node::open(own, parent, environment(), folder).await;
    assert!((1..=before).contains(&through(&county, "220822101")));

    // The township starts again with a clock that was put back a little.
    let back: fn() -> u64 = || now_ms() - 120_000;
    let (own, parent, folder) = township.close().await;
    let township = Node::open(own, parent, Environment { now_ms: back, ..environment() }, folder).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let record = township.record(&name).await.unwrap();
    let register = record.get(fields::case::TITLE).unwrap();
    assert!(register.live().all(|(e, _)| e.stamp.ms() > floor_ms), "{register:?}");
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_claims_nothing_and_what_it_claimed_is_withdrawn() {
    let ahead: fn() -> u64 = || now_ms() + 3_600_000;
    let county = Node::new("220822", None).await;
    let wrong = Environment { now_ms: ahead, ..environment() };
    let township = Node::in_environment("220822101", Some("220822"), wrong).await;
    let line = link(&township, &county).await;
    let floor_ms = async |node: &Node| {
        let claims = node.engine.shared().store.claims().await.unwrap();
        claims.get(&node.own).map_or(0, |own| own.through_ms)
    };
    until(async || floor_ms(&township).await > now_ms()).await;
    line.cut().await;
    assert_eq!(
        through(&county, "220822101"),
        0,
        "it is known, and what it says of moments counts for nothing"
    );

    let (own, parent, folder) = township.close().await;
    let township = Node::open(own, parent, environment(), folder).await;
    until(async || floor_ms(&township).await <= now_ms()).await;
    let _line = link(&township, &county).await;
    until(async || through(&county, "220822101") > 0).await;
    assert!(through(&county, "220822101") <= now_ms());
}

#[tokio::test]
async fn a_node_that_was_never_linked_before_is_told_of_at_every_tier() {
    let prefecture = Node::new("2208", None).await;
    let county = Node::new("220822", Some("2208")).await;
    let _upper = link(&county, &prefecture).await;
    until(async || through(&prefecture, "220822") > 0).await;
    let shared = prefecture.engine.shared();
    let not_linked = |i: &&crate::completeness::Incomplete| i.state == State::NotLinked;
    let all = |scope: &str| shared.completeness(division(scope), now_ms() - 60_000);
    let alone = all("220822101").incomplete;
    assert!(alone.iter().all(|i| not_linked(&i)) && alone.len() == 1, "the county acts for it: {alone:?}");
    assert!(all("220822").incomplete.iter().any(|i| not_linked(&i)));

    let township = Node::new("220822101", Some("220822")).await;
    let lower = link(&township, &county).await;
    until(async || claimed(&prefecture, "220822101").is_some()).await;
    lower.cut().await;
    let _lower = link(&township, &county).await;
    until(async || through(&prefecture, "220822101") > 0).await;
}

#[tokio::test]
async fn a_parent_that_was_emptied_is_told_nothing_until_it_has_everything_again() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    for i in 0..50 {
        let name = case(&township, "220822101000", &i.to_string());
        township.write(&name, new_case("220822101000")).await.unwrap();
    }
    let written_ms = now_ms();
    until(async || through(&county, "220822101") >= written_ms).await;
    line.cut().await;
    county.close().await;
    let county = Node::new("220822", None).await;
    let _line = link(&township, &county).await;
    until(async || through(&county, "220822101") > 0).await;
    let last = case(&township, "220822101000", "49");
    assert!(county.record(&last).await.is_some(), "a claim comes after what it speaks of");
    assert_eq!(county.engine.shared().store.counts().await.unwrap().records, 50);
}

#[tokio::test]
async fn a_node_that_was_put_back_claims_nothing_for_itself_until_it_has_recovered() {
    let prefecture = Node::new("2208", None).await;
    let county = Node::new("220822", Some("2208")).await;
    let upper = link(&county, &prefecture).await;
    let (near, far) =
        (Node::new("220822101", Some("220822")).await, Node::new("220822102", Some("220822")).await);
    let lower = (link(&near, &county).await, link(&far, &county).await);
    until(async || through(&prefecture, "220822101") > 0 && through(&prefecture, "220822102") > 0).await;
    for line in [upper, lower.0, lower.1] {
        line.cut().await;
    }
    let (county, backup) = county.backup().await;
    let line = link(&near, &county).await;
    let name = case(&near, "220822101000", "1");
    near.write(&name, new_case("220822101000")).await.unwrap();
    until(async || county.record(&name).await.is_some()).await;
    line.cut().await;

    let county = county.replace(backup).await;
    let line = link(&near, &county).await;
    until(async || county.record(&name).await.is_some()).await;
    until(async || !county.recovers_from(&near).await).await;
    assert!(county.recovers_from(&far).await, "what only it has cannot be known");
    let restored_ms = now_ms();
    let _upper = link(&county, &prefecture).await;
    near.write(&name, risk(v1::CaseRisk::Red)).await.unwrap();
    until(async || through(&prefecture, "220822101") > restored_ms).await;
    assert!(through(&prefecture, "220822") < restored_ms);
    let _far = link(&far, &county).await;
    until(async || through(&prefecture, "220822") > restored_ms).await;
    line.cut().await;
}
