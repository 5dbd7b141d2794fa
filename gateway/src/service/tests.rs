//! Engines on real stores, linked through channels instead of a network: what crosses, what does not, and what comes
//! back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod bundles;
mod carried;
mod claims;
mod describing;
mod disputes;
mod erasures;
mod figures;
mod grants;
mod ledgers;
mod lists;
mod mandates;
mod one_way;
mod partners;
mod proofs;
mod put_back;
mod rates;
mod reports;
mod restores;
mod subscriptions;
mod sums;
mod values;
mod whereabouts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, LinkEnd};
use super::{Links, view};
use crate::division::Division;
use crate::engine::{Engine, EngineError, Environment, Write, WriteAction};
use crate::ingest::local::{Authority, LocalWrite, WriteError};
use crate::ingest::topology::Role;
use crate::record::{Record, RecordName, codec};
use crate::session::{Session, Settings, Side};
use crate::store::{Options, Store};

static DICE: AtomicU64 = AtomicU64::new(1);

fn environment() -> Environment {
    let now_ms =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let random = || DICE.fetch_add(1, Ordering::Relaxed);
    Environment { now_ms, random, drift_ms: 300_000, compare_ms: 300_000 }
}

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

/// One node: an engine on a store of its own.
struct Node {
    engine: Engine,
    links: Links,
    own: Division,
    parent: Option<Division>,
    task: tokio::task::JoinHandle<()>,
    counting: (CancellationToken, tokio::task::JoinHandle<()>),
    folder: TempDir,
}

impl Node {
    async fn new(own: &str, parent: Option<&str>) -> Node {
        Node::in_environment(own, parent, environment()).await
    }

    async fn in_environment(own: &str, parent: Option<&str>, environment: Environment) -> Node {
        Node::open(division(own), parent.map(division), environment, TempDir::new().unwrap()).await
    }

    async fn open(
        own: Division,
        parent: Option<Division>,
        environment: Environment,
        folder: TempDir,
    ) -> Node {
        let options = Options { durable: false, ..Options::default() };
        Node::with_options(own, parent, environment, folder, options).await
    }

    async fn with_options(
        own: Division,
        parent: Option<Division>,
        environment: Environment,
        folder: TempDir,
        options: Options,
    ) -> Node {
        let path = folder.path().join("store.sqlite");
        let (store, writer) =
            Store::open(path.to_str().unwrap(), own, environment.random, (environment.now_ms)(), options)
                .await
                .unwrap();
        let (engine, task) = Engine::start(store, writer, own, parent, environment).await.unwrap();
        let (recounts, stop) =
            (std::sync::Arc::new(tokio::sync::Semaphore::new(1)), CancellationToken::new());
        let counting = super::counting::count_own(engine.clone(), recounts, stop.clone());
        let counting = (stop, tokio::spawn(counting));
        Node { engine, links: Links::new(), own, parent, task, counting, folder }
    }

    /// Stops the node and gives its folder back.
    async fn close(self) -> (Division, Option<Division>, TempDir) {
        self.counting.0.cancel();
        self.counting.1.await.unwrap();
        self.engine.stop().await;
        self.task.await.unwrap();
        self.engine.shared().store.close().await;
        (self.own, self.parent, self.folder)
    }

    /// Copies the store, and goes on.
    async fn backup(self) -> (Node, TempDir) {
        let (own, parent, folder) = self.close().await;
        let copy = TempDir::new().unwrap();
        std::fs::copy(folder.path().join("store.sqlite"), copy.path().join("store.sqlite")).unwrap();
        (Node::open(own, parent, environment(), folder).await, copy)
    }

    /// Stops, lets someone else write to the store, and goes on.
    async fn reopened(self, meanwhile: impl AsyncFnOnce(&mut crate::store::Writer)) -> Node {
        let (own, parent, folder) = self.close().await;
        let path = folder.path().join("store.sqlite");
        let (store, mut writer) =
            Store::open(path.to_str().unwrap(), own, || 1, 1, Options::default()).await.unwrap();
        meanwhile(&mut writer).await;
        writer.close().await.unwrap();
        store.close().await;
        drop(store);
        Node::open(own, parent, environment(), folder).await
    }

    /// Goes on with another store.
    async fn replace(self, store: TempDir) -> Node {
        let (own, parent, _) = self.close().await;
        Node::open(own, parent, environment(), store).await
    }

    async fn write(&self, name: &RecordName, write: LocalWrite) -> Result<(), EngineError> {
        let action = WriteAction::Fields(write);
        let write = Write { name: name.clone(), action, request: None, traceparent: None };
        self.engine.write(write).await.map(|_| ())
    }

    async fn record(&self, name: &RecordName) -> Option<Record> {
        let found = self.engine.shared().store.get(name).await.unwrap();
        found.map(|loaded| codec::decode(loaded.state).unwrap())
    }

    /// Whether a child has not given yet what this node lacks.
    async fn recovers_from(&self, child: &Node) -> bool {
        self.engine.peer(Role::Child, child.own).await.unwrap().unwrap().recovering_to.is_some()
    }

    async fn shown(&self, name: &RecordName) -> v1::Case {
        let record = self.record(name).await.unwrap_or_default();
        let shown = view::record(&self.engine.shared().schema, name, &record, |_| true);
        v1::Case::decode(shown.fields).unwrap()
    }

    fn driver(
        &self,
        role: Role,
        peer: Division,
        side: Side,
        known: Option<&crate::ingest::changes::PeerState>,
        out: mpsc::Sender<v1::Frame>,
        stop: &CancellationToken,
    ) -> Driver {
        let shared = self.engine.shared();
        let settings = Settings {
            side,
            own: self.own,
            peer,
            epoch: shared.epoch(),
            revision: shared.revision(),
            peer_revision: known.map_or(0, |p| p.revision),
            token: known.and_then(|p| p.token),
            rules: shared.schema.rule_table(),
            window_bytes: 1 << 20,
            software_version: "test".into(),
            limits: Default::default(),
        };
        let session = Session::new(settings, (shared.environment.now_ms)());
        Driver::new(self.engine.clone(), self.links.clone(), session, role, peer, "test", out, stop.clone())
    }
}

/// A line between two nodes.
struct Line {
    stop: CancellationToken,
    child: tokio::task::JoinHandle<LinkEnd>,
    parent: tokio::task::JoinHandle<LinkEnd>,
}

impl Line {
    async fn cut(self) {
        self.stop.cancel();
        self.child.await.unwrap();
        self.parent.await.unwrap();
    }
}

async fn link(child: &Node, parent: &Node) -> Line {
    let (up, from_child) = mpsc::channel(8);
    let (down, from_parent) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let known = child.engine.peer(Role::Parent, parent.own).await.unwrap();
    let lower = child.driver(Role::Parent, parent.own, Side::Child, known.as_ref(), up, &stop);
    let upper = parent.driver(Role::Child, child.own, Side::Parent, None, down, &stop);
    let stream = |frames| Box::pin(ReceiverStream::new(frames).map(Ok));
    Line {
        child: tokio::spawn(lower.run(stream(from_parent))),
        parent: tokio::spawn(upper.run(stream(from_child))),
        stop,
    }
}

/// Waits for a condition, never for a duration; the limit only ends a test that has failed.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the condition never came true");
}

fn case(node: &Node, home: &str, id: &str) -> RecordName {
    node.engine.name(&format!("divisions/{home}/cases/{id}")).unwrap()
}

fn value(case: v1::Case) -> Bytes {
    case.encode_to_vec().into()
}

fn new_case(home: &str) -> LocalWrite {
    let lifecycle = v1::Lifecycle {
        state: v1::CaseState::Accepted.into(),
        holder: home.into(),
        ..v1::Lifecycle::default()
    };
    // As a ledger brings one that is worked on already.
    let fields = vec![
        (fields::case::CASE_KIND, value(v1::Case { case_kind: Some(1), ..Default::default() })),
        (fields::case::TITLE, value(v1::Case { title: Some("测试".into()), ..Default::default() })),
        (
            fields::case::PARTIES,
            value(v1::Case {
                parties: vec![v1::Party { name: "张甲".into(), ..Default::default() }],
                ..Default::default()
            }),
        ),
        (fields::case::LIFECYCLE, value(v1::Case { lifecycle: Some(lifecycle), ..Default::default() })),
    ];
    LocalWrite { authority: Authority::Ledger, ..LocalWrite::of(fields) }
}

fn risk(risk: v1::CaseRisk) -> LocalWrite {
    LocalWrite::of(vec![(
        fields::case::RISK,
        value(v1::Case { risk: Some(risk.into()), ..Default::default() }),
    )])
}

#[tokio::test]
async fn a_record_goes_up_and_its_personal_data_does_not() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    until(async || county.record(&name).await.is_some()).await;
    let shown = county.shown(&name).await;
    assert_eq!(shown.title(), "测试", "the county may hold titles");
    assert!(shown.parties.is_empty(), "parties stay at the township");
}

#[tokio::test]
async fn writes_on_both_sides_of_a_cut_line_stand_side_by_side_until_settled() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    until(async || county.record(&name).await.is_some()).await;
    line.cut().await;
    township.write(&name, risk(v1::CaseRisk::Green)).await.unwrap();
    county.write(&name, LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Red) }).await.unwrap();
    let _line = link(&township, &county).await;
    let live = async |node: &Node| {
        let record = node.record(&name).await.unwrap();
        record.get(fields::case::RISK).map_or(0, |r| r.live().count())
    };
    until(async || live(&township).await == 2 && live(&county).await == 2).await;
    assert_eq!(township.shown(&name).await.risk(), v1::CaseRisk::Red, "the higher tier is shown meanwhile");
    // An etag covers all values, so a write with it replaces all of them.
    let etag = crate::ingest::local::etag(&county.record(&name).await.unwrap());
    let settle = LocalWrite { basis: crate::ingest::local::Basis::Etag(etag), ..risk(v1::CaseRisk::Yellow) };
    county.write(&name, settle).await.unwrap();
    until(async || live(&township).await == 1).await;
    assert_eq!(township.shown(&name).await.risk(), v1::CaseRisk::Yellow);
    let settled = township.engine.shared().store.resolutions(None, None, 10).await.unwrap();
    assert_eq!(settled.len(), 1, "the conflict is kept in the history");
}

#[tokio::test]
async fn a_case_is_handed_to_another_township_with_its_file_and_comes_back_concluded() {
    let county = Node::new("220822", None).await;
    let born = Node::new("220822101", Some("220822")).await;
    let other = Node::new("220822102", Some("220822")).await;
    let bystander = Node::new("220822103", Some("220822")).await;
    let _lines = (link(&born, &county).await, link(&other, &county).await, link(&bystander, &county).await);
    let name = case(&born, "220822101000", "1");
    born.write(&name, new_case("220822101000")).await.unwrap();
    let action = |action, to: Option<&str>, outcome| WriteAction::Move {
        action,
        acting: None,
        to_division: to.map(division),
        to_unit: String::new(),
        reason: "相邻乡镇".into(),
        outcome,
        basis: Default::default(),
        purpose: String::new(),
        mandate: None,
    };
    let moved = async |node: &Node, action| {
        let write = Write { name: name.clone(), action, request: None, traceparent: None };
        node.engine.write(write).await
    };
    moved(&born, action(v1::Move::Transfer, Some("220822102"), None)).await.unwrap();
    until(async || other.record(&name).await.is_some_and(|r| r.get(fields::case::PARTIES).is_some())).await;
    moved(&other, action(v1::Move::Accept, None, None)).await.unwrap();
    let outcome = v1::Outcome { succeeded: Some(true), ..v1::Outcome::default() };
    moved(&other, action(v1::Move::Conclude, None, Some(outcome))).await.unwrap();
    let concluded = v1::CaseState::Concluded;
    until(async || born.shown(&name).await.lifecycle.is_some_and(|l| l.state() == concluded)).await;
    assert!(bystander.record(&name).await.is_none(), "no one else gets it");
    let illegal = moved(&born, action(v1::Move::Accept, None, None)).await;
    assert!(matches!(illegal, Err(EngineError::Refused(WriteError::Move(_)))));
}

#[tokio::test]
async fn a_new_node_gets_what_the_county_held_for_it_and_the_county_purges_what_it_may_not_hold() {
    let county = Node::new("220822", None).await;
    let name = case(&county, "220822101000", "1");
    county.write(&name, new_case("220822101000")).await.unwrap();
    let parties =
        async |node: &Node| node.record(&name).await.is_some_and(|r| r.get(fields::case::PARTIES).is_some());
    assert!(parties(&county).await, "the county acts for the township");
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    until(async || parties(&township).await).await;
    until(async || !parties(&county).await).await;
    assert!(parties(&township).await);
}
