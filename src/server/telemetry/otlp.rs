//! Sending spans to a collector over OTLP/HTTP.
//!
//! Owns: where they go, how many of them, in which portions, what is said when they cannot be sent.
//! Must not know: what a span says.
//! Invariant: nobody waits for a collector but a thread of the exporter's own; what the queue has no room for is lost,
//! and what cannot be sent is told once a minute, not once a span.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::{Builder, Runtime};

/// Between two lines about spans that could not be sent.
const QUIET: Duration = Duration::from_mins(1);

/// Where traces go. What is not set here is taken from the usual `OTEL_…` variables.
#[derive(Clone, Default, PartialEq)]
pub struct Collector {
    /// Base URL of a collector; `/v1/traces` is added.
    pub endpoint: Option<String>,
    /// Headers for it: `name=value`, comma-separated. A secret.
    pub headers: Option<String>,
    /// Share of the traces begun here that are sent, 0 to 1.
    pub sample_ratio: Option<f64>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers.as_ref().map(|_| "***"))
            .field("sample_ratio", &self.sample_ratio)
            .finish()
    }
}

/// The exporter could not be made.
#[derive(Debug, thiserror::Error)]
#[error("config: otlp_endpoint: {0}")]
pub struct CollectorError(String);

impl Collector {
    /// Whether traces are wanted at all.
    pub fn is_on(&self) -> bool {
        let says = |name: &str| std::env::var(name).unwrap_or_default();
        let elsewhere = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ];
        let off =
            says("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true") || says("OTEL_TRACES_EXPORTER") == "none";
        match &self.endpoint {
            Some(endpoint) => !endpoint.is_empty(),
            None => !off && elsewhere.iter().any(|name| !says(name).is_empty()),
        }
    }

    /// The pipeline from a finished span to the collector.
    pub(super) fn provider(&self) -> Result<SdkTracerProvider, CollectorError> {
        let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_http();
        if let Some(endpoint) = self.endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
            exporter = exporter.with_endpoint(address(endpoint));
        }
        if let Some(headers) = &self.headers {
            exporter = exporter.with_headers(pairs(headers)?);
        }
        let wrong = |error: &dyn fmt::Display| CollectorError(error.to_string());
        let exporter = Exporter {
            inner: exporter.build().map_err(|error| wrong(&error))?,
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| wrong(&error))?,
            failures: Mutex::default(),
        };
        let resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name("modelpress"),
        };
        let mut provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .with_resource(resource.build());
        if let Some(ratio) = self.sample_ratio {
            let ratio = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(ratio)));
        }
        Ok(provider.build())
    }
}

/// The address of traces at a collector.
fn address(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") {
        base.to_owned()
    } else {
        format!("{base}/v1/traces")
    }
}

fn pairs(headers: &str) -> Result<HashMap<String, String>, CollectorError> {
    let words = headers.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    words
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            }
            // Not quoted: it may be a secret.
            _ => Err(CollectorError(
                "otlp_headers must read name=value, several of them separated by commas".to_owned(),
            )),
        })
        .collect()
}

/// An exporter that runs on the thread it is called on, which is one of its own, and tells of failures now and then.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    runtime: Runtime,
    failures: Mutex<Failures>,
}

/// What was not told yet.
#[derive(Debug, Default)]
struct Failures {
    spans: usize,
    told: Option<Instant>,
}

impl Failures {
    /// Spans lost since it was last told, if it is time to tell again.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.spans += spans;
        if self.told.is_some_and(|told| now - told < QUIET) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.spans))
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        // The client needs a runtime, and the thread that batches has none. Nothing else runs on that thread.
        let sent = self.runtime.block_on(self.inner.export(batch));
        if let Err(error) = &sent {
            self.tell(spans, error);
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl Exporter {
    fn tell(&self, spans: usize, error: &OTelSdkError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spans) = failures.add(spans, Instant::now()) {
            tracing::warn!(spans, %error, "traces could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_once_a_minute() {
        let mut failures = Failures::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(failures.add(3, begun), Some(3));
        assert_eq!(failures.add(4, after(1)), None);
        assert_eq!(failures.add(5, after(59)), None);
        assert_eq!(failures.add(1, after(60)), Some(10));
        assert_eq!(failures.add(1, after(61)), None);
    }

    #[test]
    fn headers_are_read_and_not_shown() {
        let read = pairs("authorization=Bearer a=b, x-team = blue").expect("pairs");
        assert_eq!(read["authorization"], "Bearer a=b");
        assert_eq!(read["x-team"], "blue");
        let refused = pairs("secret").expect_err("no pair").to_string();
        assert!(!refused.contains("secret"), "{refused}");
        let collector = Collector {
            headers: Some("k=hidden".to_owned()),
            ..Collector::default()
        };
        assert!(!format!("{collector:?}").contains("hidden"));
    }

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_address() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(address(endpoint), "http://c:4318/v1/traces");
        }
    }
}
