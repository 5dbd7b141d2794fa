//! Submissions, thresholds and reports on real engines: who may declare what, which figures turn red, and what a report
//! says of data that came late.

use guantong_proto::v1::node_service_server::NodeService;
use guantong_proto::v1::report_service_server::ReportService;
use guantong_proto::v1::submission_service_server::SubmissionService;
use tonic::{Code, Status};

use super::grants::{from, grant, partner};
use super::*;
use crate::period::{Day, Month, Period};
use crate::record::raw;
use crate::service::node;
use crate::service::reports::Reports;
use crate::service::submissions::Submissions;
use crate::service::{NodeInfo, Who};

async fn put<M: Message>(node: &Node, name: &str, message: &M) -> Result<(), EngineError> {
    let name = node.engine.name(name).unwrap();
    let fields = raw::split(&Bytes::from(message.encode_to_vec())).unwrap();
    let write = LocalWrite { authority: Authority::Ledger, ..LocalWrite::of(fields) };
    node.write(&name, write).await
}

/// The month that is over, and the one that runs.
fn months() -> (Month, Month) {
    let running = Day::of_ms((environment().now_ms)()).month();
    (running.plus(-1).unwrap(), running)
}

fn date(day: Day) -> Option<v1::Date> {
    let month = day.month();
    Some(v1::Date { year: month.year(), month: month.of_year() as i32, day: day.of_month() as i32 })
}

/// Cases of a month: received on its first day, so many of them settled on its last.
async fn cases(node: &Node, home: &str, month: Month, ids: std::ops::Range<usize>, settled: usize) {
    for id in ids.clone() {
        let done = id - ids.start < settled;
        let state = if done { v1::CaseState::Verified } else { v1::CaseState::Accepted };
        let case = v1::Case {
            case_kind: Some(v1::CaseKind::Dispute.into()),
            category: Some("land".into()),
            received_on: date(month.first()),
            lifecycle: Some(v1::Lifecycle { state: state.into(), holder: home.into(), ..Default::default() }),
            outcome: done.then(|| v1::Outcome {
                succeeded: Some(true),
                concluded_on: date(month.last()),
                ..Default::default()
            }),
            ..Default::default()
        };
        put(node, &format!("divisions/{home}/cases/{month}-{id}"), &case).await.unwrap();
    }
}

async fn submit(node: &Node, who: Who, division: &str, period: &str) -> Result<v1::Submission, Status> {
    let name = format!("divisions/{division}/submissions/{period}");
    let request = v1::SubmitPeriodRequest { name, submitted_by: String::new() };
    let service = Submissions::new(node.engine.clone());
    Ok(service.submit_period(from(who, request)).await?.into_inner())
}

async fn statuses(node: &Node, division: &str, period: &str) -> Vec<v1::SubmissionStatus> {
    let parent = format!("divisions/{division}");
    let request = v1::ListSubmissionStatusesRequest { parent, period: period.into() };
    let service = Submissions::new(node.engine.clone());
    service.list_submission_statuses(from(Who::Local, request)).await.unwrap().into_inner().statuses
}

async fn issue(node: &Node, division: &str, period: &str) -> Result<v1::Report, Status> {
    let request = v1::IssueReportRequest { parent: format!("divisions/{division}"), period: period.into() };
    let service = Reports::new(node.engine.clone());
    Ok(service.issue_report(from(Who::Operator("li.wei".into()), request)).await?.into_inner())
}

async fn diff(node: &Node, name: &str) -> v1::DiffReportResponse {
    let request = v1::DiffReportRequest { name: name.into() };
    Reports::new(node.engine.clone()).diff_report(from(Who::Local, request)).await.unwrap().into_inner()
}

fn of<'s>(statuses: &'s [v1::SubmissionStatus], division: &str) -> &'s v1::SubmissionStatus {
    statuses.iter().find(|status| status.division == division).unwrap()
}

#[tokio::test]
async fn a_division_declares_at_its_own_node_and_everyone_above_sees_by_whom() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    let (over, running) = months();
    let (over, running) = (over.to_string(), running.to_string());
    let at = |status: &v1::SubmissionStatus| (status.readiness(), status.submitted_by.clone());
    until(async || {
        of(&statuses(&county, "220822", &over).await, "220822101000").readiness()
            == v1::Readiness::NotSubmitted
    })
    .await;
    let other = statuses(&county, "220822", &over).await;
    assert_eq!(of(&other, "220822102000").readiness(), v1::Readiness::NotLinked, "never had a node");

    let operator = || Who::Operator("zhang.san".into());
    let submitted = submit(&township, operator(), "220822101000", &over).await.unwrap();
    assert_eq!(submitted.declaration.unwrap().submitted_by, "zhang.san");
    let known = || async { at(of(&statuses(&county, "220822", &over).await, "220822101000")) };
    until(async || known().await == (v1::Readiness::Submitted, "zhang.san".into())).await;
    let again = submit(&township, Who::Operator("someone".into()), "220822101000", &over).await.unwrap();
    assert_eq!(again.declaration.unwrap().submitted_by, "zhang.san", "once is enough");

    let refused = submit(&county, operator(), "220822101000", &over).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "it declares for itself");
    let refused = submit(&township, operator(), "220822101000", &running).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("ends with"), "{}", refused.message());
    submit(&county, operator(), "220822102000", &over).await.unwrap();
    let acted = statuses(&county, "220822", &over).await;
    assert_eq!(of(&acted, "220822102000").readiness(), v1::Readiness::Submitted, "by the county's node");

    let name = format!("divisions/220822101000/submissions/{over}");
    let request = v1::WithdrawSubmissionRequest { name, submitted_by: String::new() };
    let service = Submissions::new(township.engine.clone());
    service.withdraw_submission(from(operator(), request)).await.unwrap();
    until(async || known().await.0 == v1::Readiness::Withdrawn).await;
}

async fn threshold(node: &Node, home: &str, measure: &str, red: i64) -> Result<(), EngineError> {
    let bounds = v1::ThresholdBounds {
        direction: v1::ThresholdDirection::HigherIsBetter.into(),
        red_millionths: Some(red),
        ..Default::default()
    };
    let threshold =
        v1::Threshold { measure: Some(measure.into()), bounds: Some(bounds), ..Default::default() };
    put(node, &format!("divisions/{home}/thresholds/{measure}"), &threshold).await
}

pub(super) fn info() -> NodeInfo {
    NodeInfo {
        software_version: "test".into(),
        started_ms: 0,
        certificate_expire_ms: std::sync::Arc::new(|| None),
        refused_connections: std::sync::Arc::new(Vec::new),
        parent_line: Default::default(),
        bundles: None,
        warnings: std::sync::Arc::new(Vec::new),
    }
}

async fn warnings(of: &Node) -> Vec<String> {
    let service = node::Node::new(of.engine.clone(), of.links.clone(), info());
    service.get_status(from(Who::Local, v1::GetStatusRequest {})).await.unwrap().into_inner().warnings
}

#[tokio::test]
async fn a_threshold_goes_down_and_warns_where_it_is_crossed() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let _line = link(&township, &county).await;
    let (_, running) = months();
    // Today, so that the running month has them whatever day it is.
    cases(&township, "220822101000", running, 0..10, 0).await;
    assert!(warnings(&township).await.is_empty());
    threshold(&county, "220822000000", "cases_received", 11_000_000).await.unwrap();
    until(async || !warnings(&township).await.is_empty()).await;
    let text = warnings(&township).await.join("\n");
    for part in ["red: 220822101000 cases_received 10 is below 11", "红预警", "通榆县设定"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let refused = threshold(&township, "220822000000", "cases_received", 1).await;
    assert!(matches!(refused, Err(EngineError::Refused(WriteError::NotAllowed { .. }))), "{refused:?}");
    // The nearer one counts.
    threshold(&township, "220822101000", "cases_received", 10_000_000).await.unwrap();
    assert!(warnings(&township).await.is_empty());
    let removed = v1::Threshold { deleted: Some(true), ..Default::default() };
    put(&township, "divisions/220822101000/thresholds/cases_received", &removed).await.unwrap();
    assert_eq!(warnings(&township).await.len(), 1, "that of the county again");
}

#[tokio::test]
async fn a_report_stays_as_it_was_and_names_what_late_data_has_restated() {
    let county = Node::new("220822", None).await;
    let (over, _) = months();
    let period = over.to_string();
    cases(&county, "220822101000", over, 0..8, 6).await;
    cases(&county, "220822102000", over, 8..10, 0).await;
    threshold(&county, "220822000000", "success_rate", 1_000_001).await.unwrap();
    let report = issue(&county, "220822000000", &period).await.unwrap();
    assert_eq!(report.name, format!("divisions/220822000000/reports/{period}-1"));
    assert_eq!((report.issued_by.as_str(), report.period_closed), ("li.wei", true));
    let value = |measure: &str| {
        let figure = report.figures.iter().find(|figure| figure.measure == measure).unwrap();
        figure.value.map(|value| (value.numerator, value.denominator))
    };
    assert_eq!(value("cases_received"), Some((10, None)));
    assert_eq!(value("success_rate"), Some((6, Some(6))));
    assert_eq!(report.rankings[0].divisions[0].display_name, "瞻榆镇", "the most cases first");
    assert_eq!(report.breakdowns[0].rows[0].label, "土地");
    assert_eq!(report.trends[0].points.len(), 13);
    let warning = &report.warnings[0];
    assert_eq!((warning.measure.as_str(), warning.color()), ("success_rate", v1::Color::Red));
    let before = diff(&county, &report.name).await;
    assert!(before.restatements.is_empty() && before.compared_count > 30, "{before:?}");

    cases(&county, "220822101000", over, 20..21, 0).await;
    let after = diff(&county, &report.name).await;
    let told: Vec<(&str, &str, i64, i64)> = after
        .restatements
        .iter()
        .filter(|r| r.measure == "cases_received")
        .map(|r| (&*r.division, &*r.label, r.before.unwrap().numerator, r.after.unwrap().numerator))
        .collect();
    let county_code = "220822000000";
    assert_eq!(
        told,
        [
            (county_code, "事件登记数", 10, 11),
            ("220822101000", "事件登记数", 8, 9),
            (county_code, "事件登记数（土地）", 10, 11)
        ]
    );
    let service = Reports::new(county.engine.clone());
    let get = v1::GetReportRequest { name: report.name.clone() };
    let kept = service.get_report(from(Who::Local, get)).await.unwrap().into_inner();
    assert_eq!(kept, report, "what was issued stays");
    let next = issue(&county, "220822000000", &period).await.unwrap();
    assert!(next.name.ends_with("-2"));
    let list = v1::ListReportsRequest { parent: "divisions/220822".into(), ..Default::default() };
    let listed = service.list_reports(from(Who::Local, list)).await.unwrap().into_inner().reports;
    let names: Vec<&str> = listed.iter().map(|report| report.name.as_str()).collect();
    assert!(names.contains(&&*report.name) && names.contains(&&*next.name) && names.len() == 2);
}

#[tokio::test]
async fn a_report_that_cannot_be_is_refused_and_a_partner_sees_its_own_scope() {
    let county = Node::new("220822", None).await;
    let (over, running) = months();
    for (division, period, why) in [
        ("220881", "2026-10", "lies outside"),
        ("220822101001", "2026-10", "village"),
        ("220822", "2026-13", "is not a period"),
        ("220822", "2026-01-01..", "has no end"),
        ("220822", "2199-01", "has not begun"),
    ] {
        let refused = issue(&county, division, period).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(why), "{division} {period}: {}", refused.message());
    }
    let open = issue(&county, "220822", &running.to_string()).await.unwrap();
    assert!(!open.period_closed);
    let of_township = issue(&county, "220822101", &Period::month(over).to_string()).await.unwrap();
    grant(&county, "220822101000", &[], v1::GrantLevel::Aggregates, false).await;
    let service = Reports::new(county.engine.clone());
    let get = |name: &str| v1::GetReportRequest { name: name.into() };
    assert!(service.get_report(partner(get(&of_township.name))).await.is_ok());
    let refused = service.get_report(partner(get(&open.name))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let list = v1::ListReportsRequest { parent: "divisions/220822".into(), ..Default::default() };
    let listed = service.list_reports(partner(list)).await.unwrap().into_inner().reports;
    assert_eq!(listed.len(), 1, "what it may not see is absent");
    let issued = v1::IssueReportRequest { parent: "divisions/220822101".into(), period: over.to_string() };
    assert_eq!(service.issue_report(partner(issued)).await.unwrap_err().code(), Code::PermissionDenied);
    for wrong in ["divisions/220822/reports/x", "reports/1", "divisions/220822/reports/2026-10-x"] {
        assert_eq!(
            service.get_report(from(Who::Local, get(wrong))).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
