//! What partners may do with cases: in the name of the units that they were granted, and with what they filed themselves.

use guantong_proto::v1;
use guantong_proto::v1::case_service_server::CaseService;
use guantong_proto::v1::conflict_service_server::ConflictService;
use guantong_proto::v1::record_service_server::RecordService;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::grants::{desk, grant_units, partner};
use super::partners::{HOME, Setting, filing, violations};
use crate::service::conflicts::Conflicts;
use crate::service::records::Records;

const COUNTY: &str = "220822000000";

fn name(id: &str) -> String {
    format!("divisions/{HOME}/cases/{id}")
}

fn accept(id: &str, to_unit: &str) -> v1::AcceptCaseRequest {
    v1::AcceptCaseRequest { name: name(id), to_unit: to_unit.into(), ..Default::default() }
}

fn cancel(id: &str) -> v1::CancelCaseRequest {
    v1::CancelCaseRequest { name: name(id), reason: "重复工单".into(), ..Default::default() }
}

fn conclude(id: &str) -> v1::ConcludeCaseRequest {
    let outcome = Some(v1::Outcome { succeeded: Some(true), ..Default::default() });
    v1::ConcludeCaseRequest { name: name(id), outcome, ..Default::default() }
}

fn reply(id: &str) -> v1::ReplyCaseRequest {
    let reply = Some(v1::Reply { text: "已处理".into(), ..Default::default() });
    v1::ReplyCaseRequest { name: name(id), reply, ..Default::default() }
}

fn press(id: &str) -> v1::SuperviseCaseRequest {
    let level = v1::SupervisionLevel::Yellow.into();
    v1::SuperviseCaseRequest { name: name(id), level, ..Default::default() }
}

fn update(id: &str, case: v1::Case) -> v1::UpdateCaseRequest {
    v1::UpdateCaseRequest { case: Some(v1::Case { name: name(id), ..case }), ..Default::default() }
}

fn delete(id: &str) -> v1::DeleteCaseRequest {
    v1::DeleteCaseRequest { name: name(id), ..Default::default() }
}

fn stands(state: v1::CaseState, unit: &str) -> v1::Case {
    let lifecycle =
        v1::Lifecycle { state: state.into(), holder: HOME.into(), unit: unit.into(), ..Default::default() };
    v1::Case { lifecycle: Some(lifecycle), ..Default::default() }
}

/// The unit that a refusal says is missing.
fn missing(refused: Result<impl Sized, Status>) -> String {
    let refused = refused.err().expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.reason, "UNIT_NOT_GRANTED", "{refused:?}");
    let unit = info.metadata["unit"].clone();
    assert!(refused.message().contains(&format!("--unit {unit}")), "{}", refused.message());
    unit
}

#[tokio::test]
async fn without_units_a_partner_files_and_changes_cases_and_handles_none() {
    let s = Setting::new().await;
    s.file("1").await;
    let titled = v1::Case { title: Some("夜间噪声".into()), ..Default::default() };
    s.cases.update_case(partner(update("1", titled.clone()))).await.unwrap();
    assert_eq!(missing(s.cases.accept_case(partner(accept("1", ""))).await), "division");
    assert_eq!(missing(s.cases.reply_case(partner(reply("1"))).await), "division");
    assert_eq!(missing(s.cases.supervise_case(partner(press("1"))).await), "division");

    s.cases.accept_case(desk(accept("1", "housing"))).await.unwrap();
    assert_eq!(missing(s.cases.conclude_case(partner(conclude("1"))).await), "housing");
    assert_eq!(missing(s.cases.cancel_case(partner(cancel("1"))).await), "housing", "it was moved");
    assert_eq!(missing(s.cases.delete_case(partner(delete("1"))).await), "housing");
    // Nor by writing the fields that moves write.
    let done = stands(v1::CaseState::Concluded, "housing");
    assert_eq!(missing(s.cases.update_case(partner(update("1", done.clone()))).await), "housing");
    let records = Records::new(s.node.engine.clone(), crate::service::Links::new());
    let record = v1::Record { name: name("1"), fields: done.encode_to_vec().into(), ..Default::default() };
    let write = v1::WriteRecordRequest { record: Some(record), ..Default::default() };
    assert_eq!(missing(records.write_record(partner(write)).await), "housing");
    let moving = v1::MoveCaseRequest {
        name: name("1"),
        r#move: v1::Move::Cancel.into(),
        reason: "x".into(),
        ..Default::default()
    };
    assert_eq!(missing(records.move_case(partner(moving)).await), "housing");
    let outcome = v1::Outcome { succeeded: Some(true), ..Default::default() };
    let outcome = v1::Case { outcome: Some(outcome), ..Default::default() };
    assert_eq!(missing(s.cases.update_case(partner(update("1", outcome))).await), "housing");
    // What is not the holder's may still be written, beside what is unchanged.
    let same = s.cases.get_case(partner(v1::GetCaseRequest { name: name("1") })).await.unwrap().into_inner();
    let same = v1::Case { lifecycle: same.lifecycle, ..titled };
    s.cases.update_case(partner(update("1", same))).await.unwrap();
}

#[tokio::test]
async fn whoever_filed_a_case_takes_it_back_until_somebody_moves_it() {
    let s = Setting::new().await;
    for id in ["1", "2", "3"] {
        s.file(id).await;
    }
    s.cases.create_case(desk(filing("other", ""))).await.unwrap();
    let cancelled = s.cases.cancel_case(partner(cancel("1"))).await.unwrap().into_inner();
    assert_eq!(cancelled.lifecycle.unwrap().state(), v1::CaseState::Cancelled);
    assert!(s.cases.delete_case(partner(delete("2"))).await.unwrap().get_ref().deleted());
    let back = v1::Case { deleted: Some(false), ..Default::default() };
    assert!(!s.cases.update_case(partner(update("2", back))).await.unwrap().get_ref().deleted());
    assert_eq!(missing(s.cases.cancel_case(partner(cancel("other"))).await), "division", "another filed it");
    assert_eq!(missing(s.cases.delete_case(partner(delete("other"))).await), "division");
    // Handed on and reported there: it is out of the reporter's hands.
    let up = v1::EscalateCaseRequest { name: name("3"), ..Default::default() };
    s.cases.accept_case(desk(accept("3", ""))).await.unwrap();
    s.cases.escalate_case(desk(up)).await.unwrap();
    assert_eq!(missing(s.cases.cancel_case(partner(cancel("3"))).await), "division");
}

#[tokio::test]
async fn a_partner_handles_the_cases_of_its_units() {
    let s = Setting::new().await;
    for id in ["1", "2"] {
        s.file(id).await;
    }
    grant_units(&s.node, COUNTY, &["court", "police"]).await;
    assert_eq!(missing(s.cases.accept_case(partner(accept("1", "court"))).await), "division");
    s.cases.accept_case(desk(accept("1", "court"))).await.unwrap();
    s.cases.accept_case(desk(accept("2", "labour"))).await.unwrap();
    assert_eq!(missing(s.cases.conclude_case(partner(conclude("2"))).await), "labour");
    assert_eq!(missing(s.cases.supervise_case(partner(press("1"))).await), "division");
    s.cases.reply_case(partner(reply("1"))).await.unwrap();
    let over = v1::TransferCaseRequest { name: name("1"), to_unit: "police".into(), ..Default::default() };
    s.cases.transfer_case(partner(over)).await.unwrap();
    s.cases.conclude_case(partner(conclude("1"))).await.unwrap();

    // A hand-over is answered by the unit that it waits for.
    let to_division = "220822102000".to_owned();
    let over = |to_unit: &str| v1::TransferCaseRequest {
        name: name("2"),
        to_division: to_division.clone(),
        to_unit: to_unit.into(),
        ..Default::default()
    };
    s.cases.transfer_case(desk(over("court"))).await.unwrap();
    let taken = s.cases.accept_case(partner(accept("2", ""))).await.unwrap().into_inner().lifecycle.unwrap();
    assert_eq!((taken.holder.as_str(), taken.unit.as_str()), ("220822102000", "court"));
}

#[tokio::test]
async fn a_platform_that_acts_for_every_unit_does_what_the_desk_does_inside_its_scope() {
    let s = Setting::new().await;
    s.file("1").await;
    grant_units(&s.node, COUNTY, &["*"]).await;
    s.cases.accept_case(partner(accept("1", "housing"))).await.unwrap();
    let pressed = s.cases.supervise_case(partner(press("1"))).await.unwrap().into_inner();
    assert_eq!(pressed.supervision.unwrap().by, COUNTY);
    s.cases.reply_case(partner(reply("1"))).await.unwrap();
    s.cases.update_case(partner(update("1", stands(v1::CaseState::Concluded, "housing")))).await.unwrap();
    let verify = v1::VerifyCaseRequest { name: name("1"), ..Default::default() };
    s.cases.verify_case(partner(verify)).await.unwrap();
    let seal = v1::UpdateCaseRequest {
        acting_division: COUNTY.into(),
        ..update("1", v1::Case { sealed: Some(true), ..Default::default() })
    };
    s.cases.update_case(partner(seal)).await.unwrap();

    // The county itself lies outside a township's scope, whatever the units.
    grant_units(&s.node, HOME, &["*"]).await;
    s.cases.create_case(desk(filing("2", ""))).await.unwrap();
    let refused = s.cases.supervise_case(partner(press("2"))).await.unwrap_err();
    let words = "lies outside 220822101000, the scope of your grant";
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains(words), "{refused:?}");
    s.cases.accept_case(partner(accept("2", ""))).await.unwrap();
    let up = v1::EscalateCaseRequest { name: name("2"), ..Default::default() };
    s.cases.escalate_case(partner(up)).await.unwrap();
    let refused = s.cases.accept_case(partner(accept("2", ""))).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains(words), "{refused:?}");
    s.cases.accept_case(desk(accept("2", ""))).await.unwrap();
}

#[tokio::test]
async fn a_conflict_of_what_is_the_holders_is_settled_by_whoever_acts_for_it() {
    use crate::ingest::local::{Basis, LocalWrite};
    let s = Setting::new().await;
    s.file("1").await;
    s.cases.accept_case(desk(accept("1", "court"))).await.unwrap();
    // Two answers side by side.
    for (purpose, text) in [("a", "甲"), ("b", "乙")] {
        let reply = Some(v1::Reply { text: text.into(), ..Default::default() });
        let fields = v1::Case { reply, ..Default::default() }.encode_to_vec();
        let write = LocalWrite {
            basis: Basis::Own,
            purpose: purpose.into(),
            ..LocalWrite::of(crate::record::raw::split(&fields.into()).unwrap())
        };
        s.node.write(&super::case(&s.node, HOME, "1"), write).await.unwrap();
    }
    let conflicts = Conflicts::new(s.node.engine.clone());
    let settle = v1::ResolveConflictRequest {
        name: format!("{}/conflicts/reply", name("1")),
        keep: 1,
        ..Default::default()
    };
    assert_eq!(missing(conflicts.resolve_conflict(partner(settle.clone())).await), "court");
    grant_units(&s.node, COUNTY, &["court"]).await;
    conflicts.resolve_conflict(partner(settle)).await.unwrap();
}

#[tokio::test]
async fn a_new_case_begins_with_its_report() {
    let s = Setting::new().await;
    grant_units(&s.node, COUNTY, &["*"]).await;
    let create = |id: &str, lifecycle: v1::Case, case: v1::Case| {
        let asked = filing(id, "");
        let given = asked.case.clone().unwrap();
        let case =
            v1::Case { lifecycle: lifecycle.lifecycle, outcome: case.outcome, reply: case.reply, ..given };
        v1::CreateCaseRequest { case: Some(case), ..asked }
    };
    let nothing = v1::Case::default;
    for state in [v1::CaseState::Accepted, v1::CaseState::Verified, v1::CaseState::Pending] {
        let request = create("1", stands(state, "court"), nothing());
        for refused in [
            s.cases.create_case(partner(request.clone())).await.unwrap_err(),
            s.cases.create_case(desk(request)).await.unwrap_err(),
        ] {
            assert_eq!(violations(&refused), vec!["case.lifecycle"], "{refused:?}");
        }
    }
    let refused =
        s.cases.create_case(desk(create("1", stands(v1::CaseState::Accepted, ""), nothing()))).await;
    let refused = refused.unwrap_err();
    for words in ["CASE_STATE_REPORTED", "220822101000 or 220822000000", "guantong import", "台账"] {
        assert!(refused.message().contains(words), "{words}: {}", refused.message());
    }
    // Addressed to a unit, or to the division above, it may be.
    let police = create("1", stands(v1::CaseState::Reported, "police"), nothing());
    let made = s.cases.create_case(partner(police)).await.unwrap().into_inner();
    assert_eq!((made.lifecycle.unwrap().unit.as_str(), made.steps.len()), ("police", 1));
    let mut up = stands(v1::CaseState::Reported, "");
    up.lifecycle.as_mut().unwrap().holder = COUNTY.into();
    s.cases.create_case(partner(create("2", up.clone(), nothing()))).await.unwrap();
    s.cases.accept_case(desk(accept("2", ""))).await.unwrap();
    // What its holder says of it is for the holder to say.
    let answered =
        v1::Case { reply: Some(v1::Reply { text: "已处理".into(), ..Default::default() }), ..nothing() };
    let refused = s.cases.create_case(partner(create("3", up, answered))).await.unwrap_err();
    assert_eq!(violations(&refused), vec!["case.reply"]);

    // A record that was never registered is no way around.
    let records = Records::new(s.node.engine.clone(), crate::service::Links::new());
    let write = |case: v1::Case| {
        let record =
            v1::Record { name: name("4"), fields: case.encode_to_vec().into(), ..Default::default() };
        desk(v1::WriteRecordRequest { record: Some(record), ..Default::default() })
    };
    let titled = v1::Case { title: Some("补录".into()), ..nothing() };
    records.write_record(write(titled)).await.unwrap();
    let refused = records.write_record(write(stands(v1::CaseState::Verified, ""))).await.unwrap_err();
    assert_eq!(violations(&refused), vec!["case.lifecycle"]);
    records.write_record(write(stands(v1::CaseState::Reported, ""))).await.unwrap();
}
