//! Searches: several recipes on one model, each a job.
//!
//! Owns: the search, its points, where it stands.
//! Must not know: what a recipe says, how good a result is.
//! Invariant: a search has no state of its own but that it was cancelled: where it stands follows from its jobs.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::job::{Failure, JobState, NewJob};
use super::{JobId, ModelId, SearchId};

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// Its id.
    pub id: SearchId,
    /// The model.
    pub model: ModelId,
    /// What was asked, as sent.
    pub asked: Value,
    /// Every recipe, in the order in which they were asked for.
    pub points: Vec<Point>,
    /// The user's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When the user ended it.
    pub cancelled_at: Option<OffsetDateTime>,
}

/// A recipe of a search.
#[derive(Debug, Clone)]
pub struct Point {
    /// What it is called.
    pub name: String,
    /// The recipe, as it was planned.
    pub recipe: Value,
    /// Its job; none if it was refused.
    pub job: Option<JobId>,
    /// Why it was refused.
    pub refusal: Option<Failure>,
}

/// A search to be recorded, with the job of each point that has one.
#[derive(Debug)]
pub struct NewSearch {
    /// The search.
    pub search: Search,
    /// Jobs, each with the place of its point.
    pub jobs: Vec<(usize, NewJob)>,
    /// The client's key and the digest of its request.
    pub idempotency: Option<(String, [u8; 32])>,
}

/// Where a search stands: running as long as a job is not over; failed only if no job succeeded. `jobs` has the state of
/// each point's job, none for a point that was refused or whose job is forgotten.
pub fn standing(jobs: &[Option<JobState>], cancelled: bool) -> JobState {
    let known = || jobs.iter().flatten();
    if known().any(|state| !state.is_terminal()) {
        return if known().all(|state| *state == JobState::Queued) {
            JobState::Queued
        } else {
            JobState::Running
        };
    }
    if cancelled {
        JobState::Cancelled
    } else if known().any(|state| *state == JobState::Succeeded) {
        JobState::Succeeded
    } else {
        JobState::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_stands_where_its_jobs_do() {
        use JobState::{Cancelled, Failed, Queued, Running, Succeeded};
        let of = |jobs: &[JobState], cancelled| {
            let jobs: Vec<_> = jobs.iter().copied().map(Some).chain([None]).collect();
            standing(&jobs, cancelled)
        };
        assert_eq!(of(&[Queued, Queued], false), Queued);
        assert_eq!(of(&[Queued, Succeeded], false), Running);
        assert_eq!(of(&[Running, Failed], true), Running);
        assert_eq!(of(&[Succeeded, Failed], false), Succeeded);
        assert_eq!(of(&[Failed, Failed], false), Failed);
        assert_eq!(of(&[Succeeded, Cancelled], true), Cancelled);
        assert_eq!(of(&[], false), Failed);
    }
}
