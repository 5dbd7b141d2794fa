//! Where a record is, asked at any node of a tree.

use v1::assurance_service_server::AssuranceService;

use super::super::asking::{Asking, Reach};
use super::super::assurance::Assurance;
use super::super::{Caller, Who};
use super::*;

async fn locate(node: &Node, name: &RecordName) -> Result<v1::LocateRecordResponse, tonic::Status> {
    let name = name.display(&node.engine.shared().schema).to_string();
    let mut request = tonic::Request::new(v1::LocateRecordRequest { name });
    request.extensions_mut().insert(Caller { who: Who::Local, address: String::new() });
    let service = Assurance::new(node.engine.clone(), node.links.clone());
    service.locate_record(request).await.map(tonic::Response::into_inner)
}

/// Asks until the answer is this.
async fn located(node: &Node, name: &RecordName, state: v1::LocateState) -> v1::LocateRecordResponse {
    let mut last = None;
    until(async || {
        last = locate(node, name).await.ok();
        last.as_ref().is_some_and(|response| response.state() == state)
    })
    .await;
    last.unwrap()
}

/// Who holds it, the highest first.
fn holders(response: &v1::LocateRecordResponse) -> Vec<&str> {
    response.places.iter().filter(|place| place.held).map(|place| place.division.as_str()).collect()
}

fn link_of<'r>(response: &'r v1::LocateRecordResponse, child: &Node) -> &'r v1::RecordLink {
    let child = child.own.to_string();
    response.links.iter().find(|link| link.child_division == child).unwrap()
}

fn place_of<'r>(response: &'r v1::LocateRecordResponse, node: &Node) -> &'r v1::RecordPlace {
    let node = node.own.to_string();
    response.places.iter().find(|place| place.division == node).unwrap()
}

/// A province, a prefecture, a county and two of its townships.
pub(super) struct Tree {
    pub(super) province: Node,
    pub(super) prefecture: Node,
    pub(super) county: Node,
    pub(super) township: Node,
    pub(super) other: Node,
}

impl Tree {
    pub(super) async fn new() -> Tree {
        Tree {
            province: Node::new("22", None).await,
            prefecture: Node::new("2208", Some("22")).await,
            county: Node::new("220822", Some("2208")).await,
            township: Node::new("220822101", Some("220822")).await,
            other: Node::new("220822102", Some("220822")).await,
        }
    }
}

#[tokio::test]
async fn a_record_that_is_everywhere_is_found_so_from_every_tier() {
    let tree = Tree::new().await;
    let Tree { province, prefecture, county, township, other } = &tree;
    let _lines = (link(prefecture, province).await, link(county, prefecture).await);
    let _lower = (link(township, county).await, link(other, county).await);
    let name = case(township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    until(async || province.record(&name).await.is_some()).await;
    for node in [township, county, prefecture, province] {
        let response = located(node, &name, v1::LocateState::Everywhere).await;
        let all = ["220000000000", "220800000000", "220822000000", "220822101000"];
        assert_eq!(holders(&response), all, "asked at {}", node.own);
        assert!(place_of(&response, province).top && !place_of(&response, county).top);
        assert!(response.places.iter().all(|place| place.version.is_some() && place.update_time.is_some()));
        let upper = link_of(&response, township);
        let held_back = &upper.child.as_ref().unwrap().held_back;
        let parties = held_back.iter().find(|field| field.field_name == "parties").unwrap();
        assert_eq!(parties.release(), v1::Tier::Township);
    }
    // Whom the record does not concern is not told, and holds nothing of it.
    let response = locate(other, &name).await.unwrap();
    assert_eq!((response.state(), holders(&response)), (v1::LocateState::Unknown, vec![]));
    assert_eq!(place_of(&response, county).answer(), v1::NodeAnswer::Refused);
}

#[tokio::test]
async fn a_record_behind_a_cut_line_waits_and_every_node_says_what_it_can() {
    let tree = Tree::new().await;
    let Tree { province, prefecture, county, township, .. } = &tree;
    let _upper = link(prefecture, province).await;
    let cut = link(county, prefecture).await;
    let _lower = link(township, county).await;
    let name = case(township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    located(province, &name, v1::LocateState::Everywhere).await;
    cut.cut().await;
    township.write(&name, risk(v1::CaseRisk::Red)).await.unwrap();
    until(async || county.shown(&name).await.risk() == v1::CaseRisk::Red).await;

    let response = located(township, &name, v1::LocateState::OnItsWay).await;
    let waits = link_of(&response, county);
    assert_eq!(waits.state(), v1::RecordLinkState::Unknown);
    let end = waits.child.as_ref().unwrap();
    assert!(!end.linked && end.link_time.is_some() && !end.last_error.is_empty(), "{end:?}");
    assert_eq!(end.waiting_lane(), v1::Lane::Urgent, "a risk is urgent");
    assert!(end.waiting_since_time.is_some() && end.backlog_count > 0);
    assert_eq!(link_of(&response, township).state(), v1::RecordLinkState::Same);
    assert_eq!(place_of(&response, prefecture).answer(), v1::NodeAnswer::NotLinked);

    // From above, nobody knows that there is something newer, and it is said which link could not be asked through.
    let response = located(province, &name, v1::LocateState::Unknown).await;
    assert_eq!(holders(&response), ["220000000000", "220800000000"]);
    let unreached = place_of(&response, county);
    assert_eq!(unreached.answer(), v1::NodeAnswer::NotLinked);
    assert!(unreached.since_time.is_some() && unreached.reason.contains("down"), "{unreached:?}");
    assert_eq!(link_of(&response, prefecture).state(), v1::RecordLinkState::Same);

    let _again = link(county, prefecture).await;
    located(township, &name, v1::LocateState::Everywhere).await;
    located(province, &name, v1::LocateState::Everywhere).await;
}

#[tokio::test]
async fn what_is_refused_is_named_with_the_reason() {
    let ahead: fn() -> u64 = || (environment().now_ms)() + 3_600_000;
    let county = Node::new("220822", None).await;
    let wrong = Environment { now_ms: ahead, ..environment() };
    let township = Node::in_environment("220822101", Some("220822"), wrong).await;
    let _line = link(&township, &county).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    for node in [&township, &county] {
        let response = located(node, &name, v1::LocateState::Refused).await;
        let refused = &link_of(&response, &township).child.as_ref().unwrap().refused;
        let title = refused.iter().find(|field| field.field_name == "title").unwrap();
        assert!(title.reason.contains("FUTURE_STAMP") && title.retry_time.is_some(), "{title:?}");
    }
}

#[tokio::test]
async fn a_case_that_was_handed_on_is_found_at_both_townships() {
    let county = Node::new("220822", None).await;
    let born = Node::new("220822101", Some("220822")).await;
    let other = Node::new("220822102", Some("220822")).await;
    let _lines = (link(&born, &county).await, link(&other, &county).await);
    let name = case(&born, "220822101000", "1");
    born.write(&name, new_case("220822101000")).await.unwrap();
    let action = WriteAction::Move {
        action: v1::Move::Transfer,
        acting: None,
        to_division: Some(division("220822102")),
        to_unit: String::new(),
        reason: "相邻乡镇".into(),
        outcome: None,
        basis: Default::default(),
        purpose: String::new(),
        mandate: None,
    };
    let write = Write { name: name.clone(), action, request: None, traceparent: None };
    born.engine.write(write).await.unwrap();
    until(async || other.record(&name).await.is_some()).await;
    for node in [&born, &other, &county] {
        let response = located(node, &name, v1::LocateState::Everywhere).await;
        assert_eq!(holders(&response), ["220822000000", "220822101000", "220822102000"]);
        assert!(
            link_of(&response, &born).child.as_ref().unwrap().held_back.is_empty(),
            "the file goes along"
        );
    }
}

#[tokio::test]
async fn what_nobody_has_is_not_found_and_what_is_no_name_is_refused() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    until(async || county.links.child_is_linked(township.own)).await;
    let name = case(&county, "220822101000", "nobody-has-it");
    until(async || locate(&county, &name).await.is_err_and(|status| status.code() == tonic::Code::NotFound))
        .await;
    line.cut().await;
    let response = locate(&county, &name).await.unwrap();
    assert_eq!(response.state(), v1::LocateState::Unknown, "the one who may have it could not be asked");
    let mut request = tonic::Request::new(v1::LocateRecordRequest { name: "divisions/2208/x".into() });
    request.extensions_mut().insert(Caller { who: Who::Local, address: String::new() });
    let service = Assurance::new(county.engine.clone(), county.links.clone());
    let refused = service.locate_record(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let mut request = tonic::Request::new(v1::LocateRecordRequest::default());
    request.extensions_mut().insert(Caller { who: Who::Partner("p".into()), address: String::new() });
    assert_eq!(service.locate_record(request).await.unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_in_time() {
    let county = Node::new("220822", None).await;
    let name = case(&county, "220822101000", "1");
    county.write(&name, new_case("220822101000")).await.unwrap();
    // A child whose program is older: it is linked, and passes over what it does not know.
    let old = Node::new("220822101", Some("220822")).await;
    let line = link(&old, &county).await;
    until(async || old.record(&name).await.is_some()).await;
    line.cut().await;
    let stop = CancellationToken::new();
    let (down, mut from_parent) = mpsc::channel(64);
    let (up, from_child) = mpsc::channel(64);
    let known = old.engine.peer(Role::Parent, county.own).await.unwrap();
    let settings = Settings {
        side: Side::Child,
        own: old.own,
        peer: county.own,
        epoch: old.engine.shared().epoch(),
        revision: old.engine.shared().revision(),
        peer_revision: known.as_ref().map_or(0, |p| p.revision),
        token: known.and_then(|p| p.token),
        rules: Default::default(),
        window_bytes: 1 << 20,
        software_version: "old".into(),
        limits: Default::default(),
    };
    let mut session = Session::new(settings, (environment().now_ms)());
    up.send(session.poll_frame(0).unwrap()).await.unwrap();
    let driver = county.driver(Role::Child, old.own, Side::Parent, None, down, &stop);
    let stream = ReceiverStream::new(from_child).map(Ok);
    let parent = tokio::spawn(driver.run(Box::pin(stream)));
    until(async || county.links.child_is_linked(old.own)).await;
    let asking = Asking::new(county.engine.clone(), county.links.clone());
    let located = asking.locate(&name, None, Reach::whole(Duration::from_millis(50))).await.unwrap();
    let silent = located.places.iter().find(|place| place.division == old.own.to_string()).unwrap();
    assert_eq!((silent.answer(), silent.held), (v1::NodeAnswer::Silent, false));
    let asked = |frame: &v1::Frame| matches!(frame.kind, Some(v1::frame::Kind::Ask(_)));
    let mut frames = std::iter::from_fn(|| from_parent.try_recv().ok());
    assert!(frames.any(|frame| asked(&frame)), "it was asked");
    stop.cancel();
    drop(up);
    parent.await.unwrap();
}

/// What `verify` says at a node: each node's links with their states, or its answer.
pub(super) async fn verified(node: &Node, peer: &str, tree: bool) -> Vec<v1::NodeEquality> {
    let mut request = tonic::Request::new(v1::VerifyLinksRequest { peer: peer.into(), tree });
    request.extensions_mut().insert(Caller { who: Who::Local, address: String::new() });
    let service = Assurance::new(node.engine.clone(), node.links.clone());
    let mut answers = service.verify_links(request).await.unwrap().into_inner();
    let (mut nodes, mut done) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        nodes.extend(answer.nodes);
        done = answer.done;
    }
    assert!(done, "the last answer says so");
    nodes.sort_by(|a, b| a.division.cmp(&b.division));
    nodes
}

fn all_equal(nodes: &[v1::NodeEquality]) -> bool {
    let equal = |link: &v1::LinkEquality| link.state() == v1::EqualityState::Equal && link.linked;
    nodes.iter().all(|node| node.answer() == v1::NodeAnswer::Given && node.links.iter().all(equal))
}

#[tokio::test]
async fn a_tree_is_verified_from_the_top_and_who_cannot_be_asked_is_named() {
    let tree = Tree::new().await;
    let Tree { province, prefecture, county, township, other } = &tree;
    let _upper = (link(prefecture, province).await, link(county, prefecture).await);
    let (_near, far) = (link(township, county).await, link(other, county).await);
    let name = case(township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    until(async || province.record(&name).await.is_some() && county.links.child_count() == 2).await;

    let mut nodes = Vec::new();
    until(async || {
        nodes = verified(province, "", true).await;
        all_equal(&nodes)
    })
    .await;
    let links = |nodes: &[v1::NodeEquality]| nodes.iter().map(|n| n.links.len()).collect::<Vec<_>>();
    assert_eq!(links(&nodes), [1, 1, 2, 0, 0], "every link once, by its upper end");
    assert!(nodes.iter().all(|node| !node.display_name.is_empty()));
    let own = verified(county, "", false).await;
    assert_eq!((links(&own), own[0].links[0].parent_division.as_str()), (vec![3], "220800000000"));
    assert_eq!(links(&verified(county, "divisions/220822101", false).await), [1]);

    far.cut().await;
    let nodes = verified(prefecture, "divisions/220822", true).await;
    let silent = nodes.iter().find(|node| node.division == other.own.to_string()).unwrap();
    assert_eq!(silent.answer(), v1::NodeAnswer::NotLinked);
    assert!(silent.since_time.is_some() && !silent.reason.is_empty());
    let at_county = nodes.iter().find(|node| node.division == county.own.to_string()).unwrap();
    let link = at_county.links.iter().find(|link| link.child_division == other.own.to_string()).unwrap();
    assert_eq!((link.state(), link.linked), (v1::EqualityState::Unknown, false), "equal is said of now only");
    assert!(link.equal_time.is_some() && !link.reason.is_empty());
}

#[tokio::test]
async fn a_question_that_is_not_for_who_asks_is_refused_with_the_reason() {
    let county = Node::new("220822", None).await;
    let asking = Asking::new(county.engine.clone(), county.links.clone());
    let answer = async |question| {
        let (out, mut parts) = mpsc::channel(8);
        let ask = v1::Ask { ask_id: 7, time_left_ms: 1_000, question, ..v1::Ask::default() };
        asking.clone().answer(Role::Child, division("220822101"), ask, out).await;
        let last = parts.recv().await.unwrap();
        assert!(last.last && last.ask_id == 7 && parts.recv().await.is_none());
        *last
    };
    let verify = v1::ask::Question::Verify(v1::VerifyQuestion {});
    let asked_for =
        |record: &str| Some(v1::ask::Question::Where(v1::WhereQuestion { record: record.into() }));
    let erased =
        |record: &str| Some(v1::ask::Question::Erasure(v1::ErasureQuestion { record: record.into() }));
    for (question, reason) in [
        (Some(verify), "node above"),
        (None, "does not know the question"),
        (asked_for("divisions/220822102000/cases/1"), "does not concern"),
        (erased("divisions/220822102000/cases/1"), "does not concern"),
        (asked_for("no name"), "not a record name"),
    ] {
        let answer = answer(question).await;
        assert_eq!(answer.answer(), v1::NodeAnswer::Refused);
        assert!(answer.reason.contains(reason), "{}", answer.reason);
    }
}
