//! `ReportService`: reports are compiled from figures once, kept, and given out again as they were. Nothing is ever
//! worked out anew for a report that was issued; what holds now is only put beside it.

use guantong_proto::v1;
use guantong_proto::v1::report_service_server::ReportService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::sight::Sight;
use super::submissions::{account, period};
use super::{caller, page, status, view};
use crate::division::Division;
use crate::engine::{Engine, EngineError, Shared};
use crate::ingest::changes::{ReportKey, ReportRow};
use crate::period::{Day, Period};
use crate::store::{ReportHead, StoreError};

mod compile;
mod restated;

/// Tries to find a number that nobody has taken meanwhile.
const TRIES_MAX: usize = 4;

pub(super) struct Reports {
    engine: Engine,
}

/// The resource name of a report.
fn name(key: &ReportKey) -> String {
    format!("divisions/{}/reports/{}-{}", key.division, key.period, key.issue)
}

/// The report that a name means.
fn parse(name: &str) -> Result<ReportKey, Status> {
    let form = || status::invalid("name", "name: write divisions/{division}/reports/{period}-{issue}");
    let rest = name.strip_prefix("divisions/").ok_or_else(form)?;
    let (division, id) = rest.split_once("/reports/").ok_or_else(form)?;
    let division = Division::parse(division).map_err(|_| form())?;
    let (of, issue) = id.rsplit_once('-').ok_or_else(form)?;
    let of: Period = of.parse().map_err(|_| form())?;
    Ok(ReportKey { division, period: of.to_string(), issue: issue.parse().map_err(|_| form())? })
}

impl Reports {
    pub(super) fn new(engine: Engine) -> Reports {
        Reports { engine }
    }

    /// A report that was issued.
    async fn issued(&self, key: &ReportKey) -> Result<v1::Report, Status> {
        let found = self.engine.shared().store.report(key).await.map_err(|e| status::of_store(&e))?;
        let content = found.ok_or_else(|| status::not_found(&name(key)))?;
        v1::Report::decode(content).map_err(|e| status::broken(&e.to_string()))
    }

    /// The report that a caller names, if it may see the division's figures.
    async fn seen(&self, extensions: &tonic::Extensions, name: &str) -> Result<v1::Report, Status> {
        let grant = caller::granted(self.engine.shared(), extensions)?;
        let key = parse(name)?;
        if !grant.may_aggregate(key.division) {
            return Err(status::not_allowed(format!("{} lies outside {}", key.division, grant.scope)));
        }
        self.issued(&key).await
    }

    /// Keeps a report under the next number of its division and period.
    async fn keep(&self, division: Division, of: &Period, report: v1::Report) -> Result<v1::Report, Status> {
        let shared = self.engine.shared();
        let issued_ms = (shared.environment.now_ms)();
        let text = of.to_string();
        for _ in 0..TRIES_MAX {
            let issues =
                shared.store.report_issues(division, &text).await.map_err(|e| status::of_store(&e))?;
            let key = ReportKey { division, period: text.clone(), issue: issues.saturating_add(1) };
            let issue_time = Some(view::timestamp(issued_ms));
            let report = v1::Report { name: name(&key), issue_time, ..report.clone() };
            let content = report.encode_to_vec().into();
            let issued_by = report.issued_by.clone();
            let row = ReportRow { key, issued_ms, issued_by, as_of_ms: ms(report.as_of_time), content };
            match self.engine.keep_report(row).await {
                Ok(()) => return Ok(report),
                // Another gateway of this store has taken the number.
                Err(EngineError::Store(error)) if matches!(*error, StoreError::Stale) => {}
                Err(error) => return Err(status::unfinished(&error)),
            }
        }
        Err(status::stale("other reports of this period are being issued; try again"))
    }
}

fn ms(time: Option<prost_types::Timestamp>) -> u64 {
    time.map_or(0, |time| time.seconds.max(0) as u64 * 1_000 + time.nanos.max(0) as u64 / 1_000_000)
}

/// A division that a report can be of.
fn reported(shared: &Shared, parent: &str) -> Result<Division, Status> {
    let (division, own) = (page::parent("parent", parent)?, shared.own());
    if !own.contains(division) {
        let text = format!("parent: {division} lies outside {own}; ask a node above it (不在本节点辖区内)");
        return Err(status::invalid("parent", text));
    }
    if division != division.home() {
        let text =
            format!("parent: {division} is a village; reports are of townships and above (不支持村级)");
        return Err(status::invalid("parent", text));
    }
    if division != own && !shared.divisions().known(division) {
        let text = format!("parent: {division} is not in the table of divisions (区划代码不存在)");
        return Err(status::invalid("parent", text));
    }
    Ok(division)
}

/// A period that has begun and will end.
fn begun(shared: &Shared, text: &str) -> Result<Period, Status> {
    let of = period("period", text)?;
    if of.last() == Day::LAST {
        let text = format!("period: {of} has no end; say up to when, such as 2026-10 (报告期没有结束日)");
        return Err(status::invalid("period", text));
    }
    if of.first() > Day::of_ms((shared.environment.now_ms)()) {
        return Err(status::invalid("period", format!("period: {of} has not begun (报告期尚未开始)")));
    }
    Ok(of)
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn issue_report(
        &self,
        request: Request<v1::IssueReportRequest>,
    ) -> Result<Response<v1::Report>, Status> {
        let caller = caller::operator(request.extensions())?;
        let shared = self.engine.shared();
        let division = reported(shared, &request.get_ref().parent)?;
        let of = begun(shared, &request.get_ref().period)?;
        let report = compile::report(shared, division, &of).await?;
        let report = v1::Report { issued_by: account(shared, caller, ""), ..report };
        Ok(Response::new(self.keep(division, &of, report).await?))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::Report>, Status> {
        Ok(Response::new(self.seen(request.extensions(), &request.get_ref().name).await?))
    }

    async fn list_reports(
        &self,
        request: Request<v1::ListReportsRequest>,
    ) -> Result<Response<v1::ListReportsResponse>, Status> {
        let shared = self.engine.shared();
        let sight = Sight::of(shared, request.extensions())?;
        let request = request.get_ref();
        let parent = sight.part_of("parent", page::parent("parent", &request.parent)?)?;
        let of = match request.period.as_str() {
            "" => String::new(),
            text => period("period", text)?.to_string(),
        };
        let size = page::size(request.page_size)?;
        let query = format!("reports {parent} {of}");
        let after = page::after(&query, &request.page_token)?.map(|last| head(&last)).transpose()?;
        let listed = shared.store.reports(parent, &of, after.as_ref(), size).await;
        let listed = listed.map_err(|e| status::of_store(&e))?;
        let last = listed.last().filter(|_| listed.len() == size);
        let next_page_token = last.map(|last| page::token(&query, &place(last))).unwrap_or_default();
        let divisions = shared.divisions();
        let report = |head: &ReportHead| v1::Report {
            name: name(&head.key),
            division: head.key.division.to_string(),
            display_name: divisions.full_name(head.key.division),
            period: head.key.period.clone(),
            period_label: head.key.period.parse::<Period>().map(|p| p.label()).unwrap_or_default(),
            issue_time: Some(view::timestamp(head.issued_ms)),
            issued_by: head.issued_by.clone(),
            as_of_time: Some(view::timestamp(head.as_of_ms)),
            ..Default::default()
        };
        let reports = listed.iter().map(report).collect();
        Ok(Response::new(v1::ListReportsResponse { reports, next_page_token }))
    }

    async fn diff_report(
        &self,
        request: Request<v1::DiffReportRequest>,
    ) -> Result<Response<v1::DiffReportResponse>, Status> {
        let before = self.seen(request.extensions(), &request.get_ref().name).await?;
        let shared = self.engine.shared();
        let key = parse(&before.name)?;
        let of = period("period", &key.period)?;
        let after = compile::report(shared, key.division, &of).await?;
        Ok(Response::new(restated::compare(&before, &after)))
    }
}

/// Where a page ends.
fn place(head: &ReportHead) -> String {
    format!("{} {} {} {}", head.issued_ms, head.key.division, head.key.period, head.key.issue)
}

/// Where a page begins.
fn head(place: &str) -> Result<ReportHead, Status> {
    let wrong = || status::invalid("page_token", "page_token: take it from an answer");
    let [issued_ms, division, of, issue] = place.split(' ').collect::<Vec<_>>()[..] else {
        return Err(wrong());
    };
    let division = Division::parse(division).map_err(|_| wrong())?;
    let issue = issue.parse().map_err(|_| wrong())?;
    let key = ReportKey { division, period: of.to_owned(), issue };
    let issued_ms = issued_ms.parse().map_err(|_| wrong())?;
    Ok(ReportHead { key, issued_ms, issued_by: String::new(), as_of_ms: 0 })
}
