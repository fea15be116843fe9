//! Every metric: name, unit, help and labels.
//!
//! Owns: the registry and its text form.
//! Must not know: the code that counts.
//! Invariant: names follow Prometheus' rules (base units, `_total`, timestamps not ages) and no label is an id.

use std::path::PathBuf;
use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use time::OffsetDateTime;

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
const KINDS: [&str; 7] = [
    "audit_entry",
    "blob",
    "delivery",
    "draft",
    "idempotency_key",
    "job",
    "upload",
];

/// A name and what it means.
type Named = (&'static str, &'static str);

const HTTP_SECONDS: Named = (
    "http_request_duration_seconds",
    "Time from a request's head to its response's head.",
);
const STAGE_SECONDS: Named = ("stage_duration_seconds", "Time of one stage, by its name.");
const WAIT: Named = (
    "job_wait_seconds",
    "Time between a job's creation and its first claim.",
);
const BEAT: Named = (
    "heartbeat_last_success_timestamp_seconds",
    "Last heartbeat that the store accepted.",
);
const TICK: Named = (
    "loop_last_tick_timestamp_seconds",
    "Last turn of each background loop.",
);
const ESTIMATE: Named = ("memory_estimate_bytes", "Memory that the running plan asked for.");
const PEAK: Named = ("memory_peak_bytes", "Memory that the last attempt really used.");
const RESERVE: Named = (
    "disk_reserve_bytes",
    "Free space below which uploads are refused.",
);
const RESIDENT: Named = (
    "process_resident_memory_bytes",
    "Resident memory of this process.",
);
const HOOKS: &str = "Tries of messages to webhooks by what came of them.";
const TURNS: &str = "Models brought from elsewhere, by what came of each turn at it.";
const SENT: &str = "Bytes of files asked for by downloads.";
const SAVED: &str = "Original minus compressed bytes over all artifacts.";

/// The data folder, for the figures that are read from it.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Free space below which uploads are refused.
    pub reserve_bytes: u64,
    /// Written at the end of each backup.
    pub backup_stamp: PathBuf,
}

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
    /// Jobs that this process may run at once.
    pub workers: IntGauge,
    /// Jobs that it runs.
    pub workers_busy: IntGauge,
    /// Memory that the running plan asked for.
    pub memory_estimate_bytes: IntGauge,
    /// Memory that the last attempt really used.
    pub memory_peak_bytes: IntGauge,
    /// Attempts that used more memory than their plan asked for.
    pub memory_overruns: IntCounter,
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
    /// What was deleted because it was old or nobody referred to it.
    pub pruned: IntCounterVec,
    /// Whether the database answered at the last scrape.
    pub database_up: IntGauge,
    disk_free: IntGauge,
    disk_reserve: IntGauge,
    backup_last_success_timestamp: Gauge,
    resident_memory: IntGauge,
    folder: OnceLock<Folder>,
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
        let waiting = "Creation time of the oldest waiting job; 0 if none.";
        let database =
            "Whether the database answered at this scrape, 1 or 0; if not, the jobs are of an earlier one.";
        let backup = "End of the last `modelpress backup` of this data folder; 0 if none is known.";
        let pruned = "What was deleted because it was old or nobody referred to it.";
        let overruns = "Attempts that used more memory than their plan asked for.";
        let labels: &[&str] = &["route", "method", "status"];
        let metrics = Self {
            http_request_duration: histograms(r, HTTP_SECONDS, labels, REQUEST_SECONDS)?,
            http_requests_in_flight: gauge(r, "http_requests_in_flight", "Requests being served.")?,
            http_connections: gauge(r, "http_connections", "Open connections.")?,
            event_streams: gauge(r, "event_streams", "Open event streams.")?,
            uploads_received_bytes: counter(r, "uploads_received_bytes_total", "Bytes taken in by uploads.")?,
            downloads_sent_bytes: counter(r, "downloads_sent_bytes_total", SENT)?,
            jobs: gauges(r, "jobs", "Jobs in each state.", "state")?,
            oldest_queued_timestamp: time(r, "oldest_queued_timestamp_seconds", waiting)?,
            claim_duration: histogram(
                r,
                ("claim_duration_seconds", "Time one claim takes."),
                CLAIM_SECONDS,
            )?,
            job_wait: histogram(r, WAIT, JOB_SECONDS)?,
            stage_duration: histograms(r, STAGE_SECONDS, &["stage"], JOB_SECONDS)?,
            attempts: counters(r, "attempts_total", "Attempts by how they ended.", "outcome")?,
            leases_lost: counter(r, "leases_lost_total", "Leases lost while working.")?,
            reaped: counter(r, "reaped_total", "Jobs taken back from silent workers.")?,
            heartbeat_last_success_timestamp: time(r, BEAT.0, BEAT.1)?,
            workers: gauge(r, "workers", "Jobs that this process may run at once.")?,
            workers_busy: gauge(r, "workers_busy", "Jobs that this process runs.")?,
            memory_estimate_bytes: gauge(r, ESTIMATE.0, ESTIMATE.1)?,
            memory_peak_bytes: gauge(r, PEAK.0, PEAK.1)?,
            memory_overruns: counter(r, "memory_overruns_total", overruns)?,
            saved_bytes: counter(r, "saved_bytes_total", SAVED)?,
            webhook_deliveries: counters(r, "webhook_deliveries_total", HOOKS, "outcome")?,
            pulls: counters(r, "pulls_total", TURNS, "outcome")?,
            pulls_received_bytes: counter(
                r,
                "pulls_received_bytes_total",
                "Bytes that came from elsewhere.",
            )?,
            loop_last_tick_timestamp: times(r, TICK, "loop")?,
            pruned: counters(r, "pruned_total", pruned, "kind")?,
            database_up: gauge(r, "database_up", database)?,
            disk_free: gauge(r, "disk_free_bytes", "Free space on the disk of the data folder.")?,
            disk_reserve: gauge(r, RESERVE.0, RESERVE.1)?,
            backup_last_success_timestamp: time(r, "backup_last_success_timestamp_seconds", backup)?,
            resident_memory: gauge(r, RESIDENT.0, RESIDENT.1)?,
            folder: OnceLock::new(),
            registry,
        };
        metrics.start_series();
        Ok(metrics)
    }

    /// Looks at this folder from now on, whenever it is asked for its text.
    pub fn watch(&self, folder: Folder) {
        self.disk_reserve.set(folder.reserve_bytes.cast_signed());
        // Set once: there is one data folder.
        let _there_already = self.folder.set(folder);
    }

    /// The exposition text, as `text/plain; version=0.0.4`.
    pub fn text(&self) -> Result<String, MetricsError> {
        self.resident_memory
            .set(super::usage::resident_bytes().cast_signed());
        if let Some(folder) = self.folder.get() {
            if let Ok(free) = fs4::available_space(&folder.path) {
                self.disk_free.set(free.cast_signed());
            }
            let backup = super::usage::modified_seconds(&folder.backup_stamp);
            self.backup_last_success_timestamp.set(backup.unwrap_or(0.0));
        }
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
        for kind in KINDS {
            self.pruned.with_label_values(&[kind]).inc_by(0);
        }
        for name in LOOPS {
            self.loop_last_tick_timestamp.with_label_values(&[name]).set(0.0);
        }
    }
}

impl Metrics {
    /// Each loop and when it last ran in this process.
    pub fn last_ticks(&self) -> Vec<(&'static str, Option<OffsetDateTime>)> {
        let at = |name| self.loop_last_tick_timestamp.with_label_values(&[name]).get() as i64;
        let known = |seconds: i64| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .ok()
                .filter(|_| seconds > 0)
        };
        LOOPS.into_iter().map(|name| (name, known(at(name)))).collect()
    }
}

/// Something in a count of those under way, as long as this lives: also when nobody waits for it any more.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// One more.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
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

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, MetricsError> {
    keep(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
}

/// Seconds since 1970.
fn time(registry: &Registry, name: &str, help: &str) -> Result<Gauge, MetricsError> {
    keep(registry, Gauge::new(name, help)?)
}

fn times(registry: &Registry, (name, help): Named, label: &str) -> Result<GaugeVec, MetricsError> {
    keep(registry, GaugeVec::new(Opts::new(name, help), &[label])?)
}

fn histograms(
    registry: &Registry,
    (name, help): Named,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, MetricsError> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    keep(registry, HistogramVec::new(opts, labels)?)
}

fn histogram(registry: &Registry, (name, help): Named, buckets: &[f64]) -> Result<Histogram, MetricsError> {
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
