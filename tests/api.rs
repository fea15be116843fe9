//! The HTTP API as its clients see it: one file a resource.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/elsewhere.rs"]
mod elsewhere;
#[path = "support/llama.rs"]
#[expect(dead_code, reason = "other tests need a tokenizer")]
mod llama;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/mod.rs"]
mod support;

#[path = "api/analysis.rs"]
mod analysis;
#[path = "api/artifacts.rs"]
mod artifacts;
#[path = "api/datasets.rs"]
mod datasets;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/events.rs"]
mod events;
#[path = "api/health.rs"]
mod health;
#[path = "api/jobs.rs"]
mod jobs;
#[path = "api/keys.rs"]
mod keys;
#[path = "api/models.rs"]
mod models;
#[path = "api/multipart.rs"]
mod multipart;
#[path = "api/overview.rs"]
mod overview;
#[path = "api/pages.rs"]
mod pages;
#[path = "api/pulls.rs"]
mod pulls;
#[path = "api/quotas.rs"]
mod quotas;
#[path = "api/searches.rs"]
mod searches;
#[path = "api/source_path.rs"]
mod source_path;
#[path = "api/tus.rs"]
mod tus;
#[path = "api/uploads.rs"]
mod uploads;
#[path = "api/webhooks.rs"]
mod webhooks;
