//! What handlers hold in hand.
//!
//! Owns: the list.
//! Must not know: concrete stores; `app` chooses them.
//! Invariant: cloning is cheap and everything is shared.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::auth::Gate;
use super::page::Cursors;
use super::rates::Rates;
use super::readiness::Readiness;
use super::routes::searches::known::Known;
use crate::child::Host;
use crate::config::Limits;
use crate::domain::ports::{Blobs, Bounds, Clock, Stores, Uploads};
use crate::domain::pull::Place;
use crate::domain::sealed::Seal;
use crate::outbound::Outbound;
use crate::signing::Signer;
use crate::telemetry::Metrics;

/// What a process can say of itself.
#[derive(Debug)]
pub struct About {
    /// When it was started.
    pub started_at: OffsetDateTime,
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// The schema that the database has.
    pub schema_version: i64,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// What its workers' plans may ask for at once; nothing where it has none.
    pub worker_memory_bytes: Option<u64>,
    /// Its settings without their secrets.
    pub settings: serde_json::Value,
}

/// The things handlers use.
#[derive(Debug)]
pub struct Parts {
    /// Rows of all tenants; handlers take their caller's.
    pub stores: Arc<dyn Stores>,
    /// Who may enter.
    pub gate: Gate,
    /// How often they may ask.
    pub rates: Rates,
    /// Bytes by digest.
    pub blobs: Arc<dyn Blobs>,
    /// Who reads files in processes of their own.
    pub children: Host,
    /// Bytes on their way in.
    pub uploads: Arc<dyn Uploads>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Numbers about this process.
    pub metrics: Arc<Metrics>,
    /// Bounds on requests.
    pub limits: Limits,
    /// Folders that `source_path` may name.
    pub allowed_model_paths: Vec<PathBuf>,
    /// Where models may be brought from, beside the hub.
    pub pull_allowed: Vec<Place>,
    /// Seals what has to be kept for a while.
    pub seal: Seal,
    /// The way to where users say, for what may be said.
    pub outbound: Outbound,
    /// The key that artifacts are signed with.
    pub signer: Arc<Signer>,
    /// Page cursors.
    pub cursors: Cursors,
    /// Event streams that may still open.
    pub streams: Arc<Semaphore>,
    /// Wakes waiting workers and event streams of this process.
    pub wake: Arc<Notify>,
    /// Wakes who keeps the leases of running jobs in this process.
    pub news: Arc<Notify>,
    /// Ends when the server is going away.
    pub drain: CancellationToken,
    /// What finished jobs of searches came to.
    pub known: Known,
    /// The last look at the dependencies.
    pub readiness: Readiness,
    /// What this process can say of itself.
    pub about: About,
    /// Whether `/metrics` is on a listener of its own.
    pub metrics_elsewhere: bool,
}

/// Shared [`Parts`].
#[derive(Debug, Clone)]
pub struct AppState(Arc<Parts>);

impl AppState {
    /// Shares the parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Parts {
    /// Bounds of an upload that may reach `max_bytes`.
    pub fn bounds(&self, max_bytes: u64, announced: Option<u64>) -> Bounds {
        let limits = &self.limits;
        Bounds {
            max_bytes: max_bytes.min(limits.file_bytes),
            idle: limits.idle,
            least_bytes_per_second: limits.upload_bytes_per_second,
            reserve_bytes: limits.reserve_bytes,
            announced,
        }
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
