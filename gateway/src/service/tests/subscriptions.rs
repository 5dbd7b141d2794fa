//! Subscriptions: first everything, then changes, until they are acknowledged, and never what is not granted.

use std::collections::BTreeMap;

use futures_core::Stream;
use guantong_proto::rules::fields;
use guantong_proto::v1;
use guantong_proto::v1::subscription_service_server::SubscriptionService;
use prost::Message;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::grants::{from, grant, partner};
use super::{Node, case, new_case, risk, until, value};
use crate::ingest::local::{Basis, LocalWrite};
use crate::record::Record;
use crate::record::audience::Audience;
use crate::service::Who;
use crate::service::subscriptions::Subscriptions;

const TOWNSHIP: &str = "220822101000";
const OTHER: &str = "220822102000";
const FEED: &str = "subscriptions/feed";

type Batches = std::pin::Pin<Box<dyn Stream<Item = Result<v1::ChangeBatch, Status>> + Send>>;

fn service(node: &Node) -> Subscriptions {
    Subscriptions::new(node.engine.clone(), CancellationToken::new())
}

fn wanted(kinds: &[&str], scope: &str, personal_data: bool) -> v1::CreateSubscriptionRequest {
    let kinds = kinds.iter().map(ToString::to_string).collect();
    let subscription =
        v1::Subscription { kinds, scope: scope.into(), personal_data, ..v1::Subscription::default() };
    v1::CreateSubscriptionRequest { subscription_id: "feed".into(), subscription: Some(subscription) }
}

async fn create(service: &Subscriptions, request: v1::CreateSubscriptionRequest) {
    service.create_subscription(from(Who::Local, request)).await.unwrap();
}

async fn read(service: &Subscriptions) -> Batches {
    let request = v1::ReadChangesRequest { name: FEED.into(), everything: false };
    service.read_changes(from(Who::Local, request)).await.unwrap().into_inner()
}

async fn next(batches: &mut Batches) -> Result<v1::ChangeBatch, Status> {
    let batch = tokio::time::timeout(std::time::Duration::from_secs(20), batches.next()).await;
    batch.expect("a batch comes").expect("the feed has not ended")
}

/// How the feed ends.
async fn end(batches: &mut Batches) -> Code {
    loop {
        if let Err(status) = next(batches).await {
            return status.code();
        }
    }
}

async fn acknowledge(service: &Subscriptions, ack_id: &str) -> Result<(), Status> {
    let request = v1::AcknowledgeChangesRequest { name: FEED.into(), ack_id: ack_id.into() };
    service.acknowledge_changes(from(Who::Local, request)).await.map(|_| ())
}

/// Everything until the feed says that it was all, acknowledged where asked, by name.
async fn drain(
    service: &Subscriptions,
    batches: &mut Batches,
    acknowledges: bool,
) -> BTreeMap<String, v1::Change> {
    let mut got = BTreeMap::new();
    loop {
        let batch = next(batches).await.unwrap();
        if acknowledges && !batch.ack_id.is_empty() {
            acknowledge(service, &batch.ack_id).await.unwrap();
        }
        for change in batch.changes {
            assert_eq!(got.insert(change.name.clone(), change), None, "each record once");
        }
        if batch.caught_up {
            return got;
        }
    }
}

fn as_case(change: &v1::Change) -> v1::Case {
    v1::Case::decode(change.fields.clone()).unwrap()
}

async fn get(service: &Subscriptions) -> v1::Subscription {
    let request = v1::GetSubscriptionRequest { name: FEED.into() };
    service.get_subscription(from(Who::Local, request)).await.unwrap().into_inner()
}

async fn reader(service: &Subscriptions) -> String {
    get(service).await.reader_address
}

async fn backlog(service: &Subscriptions) -> u64 {
    get(service).await.backlog.map_or(0, |b| b.urgent_count + b.normal_count + b.bulk_count)
}

#[tokio::test]
async fn everything_comes_first_then_changes_and_what_was_not_acknowledged_comes_again() {
    let node = Node::new("220822", None).await;
    let names: Vec<_> = (0..3).map(|i| case(&node, TOWNSHIP, &i.to_string())).collect();
    for name in &names {
        node.write(name, new_case(TOWNSHIP)).await.unwrap();
    }
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let mut batches = read(&feed).await;
    let all = drain(&feed, &mut batches, true).await;
    assert_eq!(all.len(), 3);
    let first = all.values().next().unwrap();
    assert_eq!((first.kind.as_str(), as_case(first).name.as_str()), ("case", first.name.as_str()));
    assert_eq!(as_case(first).title(), "测试");
    assert!(as_case(first).parties.is_empty(), "personal fields only where they are asked for");
    assert!(!first.etag.is_empty() && first.update_time.is_some());
    until(async || backlog(&feed).await == 0).await;

    // Two steps while nobody acknowledges, then the latest form, once.
    node.write(&names[0], risk(v1::CaseRisk::Green)).await.unwrap();
    let batch = next(&mut batches).await.unwrap();
    assert_eq!(as_case(&batch.changes[0]).risk(), v1::CaseRisk::Green);
    drop(batches);
    node.write(&names[0], risk(v1::CaseRisk::Red)).await.unwrap();
    let deleted = v1::Case { deleted: Some(true), ..Default::default() };
    node.write(&names[1], LocalWrite::of(vec![(fields::DELETED, value(deleted))])).await.unwrap();

    until(async || reader(&feed).await.is_empty()).await;
    drop(feed);
    let node = node.reopened(async |_| {}).await;
    let feed = service(&node);
    let late = acknowledge(&feed, &batch.ack_id).await.unwrap_err();
    assert_eq!(late.get_error_details().error_info().unwrap().reason, "NOT_UNDER_WAY");
    let mut batches = read(&feed).await;
    let first = next(&mut batches).await.unwrap();
    acknowledge(&feed, &first.ack_id).await.unwrap();
    let again = acknowledge(&feed, &first.ack_id).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let mut got = drain(&feed, &mut batches, true).await;
    got.extend(first.changes.into_iter().map(|change| (change.name.clone(), change)));
    let by_name = |id: &str| got.values().find(|c| c.name.ends_with(id)).unwrap();
    assert_eq!((got.len(), as_case(by_name("/0")).risk()), (2, v1::CaseRisk::Red), "not each step");
    assert!(by_name("/1").deleted && !by_name("/0").deleted);
    assert_eq!(backlog(&feed).await, 0);
    let request = v1::ReadChangesRequest { name: FEED.into(), everything: true };
    let mut again = feed.read_changes(from(Who::Local, request)).await.unwrap().into_inner();
    assert_eq!(drain(&feed, &mut again, true).await.len(), 3, "for a reader that has lost its copy");
    assert_eq!(backlog(&feed).await, 0);
}

#[tokio::test]
async fn only_what_is_asked_for_comes() {
    let node = Node::new("220822", None).await;
    let feed = service(&node);
    create(&feed, wanted(&["case"], "220822101", true)).await;
    for home in [TOWNSHIP, OTHER] {
        node.write(&case(&node, home, "1"), new_case(home)).await.unwrap();
    }
    let grid = node.engine.name("divisions/220822101000/grids/220822101000001").unwrap();
    let shown = v1::Grid { display_name: Some("一网格".into()), ..v1::Grid::default() };
    let write = LocalWrite::of(vec![(fields::grid::DISPLAY_NAME, shown.encode_to_vec().into())]);
    node.write(&grid, write).await.unwrap();
    let got = drain(&feed, &mut read(&feed).await, true).await;
    assert_eq!(got.keys().collect::<Vec<_>>(), ["divisions/220822101000/cases/1"]);
    assert_eq!(
        as_case(&got["divisions/220822101000/cases/1"]).parties.len(),
        1,
        "personal data was asked for"
    );
}

#[tokio::test]
async fn values_side_by_side_are_flagged_and_shown() {
    let node = Node::new("220822", None).await;
    let name = case(&node, TOWNSHIP, "1");
    node.write(&name, new_case(TOWNSHIP)).await.unwrap();
    node.write(&name, risk(v1::CaseRisk::Green)).await.unwrap();
    let unseen = Basis::Token(Record::default());
    let beside = LocalWrite { acting: Some(node.own), basis: unseen, ..risk(v1::CaseRisk::Red) };
    node.write(&name, beside).await.unwrap();
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let got = drain(&feed, &mut read(&feed).await, true).await;
    let change = got.values().next().unwrap();
    assert_eq!(change.conflicting_fields, ["risk"]);
    assert_eq!(change.conflicts[0].values.len(), 2);
    assert_eq!(as_case(change).risk(), v1::CaseRisk::Red, "the higher tier's meanwhile");
}

#[tokio::test]
async fn a_grant_that_is_taken_away_stops_the_feed_and_one_that_changes_fills_it_anew() {
    let node = Node::new("220822", None).await;
    for home in [TOWNSHIP, OTHER] {
        node.write(&case(&node, home, "1"), new_case(home)).await.unwrap();
    }
    let feed = service(&node);
    let read = async || {
        let request = v1::ReadChangesRequest { name: FEED.into(), everything: false };
        feed.read_changes(partner(request)).await.map(tonic::Response::into_inner)
    };
    let ask = async |request| feed.create_subscription(partner(request)).await.map_err(|s| s.code());
    assert_eq!(ask(wanted(&[], "", false)).await.unwrap_err(), Code::PermissionDenied, "no grant");
    grant(&node, "220822101", &["case"], v1::GrantLevel::Read, true).await;
    assert_eq!(ask(wanted(&["grid"], "", false)).await.unwrap_err(), Code::PermissionDenied);
    assert_eq!(ask(wanted(&[], "220822", false)).await.unwrap_err(), Code::PermissionDenied);
    ask(wanted(&[], "", true)).await.unwrap();

    let mut batches = read().await.unwrap();
    let first = next(&mut batches).await.unwrap();
    assert_eq!(first.changes.len(), 1, "the other township is not granted");
    assert_eq!(as_case(&first.changes[0]).parties.len(), 1);
    let mine = v1::AcknowledgeChangesRequest { name: FEED.into(), ack_id: first.ack_id };
    feed.acknowledge_changes(partner(mine)).await.unwrap();
    assert!(next(&mut batches).await.unwrap().caught_up);

    grant(&node, "220822101", &["case"], v1::GrantLevel::Read, false).await;
    assert_eq!(end(&mut batches).await, Code::Aborted);
    let mut batches = read().await.unwrap();
    let again = next(&mut batches).await.unwrap();
    assert!(as_case(&again.changes[0]).parties.is_empty(), "sent again, without what is no longer granted");

    grant(&node, "220822101", &["case"], v1::GrantLevel::Aggregates, false).await;
    assert_eq!(end(&mut batches).await, Code::PermissionDenied);
    assert_eq!(read().await.err().unwrap().code(), Code::PermissionDenied);

    // Operators see it, and do not read it.
    let list = v1::ListSubscriptionsRequest::default();
    let listed = feed.list_subscriptions(from(Who::Local, list)).await.unwrap().into_inner();
    assert_eq!(listed.subscriptions[0].owner, "partners/hotline");
    let theirs = v1::ReadChangesRequest { name: FEED.into(), everything: false };
    let refused = feed.read_changes(from(Who::Local, theirs)).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_partner_does_not_see_what_operators_read() {
    let node = Node::new("220822", None).await;
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    grant(&node, "220822", &[], v1::GrantLevel::Write, true).await;
    let get = v1::GetSubscriptionRequest { name: FEED.into() };
    assert_eq!(feed.get_subscription(partner(get)).await.unwrap_err().code(), Code::NotFound);
    let delete = v1::DeleteSubscriptionRequest { name: FEED.into() };
    assert_eq!(feed.delete_subscription(partner(delete)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_newer_reader_replaces_the_older_and_a_deleted_subscription_ends_it() {
    let node = Node::new("220822", None).await;
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let mut older = read(&feed).await;
    assert!(next(&mut older).await.unwrap().caught_up);
    let mut newer = read(&feed).await;
    let replaced = next(&mut older).await.unwrap_err();
    assert_eq!(replaced.get_error_details().error_info().unwrap().reason, "READER_REPLACED");
    assert!(next(&mut newer).await.unwrap().caught_up);
    let delete = v1::DeleteSubscriptionRequest { name: FEED.into() };
    feed.delete_subscription(from(Who::Local, delete)).await.unwrap();
    assert_eq!(next(&mut newer).await.unwrap_err().code(), Code::NotFound);
    let shared = node.engine.shared();
    let case = shared.schema.kind_named("case").unwrap();
    let audience = Audience::of_home(case, node.own);
    assert!(shared.topology().subscribers(case.id, &audience).next().is_none());
    create(&feed, wanted(&[], "", false)).await;
}

#[tokio::test]
async fn what_nobody_reads_for_a_month_is_bounded_by_the_records() {
    const RECORDS: usize = 60;
    let node = Node::new("220822", None).await;
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let names: Vec<_> = (0..RECORDS).map(|i| case(&node, TOWNSHIP, &i.to_string())).collect();
    for name in &names {
        node.write(name, new_case(TOWNSHIP)).await.unwrap();
    }
    let colours = [v1::CaseRisk::Green, v1::CaseRisk::Red];
    for round in 0..180 {
        let writes = names.iter().map(|name| node.write(name, risk(colours[round % 2])));
        futures_join(writes).await;
    }
    assert!(backlog(&feed).await > 10_000);
    // Outboxes are looked at every ten seconds; a busy machine may take longer.
    let compacted = async {
        while backlog(&feed).await > RECORDS as u64 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), compacted).await.expect("it is bounded");
    let got = drain(&feed, &mut read(&feed).await, true).await;
    assert_eq!(got.len(), RECORDS);
    assert!(got.values().all(|change| as_case(change).risk() == v1::CaseRisk::Red), "the latest form");
}

/// Waits for all of them, at once.
async fn futures_join(
    writes: impl Iterator<Item = impl Future<Output = Result<(), crate::engine::EngineError>>>,
) {
    let mut writes: Vec<_> = writes.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        writes.retain_mut(|write| match write.as_mut().poll(context) {
            std::task::Poll::Ready(done) => {
                done.unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        if writes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn one_partner_does_not_take_the_places_of_all() {
    let node = Node::new("220822", None).await;
    grant(&node, "220822", &["case"], v1::GrantLevel::Read, false).await;
    let feed = service(&node);
    let asked = |n: usize| v1::CreateSubscriptionRequest {
        subscription_id: format!("hotline-{n}"),
        ..wanted(&["case"], "", false)
    };
    for n in 0..20 {
        feed.create_subscription(partner(asked(n))).await.unwrap();
    }
    let refused = feed.create_subscription(partner(asked(20))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("there are 20 subscriptions"), "{refused}");
    create(&feed, wanted(&[], "", false)).await;
}

#[tokio::test]
async fn a_reader_ends_where_another_gateway_deleted_what_it_reads() {
    let node = Node::new("220822", None).await;
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let mut batches = read(&feed).await;
    assert!(next(&mut batches).await.unwrap().caught_up);
    // Not through this service, which would tell its readers.
    let peer = node.engine.shared().store.subscriptions().await.unwrap()[0].peer;
    node.engine.unsubscribe(peer).await.unwrap();
    assert_eq!(end(&mut batches).await, Code::NotFound);
}

#[tokio::test]
async fn a_reader_that_acknowledges_nothing_gets_only_so_much() {
    let node = Node::new("220822", None).await;
    let text = "长".repeat(9_000);
    for i in 0..300 {
        let mut write = new_case(TOWNSHIP);
        let narrative = v1::Case { narrative: Some(text.clone()), ..Default::default() };
        write.fields.push((fields::case::NARRATIVE, value(narrative)));
        node.write(&case(&node, TOWNSHIP, &i.to_string()), write).await.unwrap();
    }
    let feed = service(&node);
    create(&feed, wanted(&[], "", false)).await;
    let mut batches = read(&feed).await;
    let (mut under_way, mut records) = (Vec::new(), 0);
    // All 300 are one row of the outbox, spread over more batches than may be under way.
    while under_way.len() < 8 {
        let batch = next(&mut batches).await.unwrap();
        records += batch.changes.len();
        under_way.push(batch.ack_id);
    }
    // The rest of the row is read already: were there room, a few turns of the scheduler would bring it.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let more = std::future::poll_fn(|context| std::task::Poll::Ready(batches.as_mut().poll_next(context)));
    assert!(more.await.is_pending(), "the window is full");
    assert!(records < 300);
    for ack_id in under_way {
        acknowledge(&feed, &ack_id).await.unwrap();
    }
    assert_eq!(backlog(&feed).await, 300, "the row is not whole yet");
    records += drain(&feed, &mut batches, true).await.len();
    assert_eq!((records, backlog(&feed).await), (300, 0));
}
