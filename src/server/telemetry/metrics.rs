//! Every metric: name, unit, help and labels.
//!
//! Owns: the registry and its text form.
//! Must not know: the code that counts.
//! Invariant: names follow Prometheus' rules (base units, `_total`, timestamps not ages) and no label is an id.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];
const CLAIM_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];
const JOB_SECONDS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0,
];
const STATES: [&str; 5] = ["queued", "running", "succeeded", "failed", "cancelled"];
const OUTCOMES: [&str; 6] = ["succeeded", "failed", "retried", "cancelled", "released", "lost"];
const LOOPS: [&str; 6] = ["claim", "deliver", "prune", "pull", "reap", "sweep"];
const PULLS: [&str; 5] = ["done", "failed", "retried", "released", "lost"];
const DELIVERIES: [&str; 5] = ["succeeded", "retried", "failed", "gone", "lost"];

/// The process's metrics; cloning the `Arc` around it is the way to share.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Time from a request's head to its response's head.
    pub http_request_duration: HistogramVec,
    /// Requests being served.
    pub http_requests_in_flight: IntGauge,
    /// Open connections.
    pub http_connections: IntGauge,
    /// Open event streams.
    pub event_streams: IntGauge,
    /// Bytes taken in by uploads.
    pub uploads_received_bytes: IntCounter,
    /// Bytes sent by downloads.
    pub downloads_sent_bytes: IntCounter,
    /// Jobs in each state.
    pub jobs: IntGaugeVec,
    /// Creation time of the oldest waiting job.
    pub oldest_queued_timestamp: Gauge,
    /// Time one claim takes.
    pub claim_duration: Histogram,
    /// Time between a job's creation and its first claim.
    pub job_wait: Histogram,
    /// Time of one stage, by its name.
    pub stage_duration: HistogramVec,
    /// Attempts by how they ended.
    pub attempts: IntCounterVec,
    /// Leases lost while working.
    pub leases_lost: IntCounter,
    /// Jobs taken back from silent workers.
    pub reaped: IntCounter,
    /// Last heartbeat that the store accepted.
    pub heartbeat_last_success_timestamp: Gauge,
    /// Memory that the running plan asked for.
    pub memory_estimate_bytes: IntGauge,
    /// Memory that the last attempt really used.
    pub memory_peak_bytes: IntGauge,
    /// Original minus compressed bytes over all artifacts.
    pub saved_bytes: IntCounter,
    /// Tries of messages to webhooks by what came of them.
    pub webhook_deliveries: IntCounterVec,
    /// Models brought from elsewhere, by what came of each turn at it.
    pub pulls: IntCounterVec,
    /// Bytes that came from elsewhere.
    pub pulls_received_bytes: IntCounter,
    /// Last turn of each background loop.
    pub loop_last_tick_timestamp: GaugeVec,
    resident_memory: IntGauge,
}

/// A metric that could not be registered: two with one name.
pub type MetricsError = prometheus::Error;

impl Metrics {
    /// Registers everything, with the series of known labels present from the start.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new_custom(Some("modelpress".to_owned()), None)?;
        let r = &registry;
        gauges(r, "build_info", "Version of this process; always 1.", "version")?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let requests = HistogramOpts::new(
            "http_request_duration_seconds",
            "Time from a request's head to its response's head.",
        )
        .buckets(REQUEST_SECONDS.to_vec());
        let stages = HistogramOpts::new("stage_duration_seconds", "Time of one stage, by its name.")
            .buckets(JOB_SECONDS.to_vec());
        let claim = ("claim_duration_seconds", "Time one claim takes.");
        let wait = (
            "job_wait_seconds",
            "Time between a job's creation and its first claim.",
        );
        let oldest = (
            "oldest_queued_timestamp_seconds",
            "Creation time of the oldest waiting job; 0 if none.",
        );
        let beat = (
            "heartbeat_last_success_timestamp_seconds",
            "Last heartbeat that the store accepted.",
        );
        let tick = Opts::new(
            "loop_last_tick_timestamp_seconds",
            "Last turn of each background loop.",
        );
        let attempts = Opts::new("attempts_total", "Attempts by how they ended.");
        let hooks = Opts::new(
            "webhook_deliveries_total",
            "Tries of messages to webhooks by what came of them.",
        );
        let pulls = Opts::new(
            "pulls_total",
            "Models brought from elsewhere, by what came of each turn at it.",
        );
        let sent = "Bytes of files asked for by downloads.";
        let saved = "Original minus compressed bytes over all artifacts.";
        let metrics = Self {
            http_request_duration: keep(r, HistogramVec::new(requests, &["route", "method", "status"])?)?,
            http_requests_in_flight: gauge(r, "http_requests_in_flight", "Requests being served.")?,
            http_connections: gauge(r, "http_connections", "Open connections.")?,
            event_streams: gauge(r, "event_streams", "Open event streams.")?,
            uploads_received_bytes: counter(r, "uploads_received_bytes_total", "Bytes taken in by uploads.")?,
            downloads_sent_bytes: counter(r, "downloads_sent_bytes_total", sent)?,
            jobs: gauges(r, "jobs", "Jobs in each state.", "state")?,
            oldest_queued_timestamp: keep(r, Gauge::new(oldest.0, oldest.1)?)?,
            claim_duration: histogram(r, claim, CLAIM_SECONDS)?,
            job_wait: histogram(r, wait, JOB_SECONDS)?,
            stage_duration: keep(r, HistogramVec::new(stages, &["stage"])?)?,
            attempts: keep(r, IntCounterVec::new(attempts, &["outcome"])?)?,
            leases_lost: counter(r, "leases_lost_total", "Leases lost while working.")?,
            reaped: counter(r, "reaped_total", "Jobs taken back from silent workers.")?,
            heartbeat_last_success_timestamp: keep(r, Gauge::new(beat.0, beat.1)?)?,
            memory_estimate_bytes: gauge(
                r,
                "memory_estimate_bytes",
                "Memory that the running plan asked for.",
            )?,
            memory_peak_bytes: gauge(
                r,
                "memory_peak_bytes",
                "Memory that the last attempt really used.",
            )?,
            saved_bytes: counter(r, "saved_bytes_total", saved)?,
            webhook_deliveries: keep(r, IntCounterVec::new(hooks, &["outcome"])?)?,
            pulls: keep(r, IntCounterVec::new(pulls, &["outcome"])?)?,
            pulls_received_bytes: counter(
                r,
                "pulls_received_bytes_total",
                "Bytes that came from elsewhere.",
            )?,
            loop_last_tick_timestamp: keep(r, GaugeVec::new(tick, &["loop"])?)?,
            resident_memory: gauge(
                r,
                "process_resident_memory_bytes",
                "Resident memory of this process.",
            )?,
            registry,
        };
        metrics.start_series();
        Ok(metrics)
    }

    /// The exposition text, as `text/plain; version=0.0.4`.
    pub fn text(&self) -> Result<String, MetricsError> {
        self.resident_memory
            .set(super::usage::resident_bytes().cast_signed());
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Series that exist before anything happens, so that a rate over them is never "no data".
    fn start_series(&self) {
        for state in STATES {
            self.jobs.with_label_values(&[state]).set(0);
        }
        for outcome in OUTCOMES {
            self.attempts.with_label_values(&[outcome]).inc_by(0);
        }
        for outcome in DELIVERIES {
            self.webhook_deliveries.with_label_values(&[outcome]).inc_by(0);
        }
        for outcome in PULLS {
            self.pulls.with_label_values(&[outcome]).inc_by(0);
        }
        for name in LOOPS {
            self.loop_last_tick_timestamp.with_label_values(&[name]).set(0.0);
        }
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
    keep(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
    keep(registry, IntGauge::new(name, help)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, MetricsError> {
    keep(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)
}

fn histogram(
    registry: &Registry,
    (name, help): (&str, &str),
    buckets: &[f64],
) -> Result<Histogram, MetricsError> {
    keep(
        registry,
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?,
    )
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn names_carry_unit_and_prefix() {
        let text = Metrics::new().expect("names are unique").text().expect("encodes");
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(names.len() > 10, "{names:?}");
        for name in &names {
            assert!(name.starts_with("modelpress_"), "{name}");
        }
        assert!(text.contains("modelpress_jobs{state=\"queued\"} 0"), "{text}");
        for line in text
            .lines()
            .filter(|l| l.starts_with("# TYPE ") && l.ends_with(" counter"))
        {
            assert!(line.contains("_total "), "{line}");
        }
    }
}
