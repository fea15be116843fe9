//! Which of two sources of settings wins.
//!
//! Owns: this rule, setting by setting.
//! Must not know: what settings mean.
//! Invariant: every setting is named, so that a new one cannot be forgotten.

use super::settings::Settings;

impl Settings {
    /// This, and where it is silent, the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            database_url: self.database_url.or(other.database_url),
            blob_url: self.blob_url.or(other.blob_url),
            blob_cache_bytes: self.blob_cache_bytes.or(other.blob_cache_bytes),
            allowed_model_paths: self.allowed_model_paths.or(other.allowed_model_paths),
            reserve_bytes: self.reserve_bytes.or(other.reserve_bytes),
            outbound_allowed: self.outbound_allowed.or(other.outbound_allowed),
            keep_deliveries_days: self.keep_deliveries_days.or(other.keep_deliveries_days),
            hub_endpoint: self.hub_endpoint.or(other.hub_endpoint),
            hub_token: self.hub_token.or(other.hub_token),
            pull_allowed: self.pull_allowed.or(other.pull_allowed),
            pull_connections: self.pull_connections.or(other.pull_connections),
            listen: self.listen.or(other.listen),
            auth: self.auth.or(other.auth),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            cursor_secret: self.cursor_secret.or(other.cursor_secret),
            signing_key: self.signing_key.or(other.signing_key),
            request_timeout_seconds: self.request_timeout_seconds.or(other.request_timeout_seconds),
            idle_timeout_seconds: self.idle_timeout_seconds.or(other.idle_timeout_seconds),
            min_upload_bytes_per_second: self
                .min_upload_bytes_per_second
                .or(other.min_upload_bytes_per_second),
            header_timeout_seconds: self.header_timeout_seconds.or(other.header_timeout_seconds),
            drain_seconds: self.drain_seconds.or(other.drain_seconds),
            max_connections: self.max_connections.or(other.max_connections),
            max_event_streams: self.max_event_streams.or(other.max_event_streams),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            max_file_bytes: self.max_file_bytes.or(other.max_file_bytes),
            max_model_files: self.max_model_files.or(other.max_model_files),
            max_queued_jobs: self.max_queued_jobs.or(other.max_queued_jobs),
            upload_expiry_hours: self.upload_expiry_hours.or(other.upload_expiry_hours),
            tenant_max_bytes: self.tenant_max_bytes.or(other.tenant_max_bytes),
            tenant_max_queued_jobs: self.tenant_max_queued_jobs.or(other.tenant_max_queued_jobs),
            tenant_max_running_jobs: self.tenant_max_running_jobs.or(other.tenant_max_running_jobs),
            key_requests_per_minute: self.key_requests_per_minute.or(other.key_requests_per_minute),
            key_jobs_per_hour: self.key_jobs_per_hour.or(other.key_jobs_per_hour),
            workers: self.workers.or(other.workers),
            worker_threads: self.worker_threads.or(other.worker_threads),
            decode_command: self.decode_command.or(other.decode_command),
            worker_device: self.worker_device.or(other.worker_device),
            worker_memory_bytes: self.worker_memory_bytes.or(other.worker_memory_bytes),
            lease_seconds: self.lease_seconds.or(other.lease_seconds),
            checkpoint_seconds: self.checkpoint_seconds.or(other.checkpoint_seconds),
            keep_succeeded_days: self.keep_succeeded_days.or(other.keep_succeeded_days),
            keep_unsuccessful_days: self.keep_unsuccessful_days.or(other.keep_unsuccessful_days),
            keep_draft_days: self.keep_draft_days.or(other.keep_draft_days),
            keep_audit_days: self.keep_audit_days.or(other.keep_audit_days),
            log_format: self.log_format.or(other.log_format),
            log_filter: self.log_filter.or(other.log_filter),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            otlp_headers: self.otlp_headers.or(other.otlp_headers),
            otlp_sample_ratio: self.otlp_sample_ratio.or(other.otlp_sample_ratio),
        }
    }
}
