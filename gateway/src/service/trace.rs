//! Trace contexts: from a caller's request to the outbox rows of its write, and from the records of a batch to the
//! batch's span.

use std::sync::Arc;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tonic::metadata::MetadataMap;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::ingest::traceparent;

/// Header of the W3C trace context.
const TRACEPARENT: &str = "traceparent";
/// Links that one span carries at most.
const LINKS_MAX: usize = 32;

/// The trace context of a write: the current span's, or the one that the caller sent.
pub(super) fn of_request(metadata: &MetadataMap) -> Option<Arc<str>> {
    let current = tracing::Span::current().context();
    let span = current.span();
    let context = span.span_context();
    if context.is_valid() {
        let flags = context.trace_flags().to_u8();
        return Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()).into());
    }
    traceparent::read(metadata.get(TRACEPARENT)?.to_str().ok()?)
}

/// Reads a `traceparent`, version 00.
fn parse(text: &str) -> Option<SpanContext> {
    let known = traceparent::read(text)?;
    let mut parts = known.split('-').skip(1);
    let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// The span of a batch, linked to the writes that its records come from.
pub(super) fn batch_span<'a>(
    name: &'static str,
    peer: crate::division::Division,
    records: usize,
    traceparents: impl Iterator<Item = &'a str>,
) -> tracing::Span {
    let span = tracing::info_span!("batch", otel.name = name, %peer, records);
    let mut linked: Vec<&str> = Vec::new();
    for traceparent in traceparents {
        if linked.len() < LINKS_MAX && !linked.contains(&traceparent) {
            linked.push(traceparent);
            if let Some(context) = parse(traceparent) {
                span.add_link(context);
            }
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_nonsense_is_not() {
        assert!(parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").is_some());
        for wrong in ["", "00-0-0-0", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x"] {
            assert!(parse(wrong).is_none());
        }
    }
}
