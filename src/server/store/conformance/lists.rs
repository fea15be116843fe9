//! What the API reads.

use std::time::Duration;

use super::bed::{Bed, HOUR, beat, ending, node};
use crate::domain::ports::{JobFilter, Room, Store as _, StoreError, Stores as _};
use crate::domain::queue::{Beat, End, Queue as _};
use crate::domain::{Clock as _, JobId, JobState, ModelId, Progress};

async fn page(bed: &Bed, filter: JobFilter) -> Vec<JobId> {
    let jobs = bed.rows.list_jobs(&filter).await.expect("lists");
    jobs.into_iter().map(|job| job.id).collect()
}

fn first(limit: u32) -> JobFilter {
    JobFilter {
        limit,
        ..JobFilter::default()
    }
}

pub(super) async fn pages_are_stable_under_inserts(bed: Bed) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(bed.enqueue().await);
    }
    ids.reverse();
    let mut seen = page(&bed, first(3)).await;
    while let Some(last) = seen.last().copied() {
        bed.enqueue().await;
        let next = JobFilter {
            after: Some(last),
            ..first(3)
        };
        match page(&bed, next).await {
            more if more.is_empty() => break,
            more => seen.extend(more),
        }
    }
    assert_eq!(seen, ids);
}

pub(super) async fn filters(bed: Bed) {
    let running = bed.claimed(HOUR).await.job;
    let queued = bed.enqueue().await;
    let all = page(&bed, first(9)).await;
    assert_eq!(all, [queued, running]);
    let mut filter = first(9);
    filter.state = Some(JobState::Running);
    assert_eq!(page(&bed, filter.clone()).await, [running]);
    filter.model = Some(bed.model);
    assert_eq!(page(&bed, filter.clone()).await, [running]);
    filter.state = None;
    assert_eq!(page(&bed, filter.clone()).await, [queued, running]);
    filter.model = Some(ModelId::from_uuid(uuid::Uuid::now_v7()));
    assert!(page(&bed, filter).await.is_empty());
}

pub(super) async fn ticks_are_shown_until_the_attempt_ends(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let progress = |bytes_done: u64| Progress {
        stage: Some("quantize".into()),
        stages: 2,
        bytes_done,
        bytes_total: 100,
        bytes_per_second: 1.5,
        ..Progress::default()
    };
    bed.rows.tick(lease, &progress(10));
    assert_eq!(bed.job(lease.job).await.progress, progress(10));
    let with_progress = Beat {
        progress: progress(20),
        ..beat(HOUR)
    };
    bed.rows.beat(lease, &with_progress).await.expect("its own");
    bed.rows.tick(lease, &progress(30));
    assert_eq!(bed.job(lease.job).await.progress, progress(30));
    let mut end = ending(End::Cancelled);
    end.progress = progress(40);
    bed.rows.finish(lease, &end).await.expect("its own");
    assert_eq!(bed.job(lease.job).await.progress, progress(40));
    // A new attempt starts from nothing.
    let lease = bed.claimed(HOUR).await;
    bed.rows.beat(lease, &with_progress).await.expect("its own");
    bed.finish(lease, End::Released).await.expect("its own");
    bed.rows.claim(&node(HOUR)).await.expect("claims").expect("again");
    assert_eq!(bed.job(lease.job).await.progress, Progress::default());
}

pub(super) async fn counts_and_readiness(bed: Bed) {
    bed.rows.ready().await.expect("current");
    bed.claimed(HOUR).await;
    let at = bed.clock.now();
    bed.enqueue().await;
    bed.clock.advance(Duration::from_mins(1));
    bed.enqueue().await;
    let mut counts = bed.rows.counts().await.expect("counts");
    counts.jobs.sort_by_key(|(state, _)| state.as_str());
    assert_eq!(counts.jobs, [(JobState::Queued, 2), (JobState::Running, 1)]);
    assert_eq!(counts.oldest_queued_at, Some(at));
}

pub(super) async fn a_full_queue_turns_jobs_away(bed: Bed) {
    for _ in 0..2 {
        bed.rows.enqueue(&bed.new_job(), Room::of(2)).await.expect("room");
    }
    let job = bed.new_job();
    let full = bed.rows.enqueue(&job, Room::of(2)).await;
    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    assert!(matches!(bed.rows.job(job.id).await, Err(StoreError::NotFound)));
    bed.claim(HOUR).await.expect("one");
    bed.rows.enqueue(&job, Room::of(2)).await.expect("room again");
}

/// Statements are shared by those who ask at once; what they get is not.
pub(super) async fn jobs_that_are_asked_for_at_once(bed: Bed) {
    let other = bed.rows.of(&"other".parse().expect("a tenant"));
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(bed.enqueue().await);
    }
    let nobodys = JobId::from_uuid(uuid::Uuid::now_v7());
    let mut readers = tokio::task::JoinSet::new();
    for n in 0..400 {
        let (id, rows, other) = (ids[n % ids.len()], bed.rows.clone(), other.clone());
        readers.spawn(async move {
            match n % 5 {
                0 => assert!(
                    matches!(other.job(id).await, Err(StoreError::NotFound)),
                    "another's"
                ),
                1 => assert!(matches!(rows.job(nobodys).await, Err(StoreError::NotFound))),
                _ => assert_eq!(rows.job(id).await.expect("its own").id, id),
            }
        });
    }
    // Meanwhile what is written is seen by who asks afterwards.
    for id in &ids {
        bed.rows.cancel_job(*id, "a test").await.expect("waits");
        assert_eq!(bed.state(*id).await, JobState::Cancelled);
    }
    while let Some(reader) = readers.join_next().await {
        reader.expect("as it should be");
    }
}
