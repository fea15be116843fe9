//! Traces for OpenTelemetry: which spans there are and what stands in them.
//!
//! Owns: span names and attributes, by OpenTelemetry's conventions; trace context as text.
//! Must not know: who makes spans; where they are sent.
//! Invariant: switched off, a span is nothing; log lines look the same either way, because these spans are made for the
//! collector only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Target of the spans that go to the collector.
const TARGET: &str = "modelpress::traces";
const SCOPE: &str = "modelpress";

/// Set once, when traces are on.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Whether spans are made at all.
pub fn on() -> bool {
    TRACER.get().is_some()
}

/// Whether it is one of the spans for the collector, which are no concern of the log's.
pub(super) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// What hands spans, and log lines in them as their events, to the collector's pipeline.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let tracer = provider.tracer(SCOPE);
    let tracer = TRACER.get_or_init(|| tracer).clone();
    let wanted = |metadata: &Metadata<'_>| {
        is_ours(metadata) || metadata.is_event() && metadata.level() <= &LevelFilter::INFO
    };
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Dynamic, so that every event asks anew: an answer that a layer's filter gave to a mere question
        // (`tracing::enabled!`, as database drivers ask) would otherwise swallow the next line on that thread.
        .with_filter(
            dynamic_filter_fn(move |metadata, _| wanted(metadata)).with_max_level_hint(LevelFilter::INFO),
        )
}

/// A request, as its span tells it.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its method; `_OTHER` if it is none of the usual ones.
    pub method: &'a str,
    /// Template of its route, if one matched.
    pub route: Option<&'a str>,
    /// Its path.
    pub path: &'a str,
    /// Version of HTTP: `1.1`.
    pub version: &'a str,
    /// Who asks.
    pub client: Option<IpAddr>,
    /// The program that asks.
    pub agent: Option<&'a str>,
    /// Trace context that it brought.
    pub traceparent: Option<&'a str>,
    /// And its vendors' part.
    pub tracestate: Option<&'a str>,
}

/// The span of a request, in the trace that its client began, or in a new one.
pub fn request(asked: &Asked<'_>) -> Span {
    if !on() {
        return Span::none();
    }
    let name = match asked.route {
        Some(route) => format!("{} {route}", asked.method),
        None => asked.method.to_owned(),
    };
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "request",
        "otel.name" = name,
        "otel.kind" = "server",
        "http.request.method" = asked.method,
        "http.route" = asked.route,
        "url.path" = asked.path,
        "url.scheme" = "http",
        "network.protocol.version" = asked.version,
        "client.address" = asked.client.map(|ip| ip.to_string()),
        "user_agent.original" = asked.agent,
        "http.response.status_code" = Empty,
        "error.type" = Empty,
        "modelpress.request_id" = Empty,
        "otel.status_code" = Empty,
    );
    if let Some(parent) = asked.traceparent.and_then(|text| context(text, asked.tracestate))
        && let Err(error) = span.set_parent(parent)
    {
        tracing::debug!(%error, "trace not continued");
    }
    span
}

/// How a request was answered.
pub fn answered(span: &Span, status: u16, request_id: Option<&str>) {
    span.record("http.response.status_code", u64::from(status));
    span.record("modelpress.request_id", request_id);
    if status >= 500 {
        span.record("error.type", status.to_string());
        span.record("otel.status_code", "ERROR");
    }
}

/// A statement on a database, as a part of what is being traced here; nothing outside of a trace, so that polling loops
/// make none.
pub fn statement(system: &'static str, name: &'static str) -> Span {
    if !on() || trace_id().is_none() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "statement",
        "otel.name" = name,
        "otel.kind" = "client",
        "db.system.name" = system,
        "db.query.summary" = name,
    )
}

/// The attempt at a job, as its span tells it.
#[derive(Debug)]
pub struct Attempted<'a> {
    /// The job.
    pub job: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// Number of the claim.
    pub fence: u64,
    /// Who works.
    pub worker: &'a str,
    /// Trace context of the request that made the job.
    pub cause: Option<&'a str>,
}

/// The span of an attempt: a trace of its own, since it may run hours after the request, linked to that request's span.
pub fn attempt(attempted: &Attempted<'_>) -> Span {
    if !on() {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "attempt",
        "otel.kind" = "consumer",
        "modelpress.job.id" = attempted.job,
        "modelpress.job.attempt" = u64::from(attempted.attempt),
        "modelpress.job.fence" = attempted.fence,
        "modelpress.worker" = attempted.worker,
        "modelpress.job.outcome" = Empty,
        "otel.status_code" = Empty,
    );
    if let Some(cause) = attempted.cause.and_then(|text| context(text, None)) {
        span.add_link(cause.span().span_context().clone());
    }
    span
}

/// How an attempt ended.
pub fn ended(span: &Span, outcome: &str) {
    span.record("modelpress.job.outcome", outcome);
    if matches!(outcome, "failed" | "retried" | "lost") {
        span.record("otel.status_code", "ERROR");
    }
}

/// The place in a trace where something runs, to add what is only known when it is over.
#[derive(Debug, Clone)]
pub struct Place(Option<Context>);

impl Place {
    /// The place where the caller runs.
    pub fn here() -> Self {
        Self(on().then(Context::current))
    }

    /// A stage of an attempt that ends now.
    pub fn stage(&self, name: &str, lasted: Duration) {
        if let (Some(here), Some(tracer)) = (&self.0, TRACER.get()) {
            let now = SystemTime::now();
            let mut span = tracer
                .span_builder(format!("stage {name}"))
                .with_start_time(now.checked_sub(lasted).unwrap_or(now))
                .with_attributes([KeyValue::new("modelpress.stage", name.to_owned())])
                .start_with_context(tracer, here);
            span.end();
        }
    }
}

/// The trace that the caller runs in.
pub fn trace_id() -> Option<String> {
    if !on() {
        return None;
    }
    let here = Context::current();
    let span = here.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

/// Trace context of a span as text, to hand it on.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent")
}

fn context(traceparent: &str, tracestate: Option<&str>) -> Option<Context> {
    let mut carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    if let Some(state) = tracestate {
        carrier.insert("tracestate".to_owned(), state.to_owned());
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_read_or_left_alone() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = context(text, Some("a=b")).expect("well formed");
        let span = read.span();
        assert_eq!(
            span.span_context().trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(span.span_context().trace_state().header(), "a=b");
        for wrong in [
            "",
            "x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(context(wrong, None).is_none(), "{wrong}");
        }
    }

    #[test]
    fn switched_off_nothing_is_made() {
        assert!(statement("sqlite", "job_get").is_none());
        assert!(traceparent(&Span::current()).is_none());
        assert!(trace_id().is_none());
    }
}
