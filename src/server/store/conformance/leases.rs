//! Claims, leases, fences, endings.

use std::time::Duration;

use serde_json::json;

use super::bed::{Bed, HOUR, beat, digest, ending, failure, is_lost, node};
use crate::domain::ports::{Store as _, StoreError};
use crate::domain::queue::{End, Node, Pulse, Queue as _, Silent};
use crate::domain::{JobState, NewJob};

const NOW: Duration = Duration::ZERO;

pub(super) async fn a_claim_takes_the_job_and_says_so(bed: Bed) {
    let id = bed.enqueue().await;
    let claim = bed.claim(HOUR).await.expect("one");
    assert_eq!((claim.lease.job, claim.attempt, claim.max_attempts), (id, 1, 3));
    assert_eq!(claim.plan.as_str(), r#"{"z":"the plan","a":1}"#);
    assert_eq!(claim.files[0].digest, digest('a'));
    let job = bed.job(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Running, 1));
    assert!(job.started_at.is_some());
    assert_eq!(bed.messages(id).await, ["job is queued", "job is running"]);
    assert!(bed.claim(HOUR).await.is_none());
}

pub(super) async fn a_late_finish_with_an_old_fence_changes_nothing(bed: Bed) {
    let old = bed.claimed(NOW).await;
    bed.rows.reap(Silent::Expired).await.expect("reaps");
    let new = bed.claim(HOUR).await.expect("again").lease;
    assert!(new.fence > old.fence);
    let before = bed.events(old.job).await.len();
    let late = End::Succeeded(bed.publication(old.job, 'b'));
    assert!(is_lost(&bed.finish(old, late).await));
    assert!(is_lost(&bed.rows.beat(old, &beat(HOUR)).await));
    assert!(is_lost(&bed.rows.record(old, &[]).await));
    assert!(is_lost(&bed.rows.announce(old, &[digest('b')]).await));
    assert_eq!(bed.state(old.job).await, JobState::Running);
    assert_eq!(bed.events(old.job).await.len(), before);
    assert_eq!(
        bed.finish(new, End::Cancelled).await.expect("still its own"),
        JobState::Cancelled
    );
}

pub(super) async fn a_worker_that_dies_every_time_ends_the_job(bed: Bed) {
    let id = bed.enqueue().await;
    let mut states = Vec::new();
    for attempt in 1..=3 {
        assert_eq!(bed.claim(NOW).await.expect("claimable").attempt, attempt);
        let reaped = bed.rows.reap(Silent::Expired).await.expect("reaps");
        assert_eq!(reaped.len(), 1);
        states.push(reaped[0].state);
    }
    assert_eq!(states, [JobState::Queued, JobState::Queued, JobState::Failed]);
    assert!(bed.claim(NOW).await.is_none());
    let job = bed.job(id).await;
    let failure = job.failure.expect("failed");
    assert_eq!(failure.code, "worker_lost");
    assert!(
        failure.message.contains("worker-a") && failure.message.contains("3 of 3"),
        "{}",
        failure.message
    );
}

pub(super) async fn a_live_lease_is_not_taken_back(bed: Bed) {
    let lease = bed.claimed(NOW).await;
    // Late, but nobody else has it: the beat saves it.
    bed.rows.beat(lease, &beat(HOUR)).await.expect("its own");
    assert_eq!(bed.rows.reap(Silent::Expired).await.expect("reaps"), []);
    assert_eq!(bed.state(lease.job).await, JobState::Running);
}

pub(super) async fn at_start_everyone_is_silent(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let reaped = bed.rows.reap(Silent::Everyone).await.expect("reaps");
    assert_eq!((reaped.len(), reaped[0].state), (1, JobState::Queued));
    let again = bed.claim(HOUR).await.expect("without waiting");
    assert_eq!((again.lease.job, again.attempt), (lease.job, 2));
}

pub(super) async fn a_retry_waits_and_then_runs_again(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let state = bed.finish(lease, End::Retry(failure("io"), HOUR)).await;
    assert_eq!(state.expect("its own"), JobState::Queued);
    assert!(bed.claim(HOUR).await.is_none(), "it must wait");
    assert_eq!(bed.job(lease.job).await.failure, None);
    let event = bed.events(lease.job).await.pop().expect("events");
    assert_eq!(
        (event.level.as_str(), &event.data["error"]["code"]),
        ("warning", &json!("io"))
    );

    let id = bed.enqueue().await;
    for _ in 0..2 {
        let lease = bed.claim(HOUR).await.expect("due").lease;
        bed.finish(lease, End::Retry(failure("io"), NOW))
            .await
            .expect("its own");
    }
    let last = bed.claim(HOUR).await.expect("due").lease;
    let state = bed.finish(last, End::Retry(failure("io"), NOW)).await;
    assert_eq!(state.expect("its own"), JobState::Failed);
    assert_eq!(bed.job(id).await.failure.expect("failed").code, "io");
}

pub(super) async fn a_release_gives_the_attempt_back(bed: Bed) {
    let id = bed.enqueue().await;
    for _ in 0..5 {
        let claim = bed.claim(HOUR).await.expect("due");
        assert_eq!((claim.lease.job, claim.attempt), (id, 1));
        let state = bed.finish(claim.lease, End::Released).await;
        assert_eq!(state.expect("its own"), JobState::Queued);
    }
}

pub(super) async fn cancel_while_queued_ends_at_once(bed: Bed) {
    let id = bed.enqueue().await;
    let job = bed.rows.cancel_job(id, "a test").await.expect("cancels");
    assert_eq!(job.state, JobState::Cancelled);
    assert!(job.finished_at.is_some() && job.cancel_requested_at.is_some());
    assert!(bed.claim(HOUR).await.is_none());
    // Again: the same answer, nothing written.
    let events = bed.events(id).await.len();
    let again = bed.rows.cancel_job(id, "a test").await.expect("answers");
    assert_eq!(
        (again.state, bed.events(id).await.len()),
        (JobState::Cancelled, events)
    );
}

pub(super) async fn cancel_while_running_reaches_the_next_beat(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let quiet = bed.rows.beat(lease, &beat(HOUR)).await.expect("its own");
    assert_eq!(
        quiet,
        Pulse {
            cancel_requested: false
        }
    );
    let job = bed.rows.cancel_job(lease.job, "a test").await.expect("cancels");
    assert_eq!(job.state, JobState::Running);
    bed.rows.cancel_job(lease.job, "again").await.expect("cancels");
    let pulse = bed.rows.beat(lease, &beat(HOUR)).await.expect("its own");
    assert_eq!(
        pulse,
        Pulse {
            cancel_requested: true
        }
    );
    // A failure that could be retried is an end now.
    let state = bed.finish(lease, End::Retry(failure("io"), NOW)).await;
    assert_eq!(state.expect("its own"), JobState::Cancelled);
    assert_eq!(
        bed.messages(lease.job).await,
        [
            "job is queued",
            "job is running",
            "cancellation was requested",
            "job is cancelled"
        ]
    );
}

pub(super) async fn a_cancelled_job_whose_worker_dies_is_not_run_again(bed: Bed) {
    let lease = bed.claimed(NOW).await;
    bed.rows.cancel_job(lease.job, "a test").await.expect("cancels");
    let reaped = bed.rows.reap(Silent::Expired).await.expect("reaps");
    assert_eq!(reaped[0].state, JobState::Cancelled);
}

pub(super) async fn a_job_that_is_over_cannot_be_cancelled(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    bed.finish(lease, End::Succeeded(bed.publication(lease.job, 'b')))
        .await
        .expect("its own");
    let refused = bed.rows.cancel_job(lease.job, "too late").await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(bed.job(lease.job).await.cancel_requested_at, None);
}

pub(super) async fn a_finish_sent_twice_is_one_finish(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let ending = ending(End::Succeeded(bed.publication(lease.job, 'b')));
    for _ in 0..2 {
        let state = bed.rows.finish(lease, &ending).await;
        assert_eq!(state.expect("the second is an echo"), JobState::Succeeded);
    }
    assert_eq!(bed.job(lease.job).await.artifacts.len(), 1);
    assert_eq!(bed.events(lease.job).await.len(), 3);
}

pub(super) async fn nothing_changes_a_job_that_is_over(bed: Bed) {
    let lease = bed.claimed(NOW).await;
    bed.finish(lease, End::Failed(failure("bad_input")))
        .await
        .expect("its own");
    let before = format!("{:?}", bed.job(lease.job).await);
    assert_eq!(bed.rows.reap(Silent::Expired).await.expect("reaps"), []);
    assert_eq!(bed.rows.reap(Silent::Everyone).await.expect("reaps"), []);
    assert!(is_lost(&bed.rows.beat(lease, &beat(HOUR)).await));
    assert!(is_lost(&bed.finish(lease, End::Released).await));
    assert!(is_lost(
        &bed.finish(lease, End::Succeeded(bed.publication(lease.job, 'b')))
            .await
    ));
    assert!(bed.claim(HOUR).await.is_none());
    assert_eq!(format!("{:?}", bed.job(lease.job).await), before);
    // Not even by hand: the database itself refuses.
    let refused = super::dump::run(&bed, "UPDATE job SET state = 'queued', finished_at = NULL").await;
    assert!(refused.expect_err("terminal").to_string().contains("job is over"));
}

pub(super) async fn the_order_of_claims(bed: Bed) {
    let mut ids = Vec::new();
    for priority in [0, 5, 0, -5, 5] {
        let job = NewJob {
            priority,
            ..bed.new_job()
        };
        bed.send(&job).await.expect("enqueues");
        ids.push(job.id);
    }
    let mut order = Vec::new();
    while let Some(claim) = bed.claim(HOUR).await {
        order.push(claim.lease.job);
    }
    assert_eq!(order, [ids[1], ids[4], ids[0], ids[2], ids[3]]);
}

pub(super) async fn what_does_not_fit_is_left(bed: Bed) {
    let large = NewJob {
        need_memory_bytes: 1001,
        priority: 9,
        ..bed.new_job()
    };
    let newer = NewJob {
        techniques: vec!["affine".into(), "from_the_future".into()],
        priority: 8,
        ..bed.new_job()
    };
    bed.send(&large).await.expect("enqueues");
    bed.send(&newer).await.expect("enqueues");
    let small = bed.enqueue().await;
    assert_eq!(bed.claim(HOUR).await.expect("the small one").lease.job, small);
    assert!(bed.claim(HOUR).await.is_none());
    assert_eq!(bed.state(large.id).await, JobState::Queued);
    assert_eq!(bed.state(newer.id).await, JobState::Queued);
    let bigger = Node {
        memory_bytes: 1001,
        most_memory_bytes: 1001,
        techniques: vec!["from_the_future".into(), "affine".into()],
        ..node(HOUR)
    };
    for expected in [large.id, newer.id] {
        let claim = bed.rows.claim(&bigger).await.expect("claims");
        assert_eq!(claim.expect("fits there").lease.job, expected);
    }
}
