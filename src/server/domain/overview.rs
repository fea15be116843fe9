//! The whole at a glance: what a tenant's jobs are doing, what its artifacts weigh, who works on what.
//!
//! Owns: these sums.
//! Must not know: how they are counted.
//! Invariant: sums of one moment; nothing is decided by them.

use time::OffsetDateTime;

use super::JobState;

/// A tenant's jobs and artifacts in sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Jobs in each state that there are any in.
    pub jobs: Vec<(JobState, u64)>,
    /// Creation of the oldest waiting job.
    pub oldest_queued_at: Option<OffsetDateTime>,
    /// Memory that the plans of its running jobs ask for.
    pub planned_memory_bytes: u64,
    /// Codes of the jobs that failed lately, the most frequent first.
    pub failures: Vec<(String, u64)>,
    /// Bytes of the artifacts whose models are still there.
    pub artifact_bytes: u64,
    /// Bytes of the models that these artifacts were made from, once for each artifact.
    pub source_bytes: u64,
}

/// What a node is working on, whoever's it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLoad {
    /// The worker's name, as in the log.
    pub worker: String,
    /// Jobs that it runs.
    pub running: u64,
    /// When the last of their leases runs out unless it is renewed.
    pub lease_until: OffsetDateTime,
}
