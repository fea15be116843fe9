//! What the API reads.

use std::time::Duration;

use super::bed::{Bed, HOUR, beat, ending, failure, node};
use crate::domain::ports::{JobFilter, Room, Store as _, StoreError, Stores as _};
use crate::domain::queue::{Beat, End, Queue as _};
use crate::domain::{ArtifactFilter, Clock as _, JobId, JobState, ModelId, Overview, Progress};

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

pub(super) async fn sums_are_of_one_tenant_and_of_what_is_there(bed: Bed) {
    let long_ago = bed.rows.clock.now() - HOUR;
    assert_eq!(
        bed.rows.overview(long_ago).await.expect("sums"),
        Overview::default()
    );
    let done = bed.claimed(HOUR).await;
    let publication = bed.publication(done.job, 'b');
    let artifact_bytes = publication.artifacts[0].files.iter().map(|f| f.bytes).sum();
    bed.finish(done, End::Succeeded(publication))
        .await
        .expect("its own");
    let failed = bed.claimed(HOUR).await;
    bed.finish(failed, End::Failed(failure("numeric")))
        .await
        .expect("its own");
    let running = bed.claimed(HOUR).await;
    let queued = bed.enqueue().await;
    let sums = bed.rows.overview(long_ago).await.expect("sums");
    let mut jobs = sums.jobs.clone();
    jobs.sort_by_key(|(state, _)| state.as_str());
    assert_eq!(
        jobs,
        [
            (JobState::Failed, 1),
            (JobState::Queued, 1),
            (JobState::Running, 1),
            (JobState::Succeeded, 1)
        ]
    );
    assert_eq!(sums.oldest_queued_at, Some(bed.job(queued).await.created_at));
    assert_eq!(sums.planned_memory_bytes, bed.new_job().need_memory_bytes);
    assert_eq!(sums.failures, [("numeric".to_owned(), 1)]);
    let model = bed.rows.model(bed.model).await.expect("is there");
    let source_bytes = model.files.iter().map(|f| f.bytes).sum();
    assert_eq!(
        (sums.artifact_bytes, sums.source_bytes),
        (artifact_bytes, source_bytes)
    );
    let later = bed.rows.clock.now() + HOUR;
    assert!(bed.rows.overview(later).await.expect("sums").failures.is_empty());
    let other = bed.rows.of(&"other".parse().expect("a name"));
    assert_eq!(other.overview(long_ago).await.expect("sums"), Overview::default());
    let loads = bed.rows.loads().await.expect("sums");
    assert_eq!(loads.iter().map(|load| load.running).collect::<Vec<_>>(), [1]);
    bed.finish(running, End::Failed(failure("numeric")))
        .await
        .expect("its own");
    assert!(bed.rows.loads().await.expect("sums").is_empty());
}

pub(super) async fn artifacts_are_found_by_job_and_model(bed: Bed) {
    let mut made = Vec::new();
    for letter in ['b', 'c', 'd'] {
        let lease = bed.claimed(HOUR).await;
        let publication = bed.publication(lease.job, letter);
        made.insert(0, publication.artifacts[0].clone());
        bed.finish(lease, End::Succeeded(publication))
            .await
            .expect("its own");
    }
    let all = ArtifactFilter {
        limit: 9,
        ..ArtifactFilter::default()
    };
    let list = async |filter: &ArtifactFilter| {
        let found = bed.rows.list_artifacts(filter).await.expect("lists");
        format!("{found:?}")
    };
    assert_eq!(list(&all).await, format!("{made:?}"));
    let of_job = ArtifactFilter {
        job: Some(made[1].job),
        ..all.clone()
    };
    assert_eq!(list(&of_job).await, format!("{:?}", &made[1..2]));
    let of_model = ArtifactFilter {
        model: Some(bed.model),
        after: Some(made[0].id),
        limit: 1,
        ..all.clone()
    };
    assert_eq!(list(&of_model).await, format!("{:?}", &made[1..2]));
    let of_another = ArtifactFilter {
        model: Some(ModelId::from_uuid(uuid::Uuid::now_v7())),
        ..all.clone()
    };
    assert_eq!(list(&of_another).await, "[]");
    let other = bed.rows.of(&"other".parse().expect("a name"));
    assert!(other.list_artifacts(&all).await.expect("lists").is_empty());
}
