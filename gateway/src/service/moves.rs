//! The moves of cases as methods: each request becomes the one move that the engine knows. Supervision and replies are
//! fields that a method writes whole.

use bytes::Bytes;
use guantong_proto::rules::fields::case as f;
use guantong_proto::v1;
use prost::Message;
use tonic::{Request, Response, Status};

use super::resources::Resources;
use super::{status, view, writes};
use crate::casework::is_reason;
use crate::engine::WriteAction;
use crate::ingest::local::{Existence, LocalWrite};
use crate::record::FieldNumber;

/// What the requests of moves say.
#[derive(Default)]
pub(super) struct Said {
    action: v1::Move,
    name: String,
    etag: String,
    request_id: String,
    acting_division: String,
    to_division: String,
    to_unit: String,
    reason: String,
    outcome: Option<v1::Outcome>,
}

/// A request for a move.
pub(super) trait CaseMove: Message + Clone {
    /// What it says.
    fn said(&self) -> Said;
}

macro_rules! case_move {
    ($message:ident, $action:ident: $($field:ident),+) => {
        impl CaseMove for v1::$message {
            fn said(&self) -> Said {
                let request = self.clone();
                Said {
                    action: v1::Move::$action,
                    name: request.name,
                    etag: request.etag,
                    request_id: request.request_id,
                    acting_division: request.acting_division,
                    $($field: request.$field,)+
                    ..Said::default()
                }
            }
        }
    };
}

case_move!(AcceptCaseRequest, Accept: to_unit);
case_move!(EscalateCaseRequest, Escalate: to_division, to_unit, reason);
case_move!(AssignCaseRequest, Assign: to_division, to_unit, reason);
case_move!(TransferCaseRequest, Transfer: to_division, to_unit, reason);
case_move!(ConcludeCaseRequest, Conclude: outcome, reason);
case_move!(VerifyCaseRequest, Verify: reason);
case_move!(SendBackCaseRequest, SendBack: reason);
case_move!(ReturnCaseRequest, Return: reason);
case_move!(RefuseCaseRequest, Refuse: reason);
case_move!(FileCaseRequest, File: reason);
case_move!(CancelCaseRequest, Cancel: reason);

/// Makes a move, and shows the case after it.
pub(super) async fn make<R: CaseMove>(
    cases: &Resources<v1::Case>,
    request: Request<R>,
) -> Result<Response<v1::Case>, Status> {
    let call = cases.call(request)?;
    let said = call.request.said();
    let name = cases.name("name", &said.name)?;
    let action = WriteAction::Move {
        action: said.action,
        acting: writes::acting(&said.acting_division)?,
        to_division: writes::optional_division("to_division", &said.to_division)?,
        to_unit: said.to_unit,
        reason: said.reason,
        outcome: said.outcome,
        basis: writes::basis(&said.etag, &Bytes::new())?,
        purpose: call.sight.purpose(),
        mandate: call.sight.mandate(),
    };
    Ok(Response::new(cases.write(&call, name, action, &said.request_id).await?))
}

/// One field of a case.
fn field(number: FieldNumber, case: v1::Case) -> (FieldNumber, Bytes) {
    (number, case.encode_to_vec().into())
}

/// A division above the holder presses for a case.
pub(super) async fn supervise(
    cases: &Resources<v1::Case>,
    request: Request<v1::SuperviseCaseRequest>,
) -> Result<Response<v1::Case>, Status> {
    let call = cases.call(request)?;
    let request = &call.request;
    let name = cases.name("name", &request.name)?;
    let shared = cases.engine().shared();
    let known =
        |n| v1::SupervisionLevel::try_from(n).ok().filter(|_| n != 0).map(|value| value.as_str_name());
    writes::value_of("level", request.level, known)?;
    if !is_reason(&request.reason) {
        return Err(status::invalid("reason", "reason: at most 256 bytes, without control characters"));
    }
    let by = writes::acting(&request.acting_division)?.unwrap_or(shared.own());
    let supervision = v1::Supervision {
        level: request.level,
        by: by.to_string(),
        at: Some(view::timestamp((shared.environment.now_ms)())),
        reason: request.reason.clone(),
    };
    let case = v1::Case { supervision: Some(supervision), ..v1::Case::default() };
    let write = LocalWrite {
        acting: Some(by),
        basis: writes::basis(&request.etag, &Bytes::new())?,
        existence: Existence::Known,
        ..call.sight.local_write(vec![field(f::SUPERVISION, case)])
    };
    Ok(Response::new(cases.write(&call, name, WriteAction::Fields(write), &request.request_id).await?))
}

/// The holder answers whoever reported a case.
pub(super) async fn reply(
    cases: &Resources<v1::Case>,
    request: Request<v1::ReplyCaseRequest>,
) -> Result<Response<v1::Case>, Status> {
    let call = cases.call(request)?;
    let request = &call.request;
    let name = cases.name("name", &request.name)?;
    let reply = request.reply.clone().filter(|reply| !reply.text.trim().is_empty());
    if reply.is_none() {
        return Err(status::invalid("reply.text", "reply.text: the answer is empty (答复内容不能为空)"));
    }
    let case = v1::Case { reply, ..v1::Case::default() };
    let write = LocalWrite {
        acting: writes::acting(&request.acting_division)?,
        basis: writes::basis(&request.etag, &Bytes::new())?,
        existence: Existence::Known,
        ..call.sight.local_write(vec![field(f::REPLY, case)])
    };
    Ok(Response::new(cases.write(&call, name, WriteAction::Fields(write), &request.request_id).await?))
}
