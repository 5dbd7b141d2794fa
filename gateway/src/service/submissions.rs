//! `SubmissionService`: who has declared which period complete, and who has not. A submission is a record like any
//! other; here it is written with who declares and when, and read beside what is linked.

use guantong_proto::rules::fields::submission as f;
use guantong_proto::v1;
use guantong_proto::v1::submission_service_server::SubmissionService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::caller::{Caller, Who};
use super::{caller, page, status, trace, view};
use crate::completeness::{Completeness, State};
use crate::division::Division;
use crate::engine::{Engine, Shared, Write, WriteAction};
use crate::ingest::local::LocalWrite;
use crate::period::Period;
use crate::record::{RecordName, codec};

const KIND: &str = "submission";

pub(super) struct Submissions {
    engine: Engine,
}

/// The fields of a record as they are shown, as a message of its kind; `None`: there is no such record, or it is
/// deleted.
pub(super) async fn shown<M: Message + Default>(
    shared: &Shared,
    name: &RecordName,
) -> Result<Option<M>, Status> {
    let found = shared.store.get(name).await.map_err(|e| status::of_store(&e))?;
    let Some(loaded) = found else { return Ok(None) };
    let record = codec::decode(loaded.state).map_err(|e| status::broken(&e.to_string()))?;
    if view::is_deleted(shared.schema.kind(name.kind), name, &record) {
        return Ok(None);
    }
    let fields = view::record(&shared.schema, name, &record, |_| true).fields;
    M::decode(fields).map(Some).map_err(|e| status::broken(&e.to_string()))
}

/// Where a division and those directly below it stand with a period: the division first.
pub(super) async fn statuses(
    shared: &Shared,
    division: Division,
    period: &Period,
    as_of_ms: u64,
) -> Result<Vec<v1::SubmissionStatus>, Status> {
    let divisions = shared.divisions();
    let completeness = shared.completeness(division, as_of_ms);
    let below = divisions.children(division).into_iter().map(|(child, _)| child);
    let mut statuses = Vec::new();
    for one in std::iter::once(division).chain(below.filter(|child| *child == child.home())) {
        let name = name_of(shared, one, &period.to_string())?;
        let declaration = shown::<v1::Submission>(shared, &name).await?.and_then(|s| s.declaration);
        statuses.push(v1::SubmissionStatus {
            division: one.to_string(),
            display_name: divisions.name(one).unwrap_or_default().to_owned(),
            readiness: readiness(&completeness, one, declaration.as_ref()).into(),
            change_time: declaration.as_ref().and_then(|d| d.submit_time),
            submitted_by: declaration.map(|d| d.submitted_by).unwrap_or_default(),
            complete_through_time: (!never_linked(&completeness, one))
                .then(|| shared.completeness(one, as_of_ms).through_ms)
                .flatten()
                .map(view::timestamp),
        });
    }
    Ok(statuses)
}

fn readiness(
    completeness: &Completeness,
    division: Division,
    declaration: Option<&v1::Declaration>,
) -> v1::Readiness {
    match declaration.map(v1::Declaration::state) {
        Some(v1::SubmissionState::Submitted) => v1::Readiness::Submitted,
        Some(v1::SubmissionState::Withdrawn) => v1::Readiness::Withdrawn,
        _ if never_linked(completeness, division) => v1::Readiness::NotLinked,
        _ => v1::Readiness::NotSubmitted,
    }
}

fn never_linked(completeness: &Completeness, division: Division) -> bool {
    completeness.incomplete.iter().any(|i| i.division == division && i.state == State::NotLinked)
}

fn name_of(shared: &Shared, division: Division, period: &str) -> Result<RecordName, Status> {
    let kind = shared.schema.kind_named(KIND).ok_or_else(|| status::not_found(KIND))?;
    RecordName::new(division, kind.id, period).map_err(|e| status::bad_name("name", &e))
}

/// Who declares: the account of a certificate; on the node's own machine the unit that is named, or the division's.
pub(super) fn account(shared: &Shared, caller: &Caller, named: &str) -> String {
    match (&caller.who, named.trim()) {
        (Who::Operator(name), _) => name.clone(),
        (_, "") => shared.divisions().full_name(shared.own()),
        (_, named) => named.to_owned(),
    }
}

impl Submissions {
    pub(super) fn new(engine: Engine) -> Submissions {
        Submissions { engine }
    }

    /// The record that is meant, if this node may declare for its division.
    fn name(&self, name: &str) -> Result<RecordName, Status> {
        let shared = self.engine.shared();
        let parsed = self.engine.name(name).map_err(|e| status::bad_name("name", &e))?;
        if shared.schema.kind(parsed.kind).rule.name != KIND {
            return Err(status::invalid("name", "name: write divisions/{division}/submissions/{period}"));
        }
        if !shared.topology().acts_for(parsed.home) {
            let home = parsed.home;
            return Err(status::not_allowed(format!(
                "divisions/{home} declares for itself, at its own node; this node is that of {} \
                 (该区划应在其自己的节点报送)",
                shared.own()
            )));
        }
        Ok(parsed)
    }

    async fn declare(
        &self,
        name: RecordName,
        declaration: v1::Declaration,
        traceparent: Option<std::sync::Arc<str>>,
    ) -> Result<v1::Submission, Status> {
        let shared = self.engine.shared();
        let before: Option<v1::Submission> = shown(shared, &name).await?;
        let stands = before.as_ref().and_then(|s| s.declaration.as_ref()).map(v1::Declaration::state);
        let asked = declaration.state();
        if let Some(before) = before.filter(|_| stands == Some(asked)) {
            // Said once is enough: who said it first, and when, stays.
            return Ok(named(shared, &name, before));
        }
        if asked == v1::SubmissionState::Withdrawn && stands.is_none() {
            return Err(status::not_found(&name.display(&shared.schema).to_string()));
        }
        let value = |message: v1::Submission| message.encode_to_vec().into();
        let period = v1::Submission { period: Some(name.id.to_string()), ..Default::default() };
        let declared = v1::Submission { declaration: Some(declaration), ..Default::default() };
        let fields = vec![(f::PERIOD, value(period)), (f::DECLARATION, value(declared))];
        let write = LocalWrite { acting: Some(name.home), ..LocalWrite::of(fields) };
        let action = WriteAction::Fields(write);
        let write = Write { name: name.clone(), action, request: None, traceparent };
        self.engine.write(write).await.map_err(|e| status::of_record(&shared.schema, &name, &e))?;
        let after = shown(shared, &name).await?.unwrap_or_default();
        Ok(named(shared, &name, after))
    }

    fn declaration(&self, caller: &Caller, by: &str, state: v1::SubmissionState) -> v1::Declaration {
        let shared = self.engine.shared();
        v1::Declaration {
            state: state.into(),
            submitted_by: account(shared, caller, by),
            submit_time: Some(view::timestamp((shared.environment.now_ms)())),
        }
    }
}

fn named(shared: &Shared, name: &RecordName, submission: v1::Submission) -> v1::Submission {
    v1::Submission { name: name.display(&shared.schema).to_string(), ..submission }
}

#[tonic::async_trait]
impl SubmissionService for Submissions {
    async fn submit_period(
        &self,
        request: Request<v1::SubmitPeriodRequest>,
    ) -> Result<Response<v1::Submission>, Status> {
        let caller = caller::operator(request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let name = self.name(&request.get_ref().name)?;
        let submitted = v1::SubmissionState::Submitted;
        let declaration = self.declaration(caller, &request.get_ref().submitted_by, submitted);
        Ok(Response::new(self.declare(name, declaration, traceparent).await?))
    }

    async fn withdraw_submission(
        &self,
        request: Request<v1::WithdrawSubmissionRequest>,
    ) -> Result<Response<v1::Submission>, Status> {
        let caller = caller::operator(request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let name = self.name(&request.get_ref().name)?;
        let withdrawn = v1::SubmissionState::Withdrawn;
        let declaration = self.declaration(caller, &request.get_ref().submitted_by, withdrawn);
        Ok(Response::new(self.declare(name, declaration, traceparent).await?))
    }

    async fn list_submission_statuses(
        &self,
        request: Request<v1::ListSubmissionStatusesRequest>,
    ) -> Result<Response<v1::ListSubmissionStatusesResponse>, Status> {
        let shared = self.engine.shared();
        let grant = caller::granted(shared, request.extensions())?;
        let division = page::parent("parent", &request.get_ref().parent)?;
        if !grant.may_aggregate(division) || division != division.home() {
            let text = format!("parent: {division} lies outside {}, or is a village", grant.scope);
            return Err(status::not_allowed(text));
        }
        let period = period("period", &request.get_ref().period)?;
        let as_of_ms = (shared.environment.now_ms)();
        let statuses = statuses(shared, division, &period, as_of_ms).await?;
        Ok(Response::new(v1::ListSubmissionStatusesResponse { statuses }))
    }
}

/// The period of a request.
pub(super) fn period(field: &str, text: &str) -> Result<Period, Status> {
    text.parse().map_err(|e| status::invalid(field, format!("{field}: {e}")))
}
