//! Numbers of enums that the contract does not have: refused wherever somebody writes or asks here, kept where a link
//! brings them.

use guantong_proto::rules::fields::case as f;
use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_server::AggregateService;
use guantong_proto::v1::camera_service_server::CameraService;
use guantong_proto::v1::case_service_server::CaseService;
use guantong_proto::v1::grid_service_server::GridService;
use guantong_proto::v1::record_service_server::RecordService;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::grants::{desk, partner};
use super::partners::{HOME, Setting, camera, filing, violations};
use crate::engine::Import;
use crate::record::{Record, Register, codec, raw};
use crate::service::aggregates::Aggregates;
use crate::service::records::Records;
use crate::stamp::{Stamp, Writer};

const UNKNOWN: i32 = 77;

/// The fields that a refusal names.
fn wrong(refused: Result<impl Sized, Status>) -> Vec<String> {
    let refused = refused.err().expect("refused");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("known are 1 "), "{}", refused.message());
    violations(&refused)
}

#[tokio::test]
async fn typed_services_name_them_in_the_callers_words() {
    let s = Setting::new().await;
    let mut request = filing("1", "");
    let case = request.case.as_mut().unwrap();
    case.risk = Some(UNKNOWN);
    case.parties.push(v1::Party { role: UNKNOWN, ..Default::default() });
    case.lifecycle = Some(v1::Lifecycle { state: UNKNOWN, holder: HOME.into(), ..Default::default() });
    let named = wrong(s.cases.create_case(partner(request)).await);
    assert_eq!(named, vec!["case.risk", "case.parties[1].role", "case.lifecycle.state"]);

    s.file("2").await;
    let name = || format!("divisions/{HOME}/cases/2");
    let press = v1::SuperviseCaseRequest { name: name(), level: UNKNOWN, ..Default::default() };
    assert_eq!(wrong(s.cases.supervise_case(desk(press)).await), vec!["level"]);
    s.cases.accept_case(desk(v1::AcceptCaseRequest { name: name(), ..Default::default() })).await.unwrap();
    let outcome = v1::Outcome { succeeded: Some(true), method: UNKNOWN, ..Default::default() };
    let conclude = v1::ConcludeCaseRequest { name: name(), outcome: Some(outcome), ..Default::default() };
    assert_eq!(wrong(s.cases.conclude_case(desk(conclude)).await), vec!["case.outcome.method"]);
    let reply = v1::Reply { text: "已处理".into(), satisfaction: UNKNOWN };
    let reply = v1::ReplyCaseRequest { name: name(), reply: Some(reply), ..Default::default() };
    assert_eq!(wrong(s.cases.reply_case(desk(reply)).await), vec!["case.reply.satisfaction"]);
    assert_eq!(s.node.shown(&super::case(&s.node, HOME, "2")).await.reply, None, "nothing changed");

    let point = v1::Camera {
        name: format!("divisions/220822000000/cameras/{}", camera(1).device_id()),
        functions: vec![1, UNKNOWN],
        ..camera(1)
    };
    let update = v1::UpdateCameraRequest { camera: Some(point), allow_missing: true, ..Default::default() };
    let parent = "divisions/220822000000".to_owned();
    let batch = v1::BatchWriteCamerasRequest { parent, requests: vec![update] };
    let results = s.cameras.batch_write_cameras(partner(batch)).await.unwrap().into_inner().results;
    assert_eq!(results[0].problem.as_ref().unwrap().fields[0].field, "camera.functions[1]");
}

#[tokio::test]
async fn so_do_bare_records_moves_and_ledgers() {
    let s = Setting::new().await;
    s.file("1").await;
    let records = Records::new(s.node.engine.clone(), crate::service::Links::new());
    let name = format!("divisions/{HOME}/cases/1");
    let fields = v1::Case { scale: Some(UNKNOWN), ..Default::default() }.encode_to_vec();
    let record = v1::Record { name: name.clone(), fields: fields.into(), ..Default::default() };
    let write = v1::WriteRecordRequest { record: Some(record), ..Default::default() };
    assert_eq!(wrong(records.write_record(desk(write)).await), vec!["case.scale"]);
    let moving = v1::MoveCaseRequest { name, r#move: UNKNOWN, ..Default::default() };
    assert_eq!(wrong(records.move_case(desk(moving)).await), vec!["move"]);

    let row = |key: &str, case: v1::Case| v1::ImportRow {
        key: key.into(),
        home: HOME.into(),
        fields: case.encode_to_vec().into(),
        line: 2,
        ..Default::default()
    };
    let lifecycle = |state| {
        let lifecycle = v1::Lifecycle { state, holder: HOME.into(), ..Default::default() };
        v1::Case { lifecycle: Some(lifecycle), ..Default::default() }
    };
    let rows = vec![row("a", lifecycle(UNKNOWN)), row("b", lifecycle(v1::CaseState::Verified.into()))];
    let kind = s.node.engine.shared().schema.kind_named("case").unwrap().id;
    let import = Import { kind, source: "台账".into(), begun: None, rows };
    let progress = s.node.engine.import(import).await.unwrap();
    assert_eq!((progress.created_count, progress.problems.len()), (1, 1), "the rest goes in");
    assert_eq!(progress.problems[0].field, "lifecycle.state");
}

#[tokio::test]
async fn so_do_conditions_and_questions() {
    let s = Setting::new().await;
    let parent = || "divisions/220822000000".to_owned();
    let cases = v1::ListCasesRequest { parent: parent(), states: vec![UNKNOWN], ..Default::default() };
    assert_eq!(wrong(s.cases.list_cases(partner(cases)).await), vec!["states"]);
    let grids = v1::ListGridsRequest { parent: parent(), grid_types: vec![1, UNKNOWN], ..Default::default() };
    assert_eq!(wrong(s.grids.list_grids(partner(grids)).await), vec!["grid_types"]);
    for (states, ownerships, point_classes, field) in [
        (vec![UNKNOWN], vec![], vec![], "states"),
        (vec![], vec![-1], vec![], "ownerships"),
        (vec![], vec![], vec![4], "point_classes"),
    ] {
        let list = v1::ListCamerasRequest {
            parent: parent(),
            states,
            ownerships,
            point_classes,
            ..Default::default()
        };
        assert_eq!(wrong(s.cameras.list_cameras(partner(list)).await), vec![field]);
    }
    let query = v1::AggregateQuery {
        measures: vec!["cases_received".into()],
        period: "2026".into(),
        tier: UNKNOWN,
        step: UNKNOWN,
        comparisons: vec![1, UNKNOWN, UNKNOWN],
        ..Default::default()
    };
    let aggregates = Aggregates::new(s.node.engine.clone(), CancellationToken::new());
    let asked = v1::QueryAggregatesRequest { query: Some(query) };
    let named = wrong(aggregates.query_aggregates(desk(asked)).await);
    assert_eq!(named, vec!["query.tier", "query.step", "query.comparisons"]);
}

#[tokio::test]
async fn a_link_brings_what_a_newer_program_knows() {
    let county = super::Node::new("220822", None).await;
    let child = super::division("220822101");
    let peer = county.engine.welcome(child, v1::Hello::default()).await.unwrap().peer.id;
    let (mut record, writer) = (Record::default(), Writer { division: child, id: 7 });
    let case = v1::Case { risk: Some(UNKNOWN), ..Default::default() };
    for (field, value) in raw::split(&case.encode_to_vec().into()).unwrap() {
        record.set(field, Register::single(writer, Stamp::from_ms(1), value));
    }
    let name = format!("divisions/{HOME}/cases/1");
    let records = vec![v1::BatchRecord { name, state: codec::encode(&record), ..Default::default() }];
    let batch = crate::engine::LinkBatch { peer, same_epoch: true, bulk: false, peer_revision: 1, records };
    assert_eq!(county.engine.ingest(batch).await.unwrap(), vec![]);
    let name = super::case(&county, HOME, "1");
    assert_eq!(county.shown(&name).await.risk, Some(UNKNOWN));
    // What is there already is no new write, whoever sends it along.
    let echo = v1::Case { risk: Some(UNKNOWN), title: Some("标题".into()), ..Default::default() };
    let fields = raw::split(&echo.encode_to_vec().into()).unwrap();
    county.write(&name, crate::ingest::local::LocalWrite::of(fields)).await.unwrap();
    let held = county.record(&name).await.unwrap();
    assert_eq!(held.get(f::RISK).unwrap().entries().len(), 1);
    assert_eq!(county.shown(&name).await.title(), "标题");
}
