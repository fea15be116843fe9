//! Idempotency keys and equal work.

use super::bed::{Bed, HOUR};
use crate::domain::ports::{Enqueued, Room, Store as _, StoreError, Stores as _};
use crate::domain::queue::End;
use crate::domain::{JobState, NewJob};

fn keyed(bed: &Bed, key: &str, print: u8) -> NewJob {
    NewJob {
        idempotency: Some((key.into(), [print; 32])),
        ..bed.new_job()
    }
}

pub(super) async fn a_repeated_request_finds_the_first_job(bed: Bed) {
    let first = keyed(&bed, "k", 1);
    assert!(matches!(bed.send(&first).await, Ok(Enqueued::New(_))));
    let Ok(Enqueued::Replayed(job)) = bed.send(&keyed(&bed, "k", 1)).await else {
        panic!("not replayed")
    };
    assert_eq!(job.id, first.id);
    // Even when the queue is full, and when the job is over.
    let again = bed.rows.enqueue(&keyed(&bed, "k", 1), Room::of(0)).await;
    assert!(matches!(again, Ok(Enqueued::Replayed(_))), "{again:?}");
    bed.rows.cancel_job(first.id, "test").await.expect("cancels");
    let Ok(Enqueued::Replayed(job)) = bed.send(&keyed(&bed, "k", 1)).await else {
        panic!("not replayed")
    };
    assert_eq!(job.state, JobState::Cancelled);
}

pub(super) async fn a_key_with_another_request_is_refused(bed: Bed) {
    bed.send(&keyed(&bed, "k", 1)).await.expect("first");
    let second = keyed(&bed, "k", 2);
    let refused = bed.send(&second).await;
    assert!(matches!(refused, Err(StoreError::KeyMismatch)), "{refused:?}");
    assert!(matches!(bed.rows.job(second.id).await, Err(StoreError::NotFound)));
}

pub(super) async fn a_key_runs_out(bed: Bed) {
    bed.send(&keyed(&bed, "k", 1)).await.expect("first");
    bed.clock.advance(24 * HOUR);
    let later = bed.send(&keyed(&bed, "k", 2)).await;
    assert!(matches!(later, Ok(Enqueued::New(_))), "{later:?}");
}

pub(super) async fn a_refused_request_leaves_its_key_free(bed: Bed) {
    let full = bed.rows.enqueue(&keyed(&bed, "k", 1), Room::of(0)).await;
    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    let other = bed.send(&keyed(&bed, "k", 2)).await;
    assert!(matches!(other, Ok(Enqueued::New(_))), "{other:?}");
}

pub(super) async fn one_key_sent_at_once_makes_one_job(bed: Bed) {
    let sends = (0..8).map(|_| {
        let bed = bed.clone();
        tokio::spawn(async move { bed.send(&keyed(&bed, "k", 1)).await })
    });
    let mut new = 0;
    for answer in futures_util::future::join_all(sends).await {
        match answer.expect("no panic").expect("answers") {
            Enqueued::New(_) => new += 1,
            Enqueued::Replayed(_) => {}
            Enqueued::Duplicate(job) => panic!("{job:?}"),
        }
    }
    assert_eq!(new, 1);
    let counts = bed.rows.counts().await.expect("counts");
    assert_eq!(counts.jobs, [(JobState::Queued, 1)]);
}

pub(super) async fn equal_work_is_done_once(bed: Bed) {
    let work = || NewJob {
        dedupe_key: Some("model+recipe".into()),
        ..bed.new_job()
    };
    let first = work();
    bed.send(&first).await.expect("first");
    let second = NewJob {
        idempotency: Some(("k".into(), [1; 32])),
        ..work()
    };
    let Ok(Enqueued::Duplicate(job)) = bed.send(&second).await else {
        panic!("made twice")
    };
    assert_eq!(job.id, first.id);
    let Ok(Enqueued::Replayed(job)) = bed.send(&second).await else {
        panic!("the key was not kept")
    };
    assert_eq!(job.id, first.id);
    // A retry does not stand in its own way, and after the end the work may be asked for again.
    let lease = bed.claim(HOUR).await.expect("one").lease;
    let retry = End::Retry(super::bed::failure("io"), std::time::Duration::ZERO);
    bed.finish(lease, retry).await.expect("retries");
    let lease = bed.claim(HOUR).await.expect("again").lease;
    bed.finish(lease, End::Cancelled).await.expect("ends");
    assert!(matches!(bed.send(&work()).await, Ok(Enqueued::New(_))));
}
