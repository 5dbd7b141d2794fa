//! What a node answered when it did not do something, in plain words. The one place where a `tonic::Status` becomes
//! text.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The status as an error to print.
pub(crate) fn plain(status: Status) -> anyhow::Error {
    anyhow::anyhow!(words(&status))
}

fn words(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = match status.code() {
        // Not said by the node: the line broke, or the other side is no node.
        Code::Unknown | Code::Cancelled => {
            format!("the connection to the node was lost ({}) (与节点的连接中断)", status.message())
        }
        Code::Unavailable if details.error_info().is_none() => {
            format!("the node cannot be reached ({}) (无法连接节点)", status.message())
        }
        Code::Unimplemented => format!(
            "the node does not know this call; is it older than this program? ({}) (节点版本过旧)",
            status.message()
        ),
        Code::Internal if status.message().is_empty() => {
            "the node failed; its log says why (节点内部错误)".to_owned()
        }
        _ => status.message().to_owned(),
    };
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    for violation in violations {
        // One violation is often the whole message.
        if violations.len() > 1 || !text.contains(&violation.description) {
            text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
        } else if !text.starts_with(&violation.field) {
            text = format!("{}: {text}", violation.field);
        }
    }
    if status.code() == Code::Aborted {
        text.push_str("\n  read it again and repeat (请重新读取后再试)");
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        text.push_str(&format!("\n  try again in {} s (请稍后重试)", delay.as_secs().max(1)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn violations_are_named_once() {
        let details = ErrorDetails::with_bad_request_violation("due_on", "not a date");
        let one = words(&Status::with_error_details(Code::InvalidArgument, "not a date", details));
        assert_eq!(one, "due_on: not a date");
        let both =
            vec![FieldViolation::new("due_on", "not a date"), FieldViolation::new("title", "too long")];
        let details = ErrorDetails::with_bad_request(both);
        let two = words(&Status::with_error_details(Code::InvalidArgument, "not a date; too long", details));
        assert_eq!(two, "not a date; too long\n  due_on: not a date\n  title: too long");
    }

    #[test]
    fn a_broken_line_and_a_busy_node_are_told_apart() {
        assert!(words(&Status::unknown("transport error")).contains("connection"));
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
        let busy = words(&Status::with_error_details(Code::ResourceExhausted, "overloaded", details));
        assert!(busy.starts_with("overloaded") && busy.contains("in 5 s"), "{busy}");
    }
}
