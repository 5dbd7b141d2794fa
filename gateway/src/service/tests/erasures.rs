//! What was erased is gone at every node that had it, and does not come back.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use guantong_proto::v1::record_service_server::RecordService;
use tonic::Code;

use super::whereabouts::Tree;
use super::{Line, Node, case, division, link, new_case, until, value};
use crate::audit::Event;
use crate::engine::{EngineError, Import, Write, WriteAction};
use crate::erasure::Erasures;
use crate::grant::{Grant, Level};
use crate::ingest::changes::GrantRow;
use crate::ingest::erasure::Erase;
use crate::ingest::local::{LocalWrite, WriteError};
use crate::record::{Record, RecordName};
use crate::service::records::Records;
use crate::service::{Caller, Links, Who};

const TOWNSHIP: &str = "220822101000";

async fn erase(node: &Node, name: &RecordName, fields: &[u32]) -> Result<(), EngineError> {
    let action = WriteAction::Erase(Erase { fields: fields.to_vec(), ..Erase::default() });
    let write = Write { name: name.clone(), action, request: None, traceparent: None };
    node.engine.write(write).await.map(|_| ())
}

/// Whether the bytes of a text stand anywhere in a node's store, unused bytes and log included.
fn holds(node: &Node, text: &str) -> bool {
    let files = std::fs::read_dir(node.folder.path()).unwrap();
    let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    bytes.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

fn standing(record: &Record, field: u32) -> usize {
    record.get(field).map_or(0, |register| register.live().count())
}

fn title(text: &str) -> LocalWrite {
    let case = v1::Case { title: Some(text.into()), ..Default::default() };
    LocalWrite::of(vec![(fields::case::TITLE, value(case))])
}

async fn pair() -> (Node, Node, Line, RecordName) {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let line = link(&township, &county).await;
    let name = case(&township, TOWNSHIP, "1");
    township.write(&name, new_case(TOWNSHIP)).await.unwrap();
    until(async || county.record(&name).await.is_some()).await;
    (township, county, line, name)
}

#[tokio::test]
async fn what_the_county_erases_goes_at_the_township_too_with_its_history_and_its_bytes() {
    let (township, county, _line, name) = pair().await;
    // A conflict, settled: its history holds both values.
    let beside = LocalWrite { basis: crate::ingest::local::Basis::Own, ..title("县里的标题") };
    county.write(&name, LocalWrite { acting: Some(county.own), ..beside }).await.unwrap();
    until(async || standing(&township.record(&name).await.unwrap(), fields::case::TITLE) == 2).await;
    let etag = crate::ingest::local::etag(&township.record(&name).await.unwrap());
    let basis = crate::ingest::local::Basis::Etag(etag);
    township.write(&name, LocalWrite { basis, ..title("定稿的标题") }).await.unwrap();
    until(async || county.shown(&name).await.title() == "定稿的标题").await;
    let settled =
        async |node: &Node| node.engine.shared().store.resolutions(None, None, 9).await.unwrap().len();
    assert_eq!((settled(&township).await, settled(&county).await), (1, 1));
    assert!(holds(&township, "张甲") && holds(&township, "县里的标题"), "the search finds what is there");

    erase(&county, &name, &[fields::case::TITLE, fields::case::PARTIES]).await.unwrap();
    until(async || {
        let record = township.record(&name).await.unwrap();
        standing(&record, fields::case::TITLE) + standing(&record, fields::case::PARTIES) == 0
    })
    .await;
    for node in [&township, &county] {
        assert_eq!(settled(node).await, 0, "nor does the history tell it");
        let shown = node.shown(&name).await;
        assert_eq!((shown.title(), shown.parties.len(), shown.erased.len()), ("", 0, 1));
        assert_eq!(shown.case_kind, Some(1), "the rest stays");
        for text in ["张甲", "测试", "县里的标题", "定稿的标题"] {
            until(async || !holds(node, text)).await;
        }
    }
    township.write(&name, title("新的标题")).await.unwrap();
    until(async || county.shown(&name).await.title() == "新的标题").await;
}

#[tokio::test]
async fn what_the_county_wrote_is_erased_by_the_township_too() {
    let (township, county, _line, name) = pair().await;
    county.write(&name, LocalWrite { acting: Some(county.own), ..title("县里的标题") }).await.unwrap();
    until(async || township.shown(&name).await.title() == "县里的标题").await;
    erase(&township, &name, &[fields::case::TITLE]).await.unwrap();
    until(async || standing(&county.record(&name).await.unwrap(), fields::case::TITLE) == 0).await;
    let owed = async || township.engine.shared().store.counts().await.unwrap();
    until(async || county.shown(&name).await.erased.len() == 1).await;
    assert_eq!(owed().await.quarantined, 0, "nothing of it is refused");
}

#[tokio::test]
async fn a_restored_backup_does_not_bring_it_back() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    // Linked, so that it has a token; then the case is written, and the backup made before the next greeting: after a
    // restore the case counts as written since, and is written again under a new stamp.
    let line = link(&township, &county).await;
    let name = case(&township, TOWNSHIP, "1");
    township.write(&name, new_case(TOWNSHIP)).await.unwrap();
    until(async || county.record(&name).await.is_some()).await;
    line.cut().await;
    let (township, backup) = township.backup().await;
    let line = link(&township, &county).await;
    erase(&township, &name, &[fields::case::TITLE, fields::case::PARTIES]).await.unwrap();
    until(async || county.shown(&name).await.erased.len() == 1).await;
    line.cut().await;
    let township = township.replace(backup).await;
    assert_eq!(township.shown(&name).await.title(), "测试", "the backup is one");
    let _line = link(&township, &county).await;
    until(async || {
        let record = township.record(&name).await.unwrap();
        let marks = Erasures::of(township.engine.shared().schema.kind(name.kind), &record);
        !marks.is_empty()
    })
    .await;
    for node in [&township, &county] {
        let record = node.record(&name).await.unwrap();
        assert_eq!(standing(&record, fields::case::TITLE) + standing(&record, fields::case::PARTIES), 0);
        until(async || !holds(node, "张甲")).await;
    }
}

#[tokio::test]
async fn a_ledger_does_not_bring_it_back_and_is_not_remembered() {
    let township = Node::new("220822101", Some("220822")).await;
    let shared = township.engine.shared();
    let grid = shared.schema.kind_named("grid").unwrap();
    let message = |households| v1::Grid {
        grid_code: Some("220822101000001".into()),
        division: Some("220822101000".into()),
        display_name: Some("一网格".into()),
        households: Some(households),
        contact: Some(v1::Contact { name: "李网格长".into(), telephone: "13900000001".into() }),
        ..Default::default()
    };
    let import = async |households| {
        let fields = prost::Message::encode_to_vec(&message(households)).into();
        let (key, home) = ("220822101000001".to_owned(), TOWNSHIP.to_owned());
        let row = v1::ImportRow { key, home, fields, ..Default::default() };
        let import = Import { kind: grid.id, source: "台账".into(), begun: None, rows: vec![row] };
        township.engine.import(import).await.unwrap()
    };
    let first = import(10).await;
    assert_eq!((first.created_count + first.held_count, first.problems.len()), (1, 0), "{first:?}");
    let name = township.engine.name("divisions/220822101000/grids/220822101000001").unwrap();
    assert!(township.record(&name).await.is_some(), "{first:?}");
    erase(&township, &name, &[fields::grid::CONTACT]).await.unwrap();
    let again = import(11).await;
    assert_eq!((again.changed_count, again.erased_count), (1, 1));
    let record = township.record(&name).await.unwrap();
    assert_eq!(standing(&record, fields::grid::CONTACT), 0);
    until(async || !holds(&township, "李网格长")).await;
}

#[tokio::test]
async fn only_operators_of_the_home_or_above_erase_and_only_what_can_be_erased() {
    let (township, county, _line, name) = pair().await;
    let refused = erase(&township, &name, &[fields::case::STEPS]).await;
    assert!(matches!(refused, Err(EngineError::Refused(WriteError::NotAllowed { .. }))), "{refused:?}");
    let missing = erase(&township, &case(&township, TOWNSHIP, "2"), &[fields::case::TITLE]).await;
    assert!(matches!(missing, Err(EngineError::Refused(WriteError::NotFound))));
    let above = case(&township, "220822000000", "9");
    county.write(&above, new_case("220822000000")).await.unwrap();
    let elsewhere = erase(&township, &above, &[fields::case::TITLE]).await;
    assert!(elsewhere.is_err(), "{elsewhere:?}");

    let records = Records::new(county.engine.clone(), Links::new());
    let ask = async |who: Who, reason: &str, validate_only| {
        let mut request = tonic::Request::new(v1::EraseRecordRequest {
            name: format!("divisions/{TOWNSHIP}/cases/1"),
            reason: reason.into(),
            validate_only,
            ..Default::default()
        });
        request.extensions_mut().insert(Caller { who, address: "test".into() });
        records.erase_record(request).await.map(tonic::Response::into_inner)
    };
    let partner = ask(Who::Partner("hotline".into()), "申请", false).await.unwrap_err();
    assert_eq!(partner.code(), Code::PermissionDenied);
    assert_eq!(ask(Who::Local, " ", false).await.unwrap_err().code(), Code::InvalidArgument);
    let would = ask(Who::Local, "本人申请", true).await.unwrap();
    assert_eq!((would.value_count, would.before_time), (1, None), "the county holds the title alone");
    assert!(would.field_names.contains(&"parties".to_owned()));
    assert_eq!(county.shown(&name).await.title(), "测试", "nothing was changed");
    let done = ask(Who::Operator("wang".into()), "本人申请", false).await.unwrap();
    assert_eq!((done.value_count, done.places[0].peers.len()), (1, 1));
    assert!(done.before_time.is_some());
    until(async || {
        let request = v1::GetErasureRequest { name: done.name.clone(), tree: false };
        let mut request = tonic::Request::new(request);
        request.extensions_mut().insert(Caller { who: Who::Local, address: "test".into() });
        let now = records.get_erasure(request).await.unwrap().into_inner();
        now.places[0].peers[0].state() == v1::ErasureState::Delivered && now.value_count == 0
    })
    .await;
    assert!(township.shown(&name).await.parties.is_empty());
}

/// What is said at a node about the erasure of a record in the whole tree.
async fn reported(node: &Node, name: &RecordName) -> Result<v1::ErasureReport, tonic::Status> {
    let name = name.display(&node.engine.shared().schema).to_string();
    let mut request = tonic::Request::new(v1::GetErasureRequest { name, tree: true });
    request.extensions_mut().insert(Caller { who: Who::Local, address: "test".into() });
    let records = Records::new(node.engine.clone(), node.links.clone());
    records.get_erasure(request).await.map(tonic::Response::into_inner)
}

/// Asks until it is this far.
async fn come_to(node: &Node, name: &RecordName, spread: v1::ErasureSpread) -> v1::ErasureReport {
    let mut last = None;
    until(async || {
        last = reported(node, name).await.ok();
        last.as_ref().is_some_and(|report| report.spread() == spread)
    })
    .await;
    last.unwrap()
}

fn of<'r>(report: &'r v1::ErasureReport, node: &Node) -> &'r v1::ErasurePlace {
    let node = node.own.to_string();
    report.places.iter().find(|place| place.division == node).unwrap()
}

/// The nodes, the highest first, and how each stands.
fn states(report: &v1::ErasureReport) -> Vec<(&str, v1::ErasurePlaceState)> {
    report.places.iter().map(|place| (place.division.as_str(), place.state())).collect()
}

const PURGED: v1::ErasurePlaceState = v1::ErasurePlaceState::Purged;

#[tokio::test]
async fn every_tier_says_what_it_purged_and_who_is_down_is_named_until_it_is_back() {
    let tree = Tree::new().await;
    let Tree { province, prefecture, county, township, other } = &tree;
    let _upper = link(prefecture, province).await;
    let cut = link(county, prefecture).await;
    let _lower = (link(township, county).await, link(other, county).await);
    let name = case(township, TOWNSHIP, "1");
    township.write(&name, new_case(TOWNSHIP)).await.unwrap();
    until(async || province.record(&name).await.is_some()).await;
    assert_eq!(come_to(province, &name, v1::ErasureSpread::None).await.before_time, None);
    let backup = "BackupService.CreateBackup".to_owned();
    county.engine.audit(Event::Command { command: backup, by: "local user 0".into(), outcome: "ok" });
    until(async || !county.engine.shared().store.audit_copies(u64::MAX).await.unwrap().is_empty()).await;

    cut.cut().await;
    erase(township, &name, &[fields::case::TITLE, fields::case::PARTIES]).await.unwrap();
    until(async || county.shown(&name).await.erased.len() == 1).await;
    let report = come_to(township, &name, v1::ErasureSpread::OnItsWay).await;
    assert_eq!(report.field_names, ["title", "parties"]);
    let unknown = v1::ErasurePlaceState::Unspecified;
    let expected = [("220800000000", unknown), ("220822000000", PURGED), ("220822101000", PURGED)];
    assert_eq!(states(&report), expected);
    let down = of(&report, prefecture);
    assert_eq!((down.answer(), down.told()), (v1::NodeAnswer::NotLinked, v1::ErasureState::Pending));
    assert!(down.since_time.is_some() && down.reason.contains("down"), "{down:?}");
    let values = |node| of(&report, node).purged.as_ref().unwrap().value_count;
    assert_eq!((values(township), values(county)), (2, 1), "the party was never above the township");
    assert!(of(&report, county).purge_time.is_some() && of(&report, county).standing_count == 0);
    let copies = &of(&report, county).copies;
    assert_eq!(copies.iter().map(|c| (c.kind(), c.count)).collect::<Vec<_>>(), [(v1::CopyKind::Backup, 1)]);
    assert!(of(&report, township).copies.is_empty());
    // From above nobody knows of it yet, and it is said who could not be asked.
    let report = come_to(province, &name, v1::ErasureSpread::Unknown).await;
    assert_eq!(of(&report, county).answer(), v1::NodeAnswer::NotLinked);
    // Whom the record does not concern is told nothing.
    let report = reported(other, &name).await.unwrap();
    assert_eq!(
        (of(&report, other).state(), of(&report, county).answer()),
        (v1::ErasurePlaceState::Absent, v1::NodeAnswer::Refused)
    );

    let _again = link(county, prefecture).await;
    for node in [township, county, prefecture, province] {
        let report = come_to(node, &name, v1::ErasureSpread::Everywhere).await;
        let all = ["220000000000", "220800000000", "220822000000", "220822101000"];
        assert_eq!(states(&report), all.map(|node| (node, PURGED)), "asked at {}", node.own);
        assert!(report.places.iter().all(|p| p.purge_time.is_some() && !p.display_name.is_empty()));
    }
    township.write(&name, title("新的标题")).await.unwrap();
    until(async || county.shown(&name).await.title() == "新的标题").await;
    let report = come_to(province, &name, v1::ErasureSpread::Everywhere).await;
    let standing: Vec<u64> = report.places.iter().map(|place| place.standing_count).collect();
    assert_eq!(standing, [0, 0, 1, 1], "what came since stands where it may be");
}

#[tokio::test]
async fn what_nobody_has_cannot_be_erased_and_copies_are_told_before_anything_is_done() {
    let (township, county, _line, name) = pair().await;
    let missing = reported(&county, &case(&county, TOWNSHIP, "nobody-has-it")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let grant = Grant { level: Level::Read, ..Grant::everything(division("220822")) };
    let (partner, granted_by) = ("hotline".into(), "operator/wang".into());
    township.engine.set_grant(GrantRow { partner, grant, granted_ms: 1, granted_by }).await.unwrap();
    let mut request = tonic::Request::new(v1::EraseRecordRequest {
        name: name.display(&township.engine.shared().schema).to_string(),
        reason: "本人申请".into(),
        validate_only: true,
        ..Default::default()
    });
    request.extensions_mut().insert(Caller { who: Who::Local, address: "test".into() });
    let records = Records::new(township.engine.clone(), township.links.clone());
    let would = records.erase_record(request).await.unwrap().into_inner();
    assert_eq!((would.spread(), would.places.len()), (v1::ErasureSpread::Unspecified, 1));
    let copies = &would.places[0].copies;
    assert_eq!((copies.len(), copies[0].kind(), &*copies[0].holder), (1, v1::CopyKind::Partner, "hotline"));
    assert_eq!(township.shown(&name).await.title(), "测试", "nothing was changed");
}
