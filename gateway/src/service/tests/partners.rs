//! The services for partners, called as a partner calls them: typed records, filters, moves, batches.

use guantong_proto::v1;
use guantong_proto::v1::camera_service_server::CameraService;
use guantong_proto::v1::case_service_server::CaseService;
use guantong_proto::v1::grid_service_server::GridService;
use guantong_proto::v1::record_service_server::RecordService;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::Node;
use super::grants::{desk, grant, partner};
use crate::service::cameras::Cameras;
use crate::service::cases::Cases;
use crate::service::grids::Grids;

pub(super) const HOME: &str = "220822101000";

/// A county, and its services with a partner that may write everything in it.
pub(super) struct Setting {
    pub(super) node: Node,
    pub(super) grids: Grids,
    pub(super) cases: Cases,
    pub(super) cameras: Cameras,
}

impl Setting {
    pub(super) async fn new() -> Setting {
        let node = Node::new("220822", None).await;
        grant(&node, "220822", &[], v1::GrantLevel::Write, true).await;
        let engine = || node.engine.clone();
        let (grids, cases, cameras) = (Grids::new(engine()), Cases::new(engine()), Cameras::new(engine()));
        Setting { grids, cases, cameras, node }
    }

    pub(super) async fn file(&self, id: &str) -> v1::Case {
        self.cases.create_case(partner(filing(id, ""))).await.unwrap().into_inner()
    }
}

fn case() -> v1::Case {
    v1::Case {
        case_kind: Some(v1::CaseKind::Dispute.into()),
        category: Some("neighbours".into()),
        channel: Some(v1::CaseChannel::Hotline12345.into()),
        title: Some("噪音".into()),
        received_on: Some(date(2026, 10, 21)),
        division: Some(HOME.into()),
        parties: vec![v1::Party { name: "张甲".into(), ..Default::default() }],
        external_refs: vec![v1::ExternalRef {
            system: "12345".into(),
            number: "W-7".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn date(year: i32, month: i32, day: i32) -> v1::Date {
    v1::Date { year, month, day }
}

pub(super) fn filing(id: &str, request_id: &str) -> v1::CreateCaseRequest {
    v1::CreateCaseRequest {
        parent: format!("divisions/{HOME}"),
        case_id: id.into(),
        case: Some(case()),
        request_id: request_id.into(),
        ..Default::default()
    }
}

pub(super) fn camera(serial: u32) -> v1::Camera {
    v1::Camera {
        device_id: Some(format!("2208220000132{serial:07}")),
        division: Some("220822000000".into()),
        ownership: Some(v1::CameraOwnership::Public.into()),
        point_class: Some(v1::PointClass::First.into()),
        pole_code: Some(format!("P{}", serial % 3)),
        installed_on: Some(date(2020 + serial as i32 % 5, 1, 1)),
        ..Default::default()
    }
}

pub(super) fn violations(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    details.bad_request().map_or_else(Vec::new, |bad| {
        bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
    })
}

#[tokio::test]
async fn a_hotline_files_a_case_follows_it_and_gets_the_reply() {
    let s = Setting::new().await;
    let filed = s.cases.create_case(partner(filing("", "order-7"))).await.unwrap().into_inner();
    let lifecycle = filed.lifecycle.clone().unwrap();
    assert_eq!((lifecycle.state(), lifecycle.holder.as_str()), (v1::CaseState::Reported, HOME));
    assert!(!filed.etag.is_empty() && filed.update_time.is_some());
    assert_eq!(filed.external_refs[0].id, "12345:W-7", "the id of the number is made where none is given");

    // The retry is the same case; another content under the same id is refused.
    let again = s.cases.create_case(partner(filing("", "order-7"))).await.unwrap().into_inner();
    assert_eq!((&again.name, &again.etag), (&filed.name, &filed.etag));
    let mut other = filing("", "order-7");
    other.case.as_mut().unwrap().title = Some("别的".into());
    let refused = s.cases.create_case(partner(other)).await.unwrap_err();
    assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec!["request_id".into()]));

    let name = || filed.name.clone();
    let accept = v1::AcceptCaseRequest { name: name(), to_unit: "police".into(), ..Default::default() };
    let case = s.cases.accept_case(desk(accept.clone())).await.unwrap().into_inner();
    assert_eq!(case.lifecycle.as_ref().unwrap().unit, "police");
    let refused = s.cases.accept_case(desk(accept)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.reason, "ILLEGAL_MOVE");
    assert!(info.metadata["legal_moves"].contains("MOVE_CONCLUDE"), "{:?}", info.metadata);

    // A stale etag is refused; the present one is taken.
    let supervise = |etag: &str| v1::SuperviseCaseRequest {
        name: name(),
        etag: etag.into(),
        level: v1::SupervisionLevel::Yellow.into(),
        ..Default::default()
    };
    let refused = s.cases.supervise_case(desk(supervise(&filed.etag))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let pressed = s.cases.supervise_case(desk(supervise(&case.etag))).await.unwrap().into_inner();
    assert_eq!(pressed.supervision.unwrap().by, "220822000000", "the county presses its township");
    let reply = v1::Reply { text: "已处理".into(), ..Default::default() };
    let reply = v1::ReplyCaseRequest { name: name(), reply: Some(reply), ..Default::default() };
    s.cases.reply_case(desk(reply)).await.unwrap();
    let conclude = v1::ConcludeCaseRequest {
        name: name(),
        outcome: Some(v1::Outcome { succeeded: Some(true), ..Default::default() }),
        ..Default::default()
    };
    s.cases.conclude_case(desk(conclude)).await.unwrap();
    let verify = v1::VerifyCaseRequest { name: name(), ..Default::default() };
    s.cases.verify_case(desk(verify)).await.unwrap();
    let got = s.cases.get_case(partner(v1::GetCaseRequest { name: name() })).await.unwrap().into_inner();
    assert_eq!(got.reply.as_ref().unwrap().text, "已处理");
    assert_eq!(got.lifecycle.as_ref().unwrap().state(), v1::CaseState::Verified);
    let updated = |case: &v1::Case| case.update_time.map(|t| (t.seconds, t.nanos));
    assert!(updated(&got) > updated(&filed));
    assert_eq!(got.steps.len(), 4, "registered, accepted, concluded, verified");
}

#[tokio::test]
async fn a_write_names_what_is_wrong_in_the_callers_words() {
    let s = Setting::new().await;
    let mut bad = filing("1", "");
    let case = bad.case.as_mut().unwrap();
    (case.involved_count, case.received_on) = (Some(-1), Some(date(2026, 2, 30)));
    let refused = s.cases.create_case(partner(bad)).await.unwrap_err();
    assert_eq!(violations(&refused), vec!["case.received_on", "case.involved_count"]);
    assert_eq!(refused.code(), Code::InvalidArgument);

    let wrong_kind = v1::GetCaseRequest { name: format!("divisions/{HOME}/grids/1") };
    assert_eq!(violations(&s.cases.get_case(partner(wrong_kind)).await.unwrap_err()), vec!["name"]);
    let village = v1::CreateCaseRequest { parent: "divisions/220822101201".into(), ..filing("1", "") };
    assert_eq!(violations(&s.cases.create_case(partner(village)).await.unwrap_err()), vec!["parent"]);
    let update = |case: v1::Case, paths: &[&str]| v1::UpdateCaseRequest {
        case: Some(v1::Case { name: format!("divisions/{HOME}/cases/1"), ..case }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        ..Default::default()
    };
    let missing = s.cases.update_case(partner(update(case_titled("x"), &[]))).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    s.file("1").await;
    let exists = s.cases.create_case(partner(filing("1", ""))).await.unwrap_err();
    assert_eq!(exists.code(), Code::AlreadyExists);
    let refused = s.cases.update_case(partner(update(case_titled("x"), &["lifecycle.state"]))).await;
    assert_eq!(violations(&refused.unwrap_err()), vec!["update_mask"]);

    // What is named and absent is cleared; nothing else is.
    let cleared =
        s.cases.update_case(partner(update(case_titled("x"), &["title", "parties"]))).await.unwrap();
    assert_eq!((cleared.get_ref().title(), cleared.get_ref().parties.len()), ("x", 0));
    assert_eq!(cleared.get_ref().category(), "neighbours");

    let mut grid = v1::Grid { grid_code: Some("220822101201001".into()), ..Default::default() };
    grid.grid_type = Some(v1::GridType::Micro.into());
    let parent = format!("divisions/{HOME}");
    let create =
        v1::CreateGridRequest { parent, grid: Some(grid), grid_id: "other".into(), ..Default::default() };
    let refused = s.grids.create_grid(partner(create.clone())).await.unwrap_err();
    assert!(violations(&refused).contains(&"grid.grid_code".to_owned()), "{refused:?}");
}

fn case_titled(title: &str) -> v1::Case {
    v1::Case { title: Some(title.into()), ..Default::default() }
}

#[tokio::test]
async fn what_is_said_beside_a_record_never_enters_it() {
    let s = Setting::new().await;
    let beside = v1::Case {
        etag: String::new(),
        conflicting_fields: vec!["title".into()],
        update_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..case()
    };
    let create = v1::CreateCaseRequest { case: Some(beside), ..filing("1", "") };
    let made = s.cases.create_case(partner(create)).await.unwrap().into_inner();
    assert!(made.conflicting_fields.is_empty() && made.update_time.unwrap().seconds > 1);
    let name = super::case(&s.node, HOME, "1");
    let stored = s.node.record(&name).await.unwrap();
    assert!(stored.fields().iter().all(|(field, _)| !guantong_proto::rules::is_beside(*field)));
    // Written as bare fields, they are refused by the engine itself.
    let bare =
        crate::ingest::local::LocalWrite::of(vec![(80, bytes::Bytes::from_static(&[0x82, 5, 1, b'x']))]);
    assert!(s.node.write(&name, bare).await.is_err());
}

#[tokio::test]
async fn a_link_cannot_bring_in_what_is_said_beside_a_record() {
    use crate::record::{Record, Register, codec};
    use crate::stamp::{Stamp, Writer};
    let county = Node::new("220822", None).await;
    let child = super::division("220822101");
    let peer = county.engine.welcome(child, v1::Hello::default()).await.unwrap().peer.id;
    let (mut record, writer) = (Record::default(), Writer { division: child, id: 7 });
    let title = v1::Case { title: Some("标题".into()), etag: "0".into(), ..Default::default() };
    for (field, value) in crate::record::raw::split(&prost::Message::encode_to_vec(&title).into()).unwrap() {
        record.set(field, Register::single(writer, Stamp::from_ms(1), value));
    }
    assert!(record.get(80).is_some());
    let name = format!("divisions/{HOME}/cases/1");
    let records = vec![v1::BatchRecord { name, state: codec::encode(&record), ..Default::default() }];
    let batch = crate::engine::LinkBatch { peer, same_epoch: true, bulk: false, peer_revision: 1, records };
    let refused = county.engine.ingest(batch).await.unwrap();
    assert_eq!(refused.iter().map(|r| r.field).collect::<Vec<_>>(), vec![80], "{refused:?}");
    let stored = county.record(&super::case(&county, HOME, "1")).await.unwrap();
    assert!(stored.get(80).is_none() && stored.get(12).is_some(), "the rest went in");
}

#[tokio::test]
async fn a_batch_says_of_each_item_what_became_of_it() {
    let s = Setting::new().await;
    let item = |camera: v1::Camera, home: &str| v1::UpdateCameraRequest {
        camera: Some(v1::Camera {
            name: format!("divisions/{home}/cameras/{}", camera.device_id()),
            ..camera
        }),
        allow_missing: true,
        ..Default::default()
    };
    let good = item(camera(1), "220822000000");
    let bad =
        item(v1::Camera { pole_code: None, division: Some("110101".into()), ..camera(2) }, "220822000000");
    let outside = item(camera(3), "220821000000");
    let missing = v1::UpdateCameraRequest { allow_missing: false, ..item(camera(4), "220822000000") };
    let requests = vec![good.clone(), bad, outside, missing, good.clone(), item(camera(5), "220822000000")];
    let parent = "divisions/220822000000";
    let request = v1::BatchWriteCamerasRequest { parent: parent.into(), requests };
    let written = s.cameras.batch_write_cameras(partner(request)).await.unwrap().into_inner();
    let outcomes: Vec<&str> = written.results.iter().map(|r| &r.outcome().as_str_name()[20..]).collect();
    assert_eq!(outcomes, vec!["CREATED", "REFUSED", "REFUSED", "REFUSED", "UNCHANGED", "CREATED"]);
    let problem = |n: usize| written.results[n].problem.clone().unwrap_or_default();
    assert_eq!(problem(1).fields[0].field, "camera.division");
    assert_eq!((problem(2).code, problem(3).code), (Code::InvalidArgument as i32, Code::NotFound as i32));
    assert!(written.results[0].etag == written.results[4].etag && !written.results[0].etag.is_empty());

    let many = v1::BatchWriteCamerasRequest { parent: parent.into(), requests: vec![good; 501] };
    assert_eq!(
        violations(&s.cameras.batch_write_cameras(partner(many)).await.unwrap_err()),
        vec!["requests"]
    );
}

#[tokio::test]
async fn a_deleted_record_leaves_lists_and_stays_readable() {
    let s = Setting::new().await;
    let made = s.file("1").await;
    let delete = |etag: &str| v1::DeleteCaseRequest {
        name: made.name.clone(),
        etag: etag.into(),
        ..Default::default()
    };
    assert_eq!(s.cases.delete_case(partner(delete("0"))).await.unwrap_err().code(), Code::Aborted);
    for _ in 0..2 {
        assert!(s.cases.delete_case(partner(delete(""))).await.unwrap().get_ref().deleted());
    }
    let list = |show_deleted| v1::ListCasesRequest {
        parent: "divisions/220822000000".into(),
        show_deleted,
        ..Default::default()
    };
    for (show_deleted, count) in [(false, 0), (true, 1)] {
        let listed = s.cases.list_cases(partner(list(show_deleted))).await.unwrap();
        assert_eq!(listed.get_ref().cases.len(), count);
    }
    let got = s.cases.get_case(partner(v1::GetCaseRequest { name: made.name.clone() })).await.unwrap();
    assert!(got.get_ref().deleted());
    let missing =
        v1::DeleteCaseRequest { name: format!("divisions/{HOME}/cases/none"), ..Default::default() };
    assert_names(s.cases.delete_case(partner(missing)).await, &format!("divisions/{HOME}/cases/none"));
}

/// Wants a record not to be found, by its name.
fn assert_names(refused: Result<impl Sized, Status>, name: &str) {
    let refused = refused.err().expect("refused");
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    assert!(refused.message().contains(name), "{}", refused.message());
    assert_eq!(refused.get_error_details().error_info().unwrap().metadata["name"], name);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let s = Setting::new().await;
    let name = || format!("divisions/{HOME}/cases/none");
    let case = v1::Case { name: name(), title: Some("x".into()), ..Default::default() };
    let update = v1::UpdateCaseRequest { case: Some(case), ..Default::default() };
    assert_names(s.cases.update_case(partner(update.clone())).await, &name());
    for desk in [false, true] {
        let accept = v1::AcceptCaseRequest { name: name(), ..Default::default() };
        let accept = if desk { super::grants::desk(accept) } else { partner(accept) };
        assert_names(s.cases.accept_case(accept).await, &name());
    }
    let press = v1::SuperviseCaseRequest { name: name(), level: 2, ..Default::default() };
    assert_names(s.cases.supervise_case(partner(press)).await, &name());
    let records = crate::service::records::Records::new(s.node.engine.clone(), crate::service::Links::new());
    let moving = v1::MoveCaseRequest { name: name(), r#move: v1::Move::Accept.into(), ..Default::default() };
    assert_names(RecordService::move_case(&records, partner(moving)).await, &name());
    let parent = format!("divisions/{HOME}");
    let batch = v1::BatchWriteCasesRequest { parent, requests: vec![update] };
    let results = s.cases.batch_write_cases(partner(batch)).await.unwrap().into_inner().results;
    assert!(results[0].problem.as_ref().unwrap().message.contains(&name()), "{results:?}");
}

#[tokio::test]
async fn a_batch_may_write_what_was_handed_to_the_scope_and_nothing_else_from_outside() {
    let s = Setting::new().await;
    let other = "220822102000";
    for id in ["handed", "kept"] {
        s.file(id).await;
        let accept =
            v1::AcceptCaseRequest { name: format!("divisions/{HOME}/cases/{id}"), ..Default::default() };
        s.cases.accept_case(desk(accept)).await.unwrap();
    }
    let transfer = v1::TransferCaseRequest {
        name: format!("divisions/{HOME}/cases/handed"),
        to_division: other.into(),
        ..Default::default()
    };
    s.cases.transfer_case(desk(transfer)).await.unwrap();
    grant(&s.node, other, &["case"], v1::GrantLevel::Write, false).await;
    let note = |id: &str| v1::CaseNote { id: id.into(), text: "x".into(), ..Default::default() };
    let item = |home: &str, id: &str, notes: Vec<v1::CaseNote>| v1::UpdateCaseRequest {
        case: Some(v1::Case {
            name: format!("divisions/{home}/cases/{id}"),
            involved_count: Some(3),
            notes,
            ..Default::default()
        }),
        allow_missing: true,
        ..Default::default()
    };
    // Kept ones, missing ones and personal fields of them are refused alike, beside what may be written.
    let requests = vec![
        item(HOME, "kept", vec![]),
        item(other, "own", vec![]),
        item(HOME, "handed", vec![note("n")]),
        item(HOME, "missing", vec![]),
        item(HOME, "handed", vec![]),
    ];
    let batch = v1::BatchWriteCasesRequest { parent: "divisions/220822000000".into(), requests };
    let results = s.cases.batch_write_cases(partner(batch)).await.unwrap().into_inner().results;
    let denied = |n: usize| results[n].problem.as_ref().map(|p| (p.code, p.message.clone()));
    let codes: Vec<Option<i32>> = (0..5).map(|n| denied(n).map(|p| p.0)).collect();
    let refused = Some(Code::PermissionDenied as i32);
    assert_eq!(codes, vec![refused, None, refused, refused, None], "{results:?}");
    assert_eq!(denied(0), denied(3), "whether a record exists is not told");
    assert!(denied(2).unwrap().1.contains("personal data"));
    assert_eq!(s.node.shown(&super::case(&s.node, HOME, "handed")).await.involved_count, Some(3));
    assert_eq!(s.node.shown(&super::case(&s.node, HOME, "kept")).await.involved_count, None);
}

#[tokio::test]
async fn what_cannot_be_a_new_case_is_named() {
    let s = Setting::new().await;
    let named = async |request: v1::CreateCaseRequest| {
        violations(&s.cases.create_case(partner(request)).await.unwrap_err())
    };
    assert_eq!(named(v1::CreateCaseRequest { case: None, ..filing("", "") }).await, ["case"]);
    assert_eq!(named(filing("a b", "")).await, ["case_id"]);
    let mut half = filing("", "");
    half.case.as_mut().unwrap().external_refs[0].system.clear();
    assert_eq!(named(half).await, ["case.external_refs"]);
    let mut nameless = filing("", "");
    nameless.case.as_mut().unwrap().notes = vec![v1::CaseNote { text: "甲".into(), ..Default::default() }];
    assert_eq!(named(nameless).await, ["case.notes"]);
}
