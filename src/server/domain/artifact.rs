//! Artifacts: what a job produced.
//!
//! Owns: the artifact and its files.
//! Must not know: how it was made.
//! Invariant: published once, by the attempt that held the fence.

use time::OffsetDateTime;

use super::{ArtifactId, FileRef, JobId, ModelId};

/// What to list of artifacts.
#[derive(Debug, Clone, Default)]
pub struct ArtifactFilter {
    /// Only this job's.
    pub job: Option<JobId>,
    /// Only those made from this model.
    pub model: Option<ModelId>,
    /// Only artifacts published before this one.
    pub after: Option<ArtifactId>,
    /// At most so many.
    pub limit: u32,
}

/// An artifact.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its id.
    pub id: ArtifactId,
    /// The job that made it.
    pub job: JobId,
    /// The model it was made from.
    pub model: ModelId,
    /// The format its files are in.
    pub format: String,
    /// Digest over names and file digests.
    pub digest: String,
    /// Its files, by name.
    pub files: Vec<FileRef>,
    /// When it was published.
    pub created_at: OffsetDateTime,
}
