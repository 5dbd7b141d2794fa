//! The one place where errors become gRPC statuses, with `google.rpc` details that say what is wrong, where, and what to
//! do. No personal data goes into any of them.

use std::collections::HashMap;
use std::time::Duration;

use guantong_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::engine::EngineError;
use crate::ingest::local::WriteError;
use crate::record::{FieldNumber, NameError};
use crate::schema::{Kind, KindId, Schema};
use crate::store::StoreError;

/// `google.rpc.ErrorInfo.domain` of all our errors.
const DOMAIN: &str = "guantong";

fn with_reason(code: Code, message: String, reason: &str, metadata: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

fn plain(code: Code, message: String, reason: &str) -> Status {
    with_reason(code, message, reason, HashMap::new())
}

/// A request that is wrong in one field.
pub fn invalid(field: &str, message: impl Into<String>) -> Status {
    invalid_fields([(field.to_owned(), message.into())])
}

/// A request that is wrong in some fields.
pub fn invalid_fields(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let violations: Vec<(String, String)> = violations.into_iter().collect();
    let message = violations.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ");
    let violations =
        violations.into_iter().map(|(field, text)| FieldViolation::new(field, text)).collect::<Vec<_>>();
    let mut details = ErrorDetails::with_bad_request(violations);
    details.set_error_info("INVALID", DOMAIN, HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The caller may not do this.
pub fn not_allowed(message: impl Into<String>) -> Status {
    plain(Code::PermissionDenied, message.into(), "NOT_ALLOWED")
}

/// There is no such thing here.
pub fn not_found(name: &str) -> Status {
    let message = format!("there is no {name} here");
    with_reason(Code::NotFound, message, "NOT_FOUND", HashMap::from([("name".to_owned(), name.to_owned())]))
}

/// The caller's copy is out of date.
pub fn stale(message: impl Into<String>) -> Status {
    plain(Code::Aborted, message.into(), "STALE")
}

/// Not as things are; `reason` tells programs why.
pub fn not_now(message: impl Into<String>, reason: &str) -> Status {
    plain(Code::FailedPrecondition, message.into(), reason)
}

/// Too much at once.
pub fn busy(message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(retry_after));
    details.set_error_info("BUSY", DOMAIN, HashMap::new());
    Status::with_error_details(Code::ResourceExhausted, message.into(), details)
}

/// A second node with the identity of one that is linked.
pub fn duplicate_identity() -> Status {
    let message = "another node with this identity is linked; if this node was copied, stop one of the two and give it \
                   its own certificate (另一个相同身份的节点已在线)";
    let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(30)));
    details.set_error_info("DUPLICATE_IDENTITY", DOMAIN, HashMap::new());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// Something stored cannot be read.
pub fn broken(message: &str) -> Status {
    plain(Code::DataLoss, format!("a stored record cannot be read: {message}"), "BROKEN_RECORD")
}

/// A name that cannot be one.
pub fn bad_name(field: &str, error: &NameError) -> Status {
    invalid(field, error.to_string())
}

/// A status as the problem of one item of a batch.
pub(super) fn problem(status: &Status) -> v1::WriteProblem {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    v1::WriteProblem {
        code: status.code().into(),
        reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
        message: status.message().to_owned(),
        fields: fields
            .into_iter()
            .map(|v| v1::FieldProblem { field: v.field, description: v.description })
            .collect(),
    }
}

/// What the store could not do.
pub fn of_store(error: &StoreError) -> Status {
    if matches!(error, StoreError::Full) {
        return plain(Code::ResourceExhausted, error.to_string(), "STORE_FULL");
    }
    if matches!(error, StoreError::Stale) {
        return stale("others keep changing the same records; try again");
    }
    let reason = if matches!(error, StoreError::Unreachable(_)) { "STORE_UNREACHABLE" } else { "STORE" };
    plain(Code::Unavailable, error.to_string(), reason)
}

/// What the engine did not do that concerns no record.
pub fn unfinished(error: &EngineError) -> Status {
    match error {
        EngineError::Store(error) => of_store(error),
        EngineError::Refused(error) => plain(Code::FailedPrecondition, error.to_string(), "NOT_NOW"),
        EngineError::RequestReused => invalid("request_id", error.to_string()),
        EngineError::SubscriptionExists => plain(Code::AlreadyExists, error.to_string(), "EXISTS"),
        EngineError::TooManySubscriptions => {
            plain(Code::ResourceExhausted, error.to_string(), "TOO_MANY_SUBSCRIPTIONS")
        }
        EngineError::Stopped => plain(Code::Unavailable, error.to_string(), "STOPPING"),
        EngineError::Overloaded => busy(error.to_string(), Duration::from_secs(5)),
    }
}

/// What the engine did not do. `kind` gives fields their names.
pub fn of_engine(schema: &Schema, kind: KindId, error: &EngineError) -> Status {
    match error {
        EngineError::Refused(error) => of_write(schema, kind, error),
        other => unfinished(other),
    }
}

/// A field in the caller's words: `camera.device_id`.
pub(super) fn path(kind: &Kind, field: FieldNumber) -> String {
    let name = kind.field(field).map_or_else(|| field.to_string(), |f| f.name.to_owned());
    format!("{}.{name}", kind.rule.name)
}

fn of_write(schema: &Schema, kind: KindId, error: &WriteError) -> Status {
    let name = |field: FieldNumber| path(schema.kind(kind), field);
    let message = error.to_string();
    match error {
        WriteError::OutOfScope { .. } | WriteError::NotActing(_) | WriteError::NotAllowed { .. } => {
            plain(Code::PermissionDenied, message, "NOT_ALLOWED")
        }
        WriteError::UnknownField(field) | WriteError::Malformed(field) | WriteError::TooLarge(field) => {
            invalid(&name(*field), message)
        }
        WriteError::Stale => stale(message),
        WriteError::Exists => plain(Code::AlreadyExists, message, "EXISTS"),
        WriteError::NotFound => plain(Code::NotFound, message, "NOT_FOUND"),
        WriteError::Sealed(_) | WriteError::Purged(_) | WriteError::TooManyValues(_) => {
            plain(Code::FailedPrecondition, message, "NOT_NOW")
        }
        WriteError::Invalid(violations) => {
            invalid_fields(violations.iter().map(|v| (name(v.field()), v.detail().to_owned())))
        }
        WriteError::Move(refused) => {
            let legal: Vec<&str> = refused.legal.iter().map(|m| m.as_str_name()).collect();
            let metadata = HashMap::from([("legal_moves".to_owned(), legal.join(","))]);
            with_reason(Code::FailedPrecondition, message, "ILLEGAL_MOVE", metadata)
        }
        WriteError::NoWriter => plain(Code::Internal, message, "INTERNAL"),
    }
}
