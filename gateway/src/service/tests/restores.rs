//! Stores that go back in time, copies, clocks that are wrong, and children that send what is not theirs.

use std::sync::atomic::{AtomicI64, Ordering};

use guantong_proto::v1::{self, RefusalReason};

use super::{Node, case, division, environment, link, new_case, risk, until};
use crate::engine::{Environment, LinkBatch};
use crate::ingest::local::LocalWrite;
use crate::ingest::topology::Role;
use crate::record::{Record, Register, codec};
use crate::stamp::{Stamp, Writer};

#[tokio::test]
async fn a_restored_node_is_noticed_gets_back_what_it_forgot_and_becomes_a_new_writer() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    let (kept, forgotten) = (case(&county, "220822101000", "1"), case(&county, "220822101000", "2"));
    township.write(&kept, new_case("220822101000")).await.unwrap();
    until(async || county.record(&kept).await.is_some()).await;
    line.cut().await;
    let (township, backup) = township.backup().await;
    let line = link(&township, &county).await;
    township.write(&forgotten, new_case("220822101000")).await.unwrap();
    until(async || county.record(&forgotten).await.is_some()).await;
    line.cut().await;
    let epoch = township.engine.shared().epoch();
    let township = township.replace(backup).await;
    assert!(township.record(&forgotten).await.is_none());
    let offline = case(&county, "220822101000", "3");
    township.write(&offline, new_case("220822101000")).await.unwrap();
    let _line = link(&township, &county).await;
    until(async || township.record(&forgotten).await.is_some() && county.record(&offline).await.is_some())
        .await;
    assert_ne!(township.engine.shared().epoch(), epoch);
    let writer = |record: Option<Record>| record.unwrap().fields()[0].1.live().next().unwrap().0.writer;
    assert_ne!(writer(county.record(&offline).await), writer(county.record(&kept).await));
}

#[tokio::test]
async fn what_a_prefecture_wrote_comes_back_to_it_through_a_county_that_both_have_forgotten() {
    let empty = Node::new("2208", None).await.reopened(async |_| {}).await;
    let (prefecture, backup) = empty.backup().await;
    let county = Node::new("220822", Some("2208")).await;
    let township = Node::new("220822101", Some("220822")).await;
    let (below, above) = (link(&township, &county).await, link(&county, &prefecture).await);
    let name = case(&county, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    until(async || prefecture.record(&name).await.is_some()).await;
    let red = LocalWrite { acting: Some(prefecture.own), ..risk(v1::CaseRisk::Red) };
    prefecture.write(&name, red).await.unwrap();
    until(async || township.shown(&name).await.risk() == v1::CaseRisk::Red).await;
    below.cut().await;
    above.cut().await;
    let prefecture = prefecture.restored(&backup).await;
    let county = county.replace(tempfile::TempDir::new().unwrap()).await;
    let _below = link(&township, &county).await;
    until(async || county.record(&name).await.is_some()).await;
    let _above = link(&county, &prefecture).await;
    until(async || prefecture.record(&name).await.is_some()).await;
    let refused = async || county.engine.shared().store.counts().await.unwrap().quarantined;
    let at_rest = async || prefecture.shown(&name).await.risk() == v1::CaseRisk::Red || refused().await > 0;
    until(at_rest).await;
    assert_eq!(refused().await, 0, "it is not refused as a write that it never made");
    until(async || !prefecture.recovers_from(&county).await).await;
}

#[tokio::test]
async fn a_restored_store_sends_its_subscribers_everything_again() {
    use crate::engine::NewSubscription;
    use crate::ingest::topology::Interest;
    use guantong_proto::rules::Lane;
    let township = Node::new("220822101", Some("220822")).await;
    let county = Node::new("220822", None).await;
    let line = link(&township, &county).await;
    let kept = case(&township, "220822101000", "1");
    township.write(&kept, new_case("220822101000")).await.unwrap();
    until(async || county.record(&kept).await.is_some()).await;
    let interest = Interest { scope: county.own, kinds: vec![] };
    let new = NewSubscription { id: "feed".into(), owner: None, interest, personal: false, filled_for: 1 };
    let peer = county.engine.subscribe(new).await.unwrap().peer;
    let owed =
        async |node: &Node| node.engine.shared().store.owed(peer, Lane::Bulk, &[], 1_000).await.unwrap();
    let seqs = owed(&county).await.rows.iter().map(|row| row.seq).collect();
    county.engine.delivered(peer, seqs, vec![], vec![], 0).await.unwrap();
    assert!(owed(&county).await.rows.is_empty());
    line.cut().await;
    let (county, copy) = county.backup().await;
    let line = link(&township, &county).await;
    let later = case(&township, "220822101000", "2");
    township.write(&later, new_case("220822101000")).await.unwrap();
    until(async || county.record(&later).await.is_some()).await;
    line.cut().await;
    let county = county.replace(copy).await;
    let epoch = county.engine.shared().epoch();
    let _line = link(&township, &county).await;
    until(async || county.record(&later).await.is_some()).await;
    assert_ne!(county.engine.shared().epoch(), epoch, "it has noticed");
    let names: Vec<_> = owed(&county).await.records.into_iter().map(|record| record.name).collect();
    assert!(names.contains(&kept), "what it had sent before is owed again");
}

#[tokio::test]
async fn a_program_with_other_rules_judges_every_record_anew_and_owes_it() {
    use crate::ingest::changes::{Changes, LinkChange};
    let township = Node::new("220822101", Some("220822")).await;
    let name = case(&township, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let tallies =
        async |node: &Node| crate::service::figures::kept_now(node.engine.shared(), node.own).await.unwrap();
    let owed = async |node: &Node| {
        let peer = node.engine.peer(Role::Parent, division("220822")).await.unwrap().unwrap().id;
        node.engine.shared().store.backlog(peer).await.unwrap().bulk.count
    };
    let (sums, before) = (tallies(&township).await, owed(&township).await);
    assert!(!sums.is_empty());
    let township = township.reopened(async |_| {}).await;
    assert_eq!(owed(&township).await, before, "the same program has nothing to learn");
    let older = async |writer: &mut crate::store::Writer| {
        writer.apply(&Changes::default(), &[LinkChange::Learned([0; 16])], 1).await.unwrap();
    };
    let township = township.reopened(older).await;
    assert_eq!(tallies(&township).await, sums, "counted once");
    assert_eq!(owed(&township).await, before + 1);
}

static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

#[tokio::test]
async fn what_a_wrong_clock_wrote_is_refused_and_written_again_once_the_clock_is_right() {
    let fast = Environment {
        now_ms: || (environment().now_ms)().saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed)),
        ..environment()
    };
    OFFSET_MS.store(86_400_000, Ordering::Relaxed);
    let county = Node::new("220822", None).await;
    let township = Node::in_environment("220822101", Some("220822"), fast).await;
    let _line = link(&township, &county).await;
    let name = case(&county, "220822101000", "1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let quarantined = async || township.engine.shared().store.counts().await.unwrap().quarantined;
    until(async || quarantined().await > 0).await;
    OFFSET_MS.store(0, Ordering::Relaxed);
    until(async || county.record(&name).await.is_some()).await;
    until(async || quarantined().await == 0).await;
}

#[tokio::test]
async fn a_child_sends_what_is_not_its_own_and_everything_else_goes_in() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    until(async || county.engine.peer(Role::Child, township.own).await.unwrap().is_some()).await;
    line.cut().await;
    let peer = county.engine.peer(Role::Child, township.own).await.unwrap().unwrap().id;
    let record = |writer: &str, ms: u64| {
        let mut record = Record::default();
        let writer = Writer { division: division(writer), id: 7 };
        record.set(6, Register::single(writer, Stamp::from_ms(ms), vec![0x30, 1].into()));
        codec::encode(&record)
    };
    let send = |name: &str, state| v1::BatchRecord { name: name.into(), state, ..v1::BatchRecord::default() };
    let (now_ms, own) = ((environment().now_ms)(), "220822101000");
    let records = vec![
        send("divisions/220822101000/cases/good", record(own, 1)),
        send("divisions/220822102000/cases/1", record(own, 1)),
        send("divisions/220822101000/cases/2", record("220822000000", 1)),
        send("divisions/220822101000/cases/3", record(own, now_ms + 3_600_000)),
        send("divisions/220822101000/cases/4", vec![0xff, 0xff].into()),
        send("divisions/220822101000/letters/5", record(own, 1)),
        send("nonsense", record(own, 1)),
    ];
    let batch = LinkBatch { peer, same_epoch: true, bulk: false, peer_revision: 1, records };
    let refusals = county.engine.ingest(batch).await.unwrap();
    let mut reasons: Vec<RefusalReason> = refusals.iter().map(v1::Refusal::reason).collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            RefusalReason::Malformed,
            RefusalReason::Malformed,
            RefusalReason::UnknownKind,
            RefusalReason::OutOfScope,
            RefusalReason::ForeignWriter,
            RefusalReason::FutureStamp,
        ]
    );
    assert!(refusals.iter().all(|r| !r.detail.is_empty()));
    assert!(county.record(&case(&county, own, "good")).await.is_some());
    assert_eq!(county.engine.shared().store.counts().await.unwrap().records, 1);
}

#[tokio::test]
async fn a_request_that_is_repeated_is_done_once() {
    use crate::engine::{EngineError, Request, Write, WriteAction};
    let county = Node::new("220822", None).await;
    let name = case(&county, "220822000000", "1");
    county.write(&name, new_case("220822000000")).await.unwrap();
    let write = async |write, content| {
        let request = Some(Request { id: "r1".into(), content });
        let action = WriteAction::Fields(write);
        county.engine.write(Write { name: name.clone(), action, request, traceparent: None }).await
    };
    write(risk(v1::CaseRisk::Red), 1).await.unwrap();
    county.write(&name, risk(v1::CaseRisk::Blue)).await.unwrap();
    let repeated = write(risk(v1::CaseRisk::Red), 1).await.unwrap();
    assert!(!repeated.written.changed);
    assert_eq!(county.shown(&name).await.risk(), v1::CaseRisk::Blue, "the repeat did not write again");
    assert!(matches!(write(risk(v1::CaseRisk::Red), 2).await, Err(EngineError::RequestReused)));
}
