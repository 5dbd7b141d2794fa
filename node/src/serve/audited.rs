//! Notes in the audit log who called what: calls that change something, and calls that were not allowed. It looks at no
//! message, and never holds one up.

use std::pin::Pin;
use std::task::{Context, Poll};

use guantong_gateway::audit::Event;
use guantong_gateway::engine::Engine;
use guantong_gateway::service::{Caller, Who};
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// The contract's services.
const OURS: &str = "/guantong.v1.";
/// Methods that change nothing begin with one of these. What a subscriber acknowledges is noted as delivered.
const READING: [&str; 9] =
    ["Get", "List", "Query", "Stream", "Export", "Diff", "Read", "Watch", "AcknowledgeChanges"];
/// Codes of gRPC, by number.
const CODES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// Puts the noting around services. Their requests carry who calls.
#[derive(Clone)]
pub(super) struct Audited(pub(super) Engine);

impl<S> Layer<S> for Audited {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting { engine: self.0.clone(), inner }
    }
}

/// Services whose calls are noted.
#[derive(Clone)]
pub(super) struct Noting<S> {
    engine: Engine,
    inner: S,
}

impl<S, I, O> Service<Request<I>> for Noting<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
    O: 'static,
{
    type Response = Response<O>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<O>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        let noted = caller.zip(method(request.uri().path())).map(|(caller, method)| {
            let is_node = matches!(caller.who, Who::Node(_));
            (caller.account(), method.replace('/', "."), is_node || is_reading(method))
        });
        let engine = self.engine.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if let Some((by, command, is_reading)) = noted {
                let outcome = outcome(&response);
                // What was not done says so before anything else; what fails later was begun.
                if !is_reading || outcome == "permission_denied" {
                    engine.audit(Event::Command { command, by, outcome });
                }
            }
            Ok(response)
        })
    }
}

/// `Service/Method` of a path of ours.
fn method(path: &str) -> Option<&str> {
    path.strip_prefix(OURS)
}

fn is_reading(method: &str) -> bool {
    let name = method.split_once('/').map_or(method, |(_, name)| name);
    READING.iter().any(|verb| name.starts_with(verb))
}

fn outcome<O>(response: &Response<O>) -> &'static str {
    let code =
        response.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<usize>().ok());
    CODES.get(code.unwrap_or(0)).copied().unwrap_or("unknown")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Whoever adds a method must say here whether it changes something, or its name does.
    #[test]
    fn what_changes_something_is_told_from_what_reads() {
        for reads in ["NodeService/GetStatus", "SubscriptionService/ReadChanges", "ReportService/DiffReport"]
        {
            assert!(is_reading(reads), "{reads}");
        }
        for changes in ["GrantService/UpdateGrant", "RecordService/ImportRecords", "CaseService/RefuseCase"] {
            assert!(!is_reading(changes), "{changes}");
        }
        assert_eq!(method("/guantong.v1.NodeService/GetStatus"), Some("NodeService/GetStatus"));
        assert_eq!(method("/grpc.health.v1.Health/Check"), None);
    }

    #[test]
    fn a_refusal_is_told_by_its_code() {
        let response = |code: &str| Response::builder().header("grpc-status", code).body(()).unwrap();
        assert_eq!(outcome(&response("7")), "permission_denied");
        assert_eq!(outcome(&response("99")), "unknown");
        assert_eq!(outcome(&Response::new(())), "ok");
    }
}
