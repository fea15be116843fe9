//! What the memory store says of many rows at once.

use modelpress_server::domain::{Artifact, ArtifactFilter, JobState, Overview};

use super::memory::Tables;

/// Which of these digests no row refers to.
pub(super) fn unreferenced(tables: &Tables, digests: &[String]) -> Vec<String> {
    let models = tables.models.values().flat_map(|(m, _)| &m.files);
    let datasets = tables.datasets.values().flat_map(|d| &d.files);
    let artifacts = tables.artifacts.values().flat_map(|a| &a.files);
    let files = models.chain(datasets).chain(artifacts);
    let mut used: Vec<&str> = files.map(|f| f.digest.as_str()).collect();
    let complete = tables.uploads.values().filter_map(|u| u.complete.as_ref());
    used.extend(complete.map(|(digest, _)| digest.as_str()));
    let is_free = |digest: &&String| !used.contains(&digest.as_str());
    digests.iter().filter(is_free).cloned().collect()
}

/// Artifacts by filter, newest first.
pub(super) fn artifacts(tables: &Tables, filter: &ArtifactFilter) -> Vec<Artifact> {
    let fits = |artifact: &&Artifact| {
        filter.after.is_none_or(|after| artifact.id < after)
            && filter.job.is_none_or(|job| artifact.job == job)
            && filter.model.is_none_or(|model| artifact.model == model)
    };
    let newest = tables.artifacts.values().rev().filter(fits);
    newest.take(filter.limit as usize).cloned().collect()
}

/// Jobs and artifacts in sums.
pub(super) fn overview(tables: &Tables, since: time::OffsetDateTime) -> Overview {
    let mut sums = Overview::default();
    for state in JobState::ALL {
        let count = tables.jobs.values().filter(|job| job.state == state).count();
        if count > 0 {
            sums.jobs.push((state, count as u64));
        }
    }
    for job in tables.jobs.values() {
        if job.state == JobState::Queued {
            let oldest = sums.oldest_queued_at.get_or_insert(job.created_at);
            *oldest = job.created_at.min(*oldest);
        }
        if let (Some(failure), true) = (&job.failure, job.finished_at >= Some(since)) {
            sums.failures.push((failure.code.clone(), 1));
        }
    }
    sums
}
