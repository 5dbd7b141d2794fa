//! Logs to standard error and, where a collector is configured, traces over OTLP. Trace contexts follow W3C: a
//! caller's `traceparent` becomes the parent of its request's span.
//!
//! Personal data must never come here: spans carry names of methods, divisions and counts, nothing of what a request
//! or a record says.

use std::io::IsTerminal as _;
use std::time::Duration;

use guantong_gateway::step;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::codegen::http::{HeaderMap, Request};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, FilterFn, ParseError};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Config, LogFormat};

/// How long the last spans may take to reach the collector when the node stops.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// Only our own spans are traced: those of the exporter's connection would make more of themselves.
const TRACED: &str = "guantong";

/// Why logs or traces cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` cannot be read.
    #[error("`log.level` is not a level or a list such as info,guantong::links=debug: {0} (日志级别有误)")]
    Level(#[from] ParseError),
    /// `telemetry.otlp_endpoint` cannot be used.
    #[error("`telemetry.otlp_endpoint` cannot be used: {0} (遥测地址有误)")]
    Endpoint(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else in this process has begun to log.
    #[error("logging was started before: {0}")]
    Again(#[from] TryInitError),
}

/// Who is told of each step that records come by ([`guantong_gateway::step`]): nobody, but in tests.
pub type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs and traces, until [`stop`](Telemetry::stop).
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging for the whole process, and tracing if a collector is configured. Within a tokio runtime.
    ///
    /// # Errors
    /// A level or an address that cannot be used, or a second start.
    pub fn start(config: &Config, listener: Option<Listener>) -> Result<Telemetry, TelemetryError> {
        let filter = level(&config.log.level)?;
        let traces = config.telemetry.otlp_endpoint.as_deref().map(|at| provider(at, config)).transpose()?;
        let tracing = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("guantong"))
                .with_filter(FilterFn::new(|metadata| metadata.target().starts_with(TRACED)))
        });
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = match config.log.format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let listener =
            listener.map(|listener| listener.with_filter(FilterFn::new(|m| m.target() == step::TARGET)));
        let lines = lines.with_filter(filter);
        tracing_subscriber::registry().with(listener).with(tracing).with(lines).try_init()?;
        Ok(Telemetry { traces })
    }

    /// Sends what is left, and waits for it a short time. Blocks.
    pub fn stop(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown_with_timeout(FLUSH_TIME)
        {
            tracing::warn!("the last traces did not reach the collector: {error}");
        }
    }
}

/// Reads `log.level`.
///
/// # Errors
/// It is not a level or a list of them.
pub fn level(text: &str) -> Result<EnvFilter, TelemetryError> {
    Ok(EnvFilter::builder().parse(text)?)
}

fn provider(endpoint: &str, config: &Config) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder()
        .with_service_name("guantong")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(opentelemetry::KeyValue::new("guantong.division", config.division.to_string()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The span of a served request, below its caller's. A link lives as long as the connection: it has no span, its
/// batches do.
pub fn request_span(request: &Request<()>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    if method.ends_with("/Link") {
        return Span::none();
    }
    let span = tracing::info_span!("request", otel.name = method, otel.kind = "server", rpc.system = "grpc");
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    if parent.span().span_context().is_valid() {
        // It fails only where nothing is traced.
        let _ = span.set_parent(parent);
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace_of(path: &str, traceparent: Option<&str>) -> String {
        let provider = SdkTracerProvider::builder().build();
        let tracing = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(tracing), || {
            let mut request = Request::builder().uri(path);
            if let Some(traceparent) = traceparent {
                request = request.header("traceparent", traceparent);
            }
            let context = request_span(&request.body(()).unwrap()).context();
            context.span().span_context().trace_id().to_string()
        })
    }

    #[test]
    fn a_callers_trace_goes_on() {
        let path = "http://node/guantong.v1.RecordService/GetRecord";
        assert_eq!(trace_of(path, Some(TRACEPARENT)), &TRACEPARENT[3..35]);
        for own in [trace_of(path, None), trace_of(path, Some("00-nonsense-01"))] {
            assert_ne!(own, "0".repeat(32));
            assert_ne!(own, &TRACEPARENT[3..35]);
        }
        assert_eq!(
            trace_of("http://node/guantong.v1.ExchangeService/Link", Some(TRACEPARENT)),
            "0".repeat(32)
        );
    }

    #[test]
    fn levels_are_read() {
        assert!(level("info,guantong::links=debug").is_ok());
        assert!(level("guantong=loud").is_err());
    }
}
