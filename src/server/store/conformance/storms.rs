//! Many at once.

use std::collections::HashSet;

use super::bed::{Bed, HOUR, node};
use crate::domain::JobState;
use crate::domain::ports::Store as _;
use crate::domain::queue::{End, Node, Queue as _};

pub(super) async fn sixteen_claimers_and_each_job_once(bed: Bed) {
    const JOBS: usize = 200;
    for _ in 0..JOBS {
        bed.enqueue().await;
    }
    let claimers = (0..16).map(|n| {
        let bed = bed.clone();
        let node = Node {
            worker: format!("worker-{n}"),
            ..node(HOUR)
        };
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(claim) = bed.rows.claim(&node).await.expect("claims") {
                mine.push(claim.lease);
            }
            mine
        })
    });
    let mut seen = HashSet::new();
    for claimer in futures_util::future::join_all(claimers).await {
        for lease in claimer.expect("no panic") {
            assert_eq!(lease.fence, 1);
            assert!(seen.insert(lease.job), "{} was claimed twice", lease.job);
        }
    }
    assert_eq!(seen.len(), JOBS);
}

pub(super) async fn cancel_and_finish_at_once(bed: Bed) {
    for _ in 0..20 {
        let lease = bed.claimed(HOUR).await;
        let (canceller, finisher) = (bed.clone(), bed.clone());
        let cancel = tokio::spawn(async move { canceller.rows.cancel_job(lease.job, "race").await });
        let finish = tokio::spawn(async move {
            let publication = finisher.publication(lease.job, 'b');
            finisher.finish(lease, End::Succeeded(publication)).await
        });
        let state = finish.await.expect("no panic").expect("its own");
        assert_eq!(state, JobState::Succeeded);
        let answer = cancel.await.expect("no panic");
        // Either it came first, and was too late to stop the work, or it is refused.
        let job = bed.job(lease.job).await;
        assert_eq!(answer.is_ok(), job.cancel_requested_at.is_some(), "{answer:?}");
    }
}
