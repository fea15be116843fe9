//! What workers are given.
//!
//! Owns: the list.
//! Must not know: concrete stores; `app` chooses them.
//! Invariant: cloning is cheap and everything is shared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::engine::Engine;
use super::probe::Probe;
use crate::domain::queue::{Queue, Retention};
use crate::domain::{Blobs, Clock};
use crate::queue::reap::Neighbours;
use crate::signing::Signer;
use crate::telemetry::Metrics;

/// How the workers work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Attempts at once; 0 leaves the work to other processes.
    pub workers: usize,
    /// Compute threads of an attempt.
    pub threads: usize,
    /// Memory that the plans of all attempts at once may ask for.
    pub memory_bytes: u64,
    /// The least time between two looks for work that nobody announced.
    pub poll: Duration,
    /// Jobs of one tenant that may run at a time.
    pub most_of_tenant: Option<u64>,
    /// How long a lease holds.
    pub ttl: Duration,
    /// How often what an attempt has is brought into the blob store, for others to go on with; never if nobody else
    /// could.
    pub checkpoint: Option<Duration>,
    /// Times how fast artifacts decode, if anything does.
    pub decode_command: Option<PathBuf>,
    /// Folder for scratch space.
    pub scratch: PathBuf,
    /// Who else works on these jobs.
    pub neighbours: Neighbours,
    /// What is forgotten when.
    pub retention: Retention,
}

/// What the workers use.
#[derive(Debug, Clone)]
pub struct Kit {
    /// Jobs.
    pub queue: Arc<dyn Queue>,
    /// Bytes.
    pub blobs: Arc<dyn Blobs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Numbers about this process.
    pub metrics: Arc<Metrics>,
    /// Executes plans.
    pub engine: Arc<dyn Engine>,
    /// Signs what was made.
    pub signer: Arc<Signer>,
    /// Notified when there may be work.
    pub wake: Arc<Notify>,
    /// Notified when somebody wants something of a running job.
    pub news: Arc<Notify>,
    /// Told of each point of an attempt.
    pub probe: Arc<dyn Probe>,
    /// A random number in [0, 1), for jitter.
    pub chance: fn() -> f64,
    /// How the workers work.
    pub settings: Settings,
}
