//! The one place where errors become gRPC statuses, with `google.rpc` details that say what is wrong, where, and what to
//! do. No personal data goes into any of them.

use std::collections::HashMap;
use std::time::Duration;

use guantong_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::asking::AboutError;
use super::enrolment::RegistrarError;
use crate::engine::EngineError;
use crate::grant::Rate;
use crate::ingest::checks::Violation;
use crate::ingest::local::WriteError;
use crate::ingest::mandate::NotGranted;
use crate::record::{FieldNumber, NameError, RecordName};
use crate::schema::{Kind, KindId, Schema};
use crate::store::StoreError;

/// `google.rpc.ErrorInfo.domain` of all our errors.
const DOMAIN: &str = "guantong";

/// Statuses travel as headers, where Chinese triples its length, and clients refuse more than 8 KiB of them: they would
/// see an error of their own instead of ours. So many bytes of the message, of all violations, and of one of them.
const MESSAGE_BYTES_MAX: usize = 1_000;
const VIOLATIONS_BYTES_MAX: usize = 1_500;
const VIOLATION_BYTES_MAX: usize = 600;

/// The text, cut at a character where it is too long.
fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate((0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push('…');
    }
    text
}

fn made(code: Code, message: String, details: ErrorDetails) -> Status {
    Status::with_error_details(code, shortened(message, MESSAGE_BYTES_MAX), details)
}

fn with_reason(code: Code, message: String, reason: &str, metadata: HashMap<String, String>) -> Status {
    made(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

fn plain(code: Code, message: String, reason: &str) -> Status {
    with_reason(code, message, reason, HashMap::new())
}

/// A request that is wrong in one field.
pub fn invalid(field: &str, message: impl Into<String>) -> Status {
    invalid_fields([(field.to_owned(), message.into())])
}

/// A request that is wrong in some fields. Where they are very many, the first ones are named.
pub fn invalid_fields(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let (mut bytes, mut unnamed, mut named) = (0, 0_usize, Vec::new());
    for (field, text) in violations {
        let text = shortened(text, VIOLATION_BYTES_MAX);
        bytes += field.len() + text.len();
        if named.is_empty() || bytes <= VIOLATIONS_BYTES_MAX {
            named.push(FieldViolation::new(field, text));
        } else {
            unnamed += 1;
        }
    }
    let mut message = named.iter().map(|v| v.description.as_str()).collect::<Vec<_>>().join("; ");
    if unnamed > 0 {
        let more = format!("; and {unnamed} more (另有{unnamed}处)");
        message = shortened(message, MESSAGE_BYTES_MAX - more.len() - '…'.len_utf8()) + &more;
    }
    let mut details = ErrorDetails::with_bad_request(named);
    details.set_error_info("INVALID", DOMAIN, HashMap::new());
    made(Code::InvalidArgument, message, details)
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

/// The same, with what programs need to know.
pub fn not_now_with(message: impl Into<String>, reason: &str, metadata: HashMap<String, String>) -> Status {
    with_reason(Code::FailedPrecondition, message.into(), reason, metadata)
}

/// Too much at once.
pub fn busy(message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(retry_after));
    details.set_error_info("BUSY", DOMAIN, HashMap::new());
    made(Code::ResourceExhausted, message.into(), details)
}

/// More often than a grant allows.
pub(super) fn too_often(rate: Rate, retry_after: Duration) -> Status {
    let message = format!(
        "the grant allows {rate} requests, counted over all connections of this partner; wait before the next one, or ask the \
         node's operator for a higher rate (调用频率超出授权，请稍后再试)"
    );
    let mut details = ErrorDetails::with_retry_info(Some(retry_after));
    details.set_error_info("RATE_EXCEEDED", DOMAIN, HashMap::from([("rate".to_owned(), rate.to_string())]));
    made(Code::ResourceExhausted, message, details)
}

/// A second node with the identity of one that is linked.
pub fn duplicate_identity() -> Status {
    let message = "another node with this identity is linked; if this node was copied, stop one of the two and give it \
                   its own certificate (另一个相同身份的节点已在线)";
    let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(30)));
    details.set_error_info("DUPLICATE_IDENTITY", DOMAIN, HashMap::new());
    made(Code::FailedPrecondition, message.to_owned(), details)
}

/// Something stored cannot be read.
pub fn broken(message: &str) -> Status {
    plain(Code::DataLoss, format!("a stored record cannot be read: {message}"), "BROKEN_RECORD")
}

/// A name that cannot be one.
pub fn bad_name(field: &str, error: &NameError) -> Status {
    invalid(field, error.to_string())
}

/// Why, for programs.
pub(super) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.to_lowercase()).unwrap_or_default()
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
    if matches!(error, StoreError::Full | StoreError::NoRoom { .. }) {
        return plain(Code::ResourceExhausted, error.to_string(), "STORE_FULL");
    }
    if matches!(error, StoreError::CopyRuns) {
        return plain(Code::FailedPrecondition, error.to_string(), "BACKUP_RUNS");
    }
    if matches!(error, StoreError::Damaged(_)) {
        return plain(Code::DataLoss, error.to_string(), "STORE_DAMAGED");
    }
    if error.is_stale() {
        return stale("others keep changing the same records; try again");
    }
    let reason = if matches!(error, StoreError::Unreachable(_)) { "STORE_UNREACHABLE" } else { "STORE" };
    plain(Code::Unavailable, error.to_string(), reason)
}

/// Why a node cannot say something about a record.
pub(super) fn of_about(error: &AboutError) -> Status {
    match error {
        AboutError::Store(error) => of_store(error),
        AboutError::Record(error) => broken(&error.to_string()),
        AboutError::NotConcerned => not_allowed(error.to_string()),
    }
}

/// A store that others back up.
pub(super) fn not_copied_here() -> Status {
    let message = "this node keeps its records in PostgreSQL: back it up with pg_dump or pg_basebackup, and put it back with \
                   pg_restore; the node notices (数据存储在 PostgreSQL 中，请用其自身工具备份)";
    plain(Code::FailedPrecondition, message.into(), "NOT_A_FILE")
}

/// What the node's authority did not do.
pub(super) fn of_registrar(error: &RegistrarError) -> Status {
    let message = error.to_string();
    match error {
        RegistrarError::NoAuthority => plain(Code::FailedPrecondition, message, "NO_AUTHORITY"),
        RegistrarError::Unacceptable(_) => plain(Code::InvalidArgument, message, "INVALID"),
        RegistrarError::Revoked => plain(Code::PermissionDenied, message, "REVOKED"),
        RegistrarError::Failed(_) => plain(Code::Unavailable, message, "AUTHORITY"),
    }
}

/// What the engine did not do that concerns no record.
pub fn unfinished(error: &EngineError) -> Status {
    match error {
        EngineError::Store(error) => of_store(error),
        EngineError::Refused(error) => plain(Code::FailedPrecondition, error.to_string(), "NOT_NOW"),
        EngineError::RequestReused => invalid("request_id", error.to_string()),
        EngineError::SubscriptionExists => plain(Code::AlreadyExists, error.to_string(), "EXISTS"),
        EngineError::TooManySubscriptions(_) => {
            plain(Code::ResourceExhausted, error.to_string(), "TOO_MANY_SUBSCRIPTIONS")
        }
        EngineError::ClockBehind { .. } => plain(Code::FailedPrecondition, error.to_string(), "CLOCK_BEHIND"),
        EngineError::Elsewhere => plain(Code::Unavailable, error.to_string(), "ELSEWHERE"),
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

/// What the engine did not do with a record.
pub fn of_record(schema: &Schema, name: &RecordName, error: &EngineError) -> Status {
    match error {
        EngineError::Refused(WriteError::NotFound) => not_found(&name.display(schema).to_string()),
        other => of_engine(schema, name.kind, other),
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
        WriteError::NotGranted(NotGranted::Unit { division, unit, .. }) => {
            let metadata = [("division", division.to_string()), ("unit", unit.to_string())];
            let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
            with_reason(Code::PermissionDenied, message, "UNIT_NOT_GRANTED", metadata)
        }
        WriteError::NotGranted(NotGranted::Scope { .. }) => {
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
            let path = |v: &Violation| format!("{}{}", name(v.field()), v.part());
            invalid_fields(violations.iter().map(|v| (path(v), v.detail().to_owned())))
        }
        WriteError::Move(refused) => {
            let legal: Vec<&str> = refused.legal.iter().map(|m| m.as_str_name()).collect();
            let metadata = HashMap::from([("legal_moves".to_owned(), legal.join(","))]);
            with_reason(Code::FailedPrecondition, message, "ILLEGAL_MOVE", metadata)
        }
        WriteError::NoWriter => plain(Code::Internal, message, "INTERNAL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it travels: text in percent-encoding, details in base64.
    fn header_bytes(status: &Status) -> usize {
        let encoded = |byte: u8| if (b' '..=b'~').contains(&byte) && byte != b'%' { 1 } else { 3 };
        let message: usize = status.message().bytes().map(encoded).sum();
        message + status.details().len().div_ceil(3) * 4
    }

    #[test]
    fn however_much_is_wrong_clients_can_read_it() {
        let many = |n: usize| (0..n).map(|n| (format!("query.measures[{n}]"), "指标不存在".repeat(20)));
        for status in [
            invalid_fields(many(500)),
            invalid_fields([("name".to_owned(), "名".repeat(50_000))]),
            not_allowed("名".repeat(50_000)),
        ] {
            assert!(header_bytes(&status) < 8 * 1024, "{} bytes", header_bytes(&status));
            assert!(status.message().chars().any(|c| c == '…'));
        }
        let named =
            |status: &Status| status.get_error_details().bad_request().map(|bad| bad.field_violations.len());
        assert_eq!(named(&invalid_fields(many(2))), Some(2));
        let status = invalid_fields(many(500));
        let rest = 500 - named(&status).unwrap_or_default();
        assert!(status.message().ends_with(&format!("; and {rest} more (另有{rest}处)")), "{status:?}");
    }
}
