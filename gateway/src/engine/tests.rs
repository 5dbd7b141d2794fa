//! The writing task on a database that others write to too, and that goes away and comes back. On PostgreSQL, where a
//! server is named by `TEST_POSTGRES_URL`; between engine and server lies a line that the test can cut. The line has a
//! thread beside the test's own: the server lets go of a database only when nobody is left half way through a greeting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod line;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;

use super::*;
use crate::ingest::local::LocalWrite;
use crate::record::{Record, codec, raw};
use crate::stamp::Stamp;
use crate::store::tests::places::PostgresPlace;
use crate::store::{Options, StoreError};
use line::Line;

static DICE: AtomicU64 = AtomicU64::new(1);

fn environment() -> Environment {
    let now_ms =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let random = || DICE.fetch_add(1, Ordering::Relaxed);
    Environment { now_ms, random, drift_ms: 300_000, compare_ms: 300_000 }
}

struct Node {
    engine: Engine,
    task: JoinHandle<()>,
    line: Line,
    place: PostgresPlace,
}

impl Node {
    /// `None` without a server.
    async fn new() -> Option<Node> {
        let place = PostgresPlace::new().await?;
        let line = Line::to(place.port()).await;
        let own = Division::parse("220822").unwrap();
        let options = Options { durable: false, processes_max: 8, ..Options::default() };
        let (store, writer) =
            Store::open(&place.url_at(line.port()), own, environment().random, 1, options).await.unwrap();
        let (engine, task) = Engine::start(store, writer, own, None, environment()).await.unwrap();
        Some(Node { engine, task, line, place })
    }

    async fn write(
        &self,
        name: &RecordName,
        title: &str,
        request: Option<&str>,
    ) -> Result<Answer, EngineError> {
        let case = v1::Case { title: Some(title.into()), ..v1::Case::default() };
        let fields = vec![(fields::case::TITLE, Bytes::from(case.encode_to_vec()))];
        let request = request.map(|id| Request { id: id.into(), content: 7 });
        let action = WriteAction::Fields(LocalWrite::of(fields));
        self.engine.write(Write { name: name.clone(), action, request, traceparent: None }).await
    }

    async fn put<M: Message>(&self, name: &str, message: &M) {
        let name = RecordName::parse(&Schema::current(), name).unwrap();
        let fields = raw::split(&Bytes::from(message.encode_to_vec())).unwrap();
        let action = WriteAction::Fields(LocalWrite::of(fields));
        self.engine.write(Write { name, action, request: None, traceparent: None }).await.unwrap();
    }

    async fn record(&self, name: &RecordName) -> Option<Record> {
        let loaded = self.engine.shared().store.get(name).await.unwrap()?;
        Some(codec::decode(loaded.state).unwrap())
    }

    /// The stamp of a case's title.
    async fn stamp(&self, name: &RecordName) -> Stamp {
        let record = self.record(name).await.unwrap();
        record.get(fields::case::TITLE).unwrap().entries().iter().map(|e| e.stamp).max().unwrap()
    }

    /// Whose title a case shows.
    async fn writer(&self, name: &RecordName) -> crate::stamp::Writer {
        let record = self.record(name).await.unwrap();
        record.get(fields::case::TITLE).unwrap().entries()[0].writer
    }

    /// Writes until it succeeds.
    async fn write_when_back(&self, name: &RecordName, title: &str) {
        let written = async {
            while self.write(name, title, None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), written).await.expect("the node went on");
    }

    async fn stop(self) {
        self.engine.stop().await;
        self.task.await.unwrap();
        self.engine.shared().store.close().await;
    }
}

fn case(id: &str) -> RecordName {
    RecordName::parse(&Schema::current(), &format!("divisions/220822101000/cases/{id}")).unwrap()
}

/// Waits until somebody waits for a lock in this database.
async fn until_someone_waits(conn: &mut PgConnection) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waited = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *conn).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("the engine waits for the row");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_changed_meanwhile_is_decided_again() {
    let Some(node) = Node::new().await else { return };
    let name = case("a");
    node.write(&name, "before", None).await.unwrap();
    let mut other = node.place.connect().await;
    sqlx::raw_sql("BEGIN; UPDATE record SET revision = revision + 1").execute(&mut other).await.unwrap();
    let mut watcher = node.place.connect().await;
    let change = async {
        until_someone_waits(&mut watcher).await;
        sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    };
    let (written, ()) = tokio::join!(node.write(&name, "after", None), change);
    assert!(written.unwrap().written.changed);
    assert_eq!(node.engine.shared().store.get(&name).await.unwrap().unwrap().revision, 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_is_used_again_without_a_restart() {
    let Some(mut node) = Node::new().await else { return };
    node.write(&case("a"), "before", None).await.unwrap();
    let before = node.stamp(&case("a")).await;
    node.line.cut().await;
    for _ in 0..3 {
        let refused = node.write(&case("b"), "while it is away", None).await.unwrap_err();
        let EngineError::Store(error) = &refused else { panic!("{refused}") };
        assert!(matches!(**error, StoreError::Unreachable(_)) && !error.is_fatal(), "{refused}");
    }
    node.line.restore().await;
    node.write_when_back(&case("c"), "after").await;
    assert!(node.stamp(&case("c")).await > before);
    assert!(node.record(&case("b")).await.is_none(), "what was refused is not there");
    assert!(node.engine.shared().alarms().is_empty(), "{:?}", node.engine.shared().alarms());
    node.stop().await;
}

/// While this gateway's line was broken another one began, and has its slot: this one goes on in another, as other
/// writers and with other keys, and its links are greeted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_slot_was_taken_goes_on_in_another() {
    let Some(mut node) = Node::new().await else { return };
    let shared = node.engine.shared().clone();
    node.write(&case("a"), "before", None).await.unwrap();
    let child = Division::parse("220822101").unwrap();
    let greeted = node.engine.welcome(child, v1::Hello::default()).await.unwrap();
    assert!(!shared.is_elsewhere(greeted.peer.id));
    let before = node.writer(&case("a")).await;
    node.line.cut().await;
    let own = shared.own();
    let options = Options { durable: false, processes_max: 8, ..Options::default() };
    let opened = async {
        loop {
            let url = node.place.url();
            let (store, writer) =
                Store::open(&url, own, environment().random, 1, options.clone()).await.unwrap();
            if store.slot() == 0 {
                return (store, writer);
            }
            // The server has not noticed yet that the line is dead.
            writer.close().await.unwrap();
        }
    };
    let (other, mut writer) = tokio::time::timeout(Duration::from_secs(20), opened).await.unwrap();
    node.line.restore().await;
    node.write_when_back(&case("b"), "after").await;
    assert_eq!((other.slot(), shared.store.slot()), (0, 1));
    assert!(node.stamp(&case("b")).await > node.stamp(&case("a")).await);
    assert_ne!(node.writer(&case("b")).await, before, "that one is the other gateway's now");
    let keys = writer.allocate(&[own; 3]).await.unwrap();
    let new = node.engine.shared().store.get(&case("b")).await.unwrap().unwrap().key;
    assert!(!keys.contains(&new));
    assert!(shared.is_elsewhere(greeted.peer.id), "its link ends, and it greets again");
    assert_eq!(other.live_slots().await.unwrap(), [0, 1]);
    node.stop().await;
}

/// A standby took over, and whatever it lacks, no revision shows it: it counts as a restore before anything is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_timeline_counts_as_a_restore() {
    let Some(mut node) = Node::new().await else { return };
    let shared = node.engine.shared().clone();
    node.write(&case("a"), "before", None).await.unwrap();
    let child = Division::parse("220822101").unwrap();
    node.engine.welcome(child, v1::Hello::default()).await.unwrap();
    let server = shared.store.lineage().await.unwrap().last;
    assert!(
        server.place.is_some() && server.timeline.is_some_and(|timeline| timeline > 0),
        "it is known from the start: {server:?}"
    );
    let (before, lineage) = (node.writer(&case("a")).await, shared.lineage());
    for round in 0..2 {
        node.line.cut().await;
        if round == 0 {
            node.place.script("UPDATE shared SET timeline = timeline + 6").await;
        }
        node.line.restore().await;
        if round == 0 {
            let noticed = async {
                while shared.lineage() == lineage {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), noticed).await.expect("without anything to write");
        }
        let name = case(&format!("b{round}"));
        node.write_when_back(&name, "after").await;
        assert_ne!(node.writer(&name).await, before, "no stamp of the lost life is given out again");
        assert!(node.stamp(&name).await > node.stamp(&case("a")).await);
    }
    let (epoch, setbacks) = shared.lineage();
    assert_ne!(epoch, lineage.0, "links are greeted anew");
    assert_eq!((setbacks, shared.store.meta().await.unwrap().epoch), (lineage.1, epoch));
    assert_eq!(
        node.writer(&case("b0")).await,
        node.writer(&case("b1")).await,
        "once, not at every connection"
    );
    assert_eq!(shared.store.lineage().await.unwrap().last, server);
    let peer = node.engine.peer(Role::Child, child).await.unwrap().unwrap();
    assert!(
        peer.opened_revision.is_some(),
        "what the child has seen of the lost life is told from what is new"
    );
    let alarms: Vec<String> = shared.alarms().into_iter().filter(|a| a.contains("timeline")).collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    node.engine.stop().await;
    node.task.await.unwrap();
    shared.store.close().await;

    // This time it is a dump that was put back: the tables are others.
    node.place.script("UPDATE shared SET place = place + 1").await;
    let options = Options { durable: false, ..Options::default() };
    let (store, writer) =
        Store::open(&node.place.url(), shared.own(), environment().random, 1, options).await.unwrap();
    let (engine, task) = Engine::start(store, writer, shared.own(), None, environment()).await.unwrap();
    assert_ne!(engine.shared().epoch(), epoch, "a process that opens it notices, too");
    engine.stop().await;
    task.await.unwrap();
    engine.shared().store.close().await;
}

/// What one gateway learns of thresholds and divisions, the others of the store know as soon as they hear of it, and so
/// do their streams of figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_and_divisions_set_at_one_gateway_count_at_the_others() {
    let Some(node) = Node::new().await else { return };
    let (one, own) = (node.engine.shared().clone(), node.engine.shared().own());
    let options = Options { durable: false, processes_max: 8, ..Options::default() };
    let url = node.place.url();
    let (store, writer) = Store::open(&url, own, environment().random, 1, options).await.unwrap();
    let (engine, task) = Engine::start(store, writer, own, None, environment()).await.unwrap();
    let two = engine.shared().clone();
    let mut figures = two.tallied();

    let bounds = v1::ThresholdBounds {
        direction: v1::ThresholdDirection::HigherIsBetter.into(),
        red_millionths: Some(1_000_000),
        ..v1::ThresholdBounds::default()
    };
    let threshold =
        v1::Threshold { measure: Some("grids".into()), bounds: Some(bounds), ..v1::Threshold::default() };
    node.put("divisions/220822000000/thresholds/grids", &threshold).await;
    assert!(one.thresholds().nearest("grids", own).is_some());
    let judged = async {
        // A stream looks again when it is told, and must find the threshold then.
        while two.thresholds().nearest("grids", own).is_none() {
            figures.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), judged).await.expect("the other gateway knows");

    let village = Division::parse("220822101299").unwrap();
    let division = v1::Division {
        code: Some(village.to_string()),
        display_name: Some("新村".into()),
        ..v1::Division::default()
    };
    node.put("divisions/220822101000/divisions/220822101299", &division).await;
    let listed = async {
        while two.divisions().name(village).is_none() {
            figures.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listed).await.expect("the other gateway knows");
    engine.stop().await;
    task.await.unwrap();
    node.stop().await;
}

/// The server commits, and its answer is lost with the line: nobody is told that the write is kept, its stamp is not
/// given out again, and asking again finds it done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_never_answered_and_its_stamp_never_reused() {
    let Some(mut node) = Node::new().await else { return };
    node.write(&case("a"), "before", None).await.unwrap();
    node.line.lose_answer_to_next_commit();
    let unknown = node.write(&case("b"), "committed", Some("request-b")).await;
    assert!(matches!(unknown, Err(EngineError::Store(_))), "{unknown:?}");
    node.line.restore().await;
    node.write_when_back(&case("c"), "after").await;
    let (lost, after) = (node.stamp(&case("b")).await, node.stamp(&case("c")).await);
    assert!(lost > node.stamp(&case("a")).await && after > lost, "{lost:?} {after:?}");
    let again = node.write(&case("b"), "committed", Some("request-b")).await.unwrap();
    assert!(!again.written.changed, "it was done the first time");
    assert_eq!(node.stamp(&case("b")).await, lost);
    node.stop().await;
}

/// A standby took over that lacks the last transactions: links are greeted anew, and operators are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_went_back_is_noticed() {
    let Some(mut node) = Node::new().await else { return };
    node.write(&case("a"), "kept", None).await.unwrap();
    node.write(&case("b"), "lost", None).await.unwrap();
    let lost = node.stamp(&case("b")).await;
    let (revision, lineage) = (node.engine.shared().revision(), node.engine.shared().lineage());
    node.line.cut().await;
    node.place
        .script(
            "DELETE FROM record WHERE id = 'b'; UPDATE node SET revision = revision - 1, records = records - 1;
             UPDATE writer SET clock = clock - 65536",
        )
        .await;
    node.line.restore().await;
    node.write_when_back(&case("c"), "after").await;
    let shared = node.engine.shared();
    assert_eq!(shared.revision(), revision, "one was lost, one is new");
    assert_ne!(shared.lineage(), lineage);
    assert!(shared.alarms().iter().any(|alarm| alarm.contains("went back")), "{:?}", shared.alarms());
    assert!(node.stamp(&case("c")).await > lost, "the lost stamp is not given out again");
    node.stop().await;
}
