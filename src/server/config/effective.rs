//! From settings to the validated whole, and back to settings for people to read.
//!
//! Owns: every default, and which settings depend on each other.
//! Must not know: where a setting was written.
//! Invariant: `Settings::of(&config)` written to a file gives the same config again.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::child::Host;
use crate::domain::queue::Retention;

use super::check::{
    address, allowed, at_least_one, bucket, database, days, hub, in_days, memory, places, reachable, seconds,
    threads, url,
};
use super::settings::{Auth, Settings};
use super::{
    ByteSize, Config, ConfigError, Database, Limits, Pulls, Quotas, Rates, Ratio, Workers, redact_url,
};
use crate::telemetry::Collector;

impl Settings {
    pub(super) fn validate(self) -> Result<Config, ConfigError> {
        let data_dir = self
            .data_dir
            .clone()
            .unwrap_or_else(|| "./modelpress-data".into());
        let listen = address("listen", self.listen.as_deref().unwrap_or("127.0.0.1:8080"))?;
        let database = database(self.database_url.as_deref(), &data_dir)?;
        let checkpoint = match (&database, self.checkpoint_seconds.unwrap_or(60)) {
            (Database::Sqlite(_), _) | (_, 0) => None,
            (Database::Postgres(_), seconds) => Some(Duration::from_secs(seconds)),
        };
        Ok(Config {
            database,
            bucket: bucket(self.blob_url.as_deref())?,
            blob_cache_bytes: self.blob_cache_bytes.map_or(64 << 30, |size| size.0),
            data_dir,
            listen,
            keys_required: self.auth.unwrap_or_default().asks(listen),
            metrics_listen: self
                .metrics_listen
                .as_deref()
                .map(|a| address("metrics_listen", a))
                .transpose()?,
            cursor_secret: self.cursor_secret.clone(),
            signing_key: self.signing_key.clone(),
            allowed_model_paths: allowed(self.allowed_model_paths.as_deref().unwrap_or_default())?,
            outbound_allowed: reachable(self.outbound_allowed.as_deref().unwrap_or_default())?,
            pulls: Pulls {
                hub: hub(self.hub_endpoint.as_deref().unwrap_or("https://huggingface.co"))?,
                hub_token: self.hub_token.clone().filter(|token| !token.is_empty()),
                allowed: places(self.pull_allowed.as_deref().unwrap_or_default())?,
                connections: at_least_one("pull_connections", self.pull_connections, 4)?,
            },
            limits: self.limits()?,
            workers: Workers {
                count: self.workers.unwrap_or(1),
                threads: threads(self.worker_threads.unwrap_or(0)),
                device: self.worker_device.clone().unwrap_or_else(|| "cpu".to_owned()),
                memory_bytes: memory(self.worker_memory_bytes),
                decode_command: self.decode_command.clone(),
                lease: seconds("lease_seconds", self.lease_seconds, 60, 3)?,
                checkpoint,
            },
            children: Host::this_program(),
            retention: Retention {
                succeeded: days(self.keep_succeeded_days, 30),
                unsuccessful: days(self.keep_unsuccessful_days, 90),
                audit: days(self.keep_audit_days, 365),
                deliveries: days(self.keep_deliveries_days, 30),
                drafts: days(self.keep_draft_days, 7),
            },
            drain: seconds("drain_seconds", self.drain_seconds, 20, 0)?,
            log_format: self.log_format.unwrap_or_default(),
            log_filter: self.log_filter.unwrap_or_else(|| "info".to_owned()),
            traces: Collector {
                endpoint: url("otlp_endpoint", self.otlp_endpoint)?,
                headers: self.otlp_headers,
                sample_ratio: self.otlp_sample_ratio.map(Ratio::get),
            },
        })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        Ok(Limits {
            body_bytes: self.max_body_bytes.map_or(1 << 20, |s| s.0),
            file_bytes: self.max_file_bytes.map_or(1 << 40, |s| s.0),
            model_files: at_least_one("max_model_files", self.max_model_files, 2000)?,
            reserve_bytes: self.reserve_bytes.map_or(1 << 30, |s| s.0),
            request: seconds("request_timeout_seconds", self.request_timeout_seconds, 30, 1)?,
            idle: seconds("idle_timeout_seconds", self.idle_timeout_seconds, 60, 1)?,
            upload_bytes_per_second: self.min_upload_bytes_per_second.unwrap_or(500),
            header: seconds("header_timeout_seconds", self.header_timeout_seconds, 15, 1)?,
            connections: at_least_one("max_connections", self.max_connections, 1024)?,
            streams: at_least_one("max_event_streams", self.max_event_streams, 256)?,
            queued_jobs: self.max_queued_jobs.unwrap_or(10_000),
            tenant: Quotas {
                bytes: self.tenant_max_bytes.map(|size| size.0).filter(|n| *n > 0),
                queued_jobs: self.tenant_max_queued_jobs.filter(|n| *n > 0),
                running_jobs: self.tenant_max_running_jobs.filter(|n| *n > 0),
            },
            key: Rates {
                requests: self.key_requests_per_minute.and_then(NonZeroU32::new),
                jobs: self.key_jobs_per_hour.and_then(NonZeroU32::new),
            },
            plan_memory_bytes: match (self.workers, self.worker_memory_bytes) {
                (Some(0), None | Some(ByteSize(0))) => None,
                (_, asked) => Some(memory(asked)),
            },
            upload_age: Duration::from_secs(3600 * self.upload_expiry_hours.unwrap_or(24).clamp(1, 24 * 365)),
        })
    }

    /// The effective settings of a config, secrets redacted: what `check-config` prints.
    pub fn of(config: &Config) -> Self {
        let secs = |d: Duration| Some(d.as_secs());
        Self {
            data_dir: Some(config.data_dir.clone()),
            database_url: match &config.database {
                Database::Sqlite(_) => None,
                Database::Postgres(url) => Some(redact_url(url)),
            },
            blob_url: config.bucket.as_ref().map(ToString::to_string),
            blob_cache_bytes: Some(ByteSize(config.blob_cache_bytes)),
            allowed_model_paths: Some(config.allowed_model_paths.clone()),
            reserve_bytes: Some(ByteSize(config.limits.reserve_bytes)),
            outbound_allowed: Some(config.outbound_allowed.iter().map(ToString::to_string).collect()),
            keep_deliveries_days: Some(in_days(config.retention.deliveries)),
            hub_endpoint: Some(config.pulls.hub.clone()),
            hub_token: config.pulls.hub_token.as_ref().map(|_| "***".to_owned()),
            pull_allowed: Some(config.pulls.allowed.iter().map(ToString::to_string).collect()),
            pull_connections: Some(config.pulls.connections),
            listen: Some(config.listen.to_string()),
            auth: Some(if config.keys_required {
                Auth::Required
            } else {
                Auth::Off
            }),
            metrics_listen: config.metrics_listen.map(|a| a.to_string()),
            cursor_secret: config.cursor_secret.as_ref().map(|_| "***".to_owned()),
            signing_key: config.signing_key.clone(),
            request_timeout_seconds: secs(config.limits.request),
            idle_timeout_seconds: secs(config.limits.idle),
            min_upload_bytes_per_second: Some(config.limits.upload_bytes_per_second),
            header_timeout_seconds: secs(config.limits.header),
            drain_seconds: secs(config.drain),
            max_connections: Some(config.limits.connections),
            max_event_streams: Some(config.limits.streams),
            max_body_bytes: Some(ByteSize(config.limits.body_bytes)),
            max_file_bytes: Some(ByteSize(config.limits.file_bytes)),
            max_model_files: Some(config.limits.model_files),
            max_queued_jobs: Some(config.limits.queued_jobs),
            upload_expiry_hours: Some(config.limits.upload_age.as_secs() / 3600),
            tenant_max_bytes: Some(ByteSize(config.limits.tenant.bytes.unwrap_or(0))),
            tenant_max_queued_jobs: Some(config.limits.tenant.queued_jobs.unwrap_or(0)),
            tenant_max_running_jobs: Some(config.limits.tenant.running_jobs.unwrap_or(0)),
            key_requests_per_minute: Some(config.limits.key.requests.map_or(0, NonZeroU32::get)),
            key_jobs_per_hour: Some(config.limits.key.jobs.map_or(0, NonZeroU32::get)),
            workers: Some(config.workers.count),
            worker_threads: Some(config.workers.threads),
            worker_device: Some(config.workers.device.clone()),
            decode_command: config.workers.decode_command.clone(),
            worker_memory_bytes: Some(ByteSize(config.limits.plan_memory_bytes.unwrap_or(0))),
            lease_seconds: secs(config.workers.lease),
            checkpoint_seconds: Some(config.workers.checkpoint.map_or(0, |pause| pause.as_secs())),
            keep_succeeded_days: Some(in_days(config.retention.succeeded)),
            keep_unsuccessful_days: Some(in_days(config.retention.unsuccessful)),
            keep_draft_days: Some(in_days(config.retention.drafts)),
            keep_audit_days: Some(in_days(config.retention.audit)),
            log_format: Some(config.log_format),
            log_filter: Some(config.log_filter.clone()),
            otlp_endpoint: config.traces.endpoint.as_deref().map(redact_url),
            otlp_headers: config.traces.headers.as_ref().map(|_| "***".to_owned()),
            otlp_sample_ratio: config.traces.sample_ratio.and_then(Ratio::new),
        }
    }
}
