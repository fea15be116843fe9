//! Whole attempts on a real SQLite store and a real blob folder, with an engine that does what a test says.

mod away;
mod bells;
mod house;
mod matrix;
mod script;

use std::sync::atomic::Ordering;
use std::time::Duration;

use house::{House, OUTPUT};
use modelpress_engine::{Class, Error};
use script::Act;
use sqlx::Connection as _;

use super::tidy::Tidier;
use crate::child::Kept;
use crate::domain::ports::{Blobs as _, Store as _};
use crate::domain::queue::{Queue as _, Silent};
use crate::domain::{JobId, JobState, NewJob};

const SOON: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_becomes_an_artifact() {
    let house = House::new(1).await;
    let id = house.enqueue(&[Act::Make]).await;
    let job = house.ended(id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let artifact = house.rows.artifact(job.artifacts[0]).await.expect("published");
    assert_eq!(
        (artifact.job, artifact.model, artifact.format.as_str()),
        (id, house.model, "gguf")
    );
    let path = house.blobs.path(&artifact.files[0].digest).await.expect("stored");
    assert_eq!(std::fs::read(path).expect("reads"), OUTPUT);
    assert_eq!(
        house.rows.report(id).await.expect("published").as_str(),
        r#"{"made":true}"#
    );
    assert_eq!((job.progress.bytes_done, job.progress.bytes_total), (8, 8));
    assert_eq!(
        house.messages(id).await,
        [
            "job is queued",
            "job is running",
            "stage compress began",
            "a remark",
            "job is succeeded"
        ]
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_change_is_not_tried_again() {
    let house = House::new(1).await;
    let id = house
        .enqueue(&[Act::Fail(Error::bad_input("nan_weight", "tensor x holds a NaN"))])
        .await;
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
    let failure = job.failure.expect("failed");
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("nan_weight", "tensor x holds a NaN")
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_gate_fails_the_job_with_its_report() {
    let house = House::new(1).await;
    for keep in [false, true] {
        let id = house.enqueue(&[Act::MissGate { keep }]).await;
        let job = house.ended(id).await;
        assert_eq!((job.state, job.attempt), (JobState::Failed, 1), "not tried again");
        assert_eq!(job.artifacts.len(), usize::from(keep));
        let failure = job.failure.expect("failed");
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            ("quality_gate", "kl is 0.3, and 0.1 was allowed")
        );
        let report = house.rows.report(id).await.expect("published even so");
        assert_eq!(report.as_str(), r#"{"made":true}"#);
        let messages = house.messages(id).await;
        assert_eq!(messages.last().map(String::as_str), Some("job is failed"));
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_given_the_datasets_of_its_job() {
    let house = House::new(1).await;
    let (first, second) = (
        house.add_dataset("some text").await,
        house.add_dataset("other text").await,
    );
    house.add_dataset("not asked for").await;
    let id = house.enqueue_with(&[Act::Make], vec![first, second]).await;
    assert_eq!(house.ended(id).await.state, JobState::Succeeded);
    let mut given = house.script.datasets(id);
    given.sort();
    let mut asked = vec![
        (first.to_string(), "some text".to_owned()),
        (second.to_string(), "other text".to_owned()),
    ];
    asked.sort();
    assert_eq!(given, asked);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_pass_is_tried_again() {
    let house = House::new(1).await;
    let full = || {
        Act::Fail(Error::new(
            modelpress_engine::Class::Resources,
            "disk_full",
            "no space",
        ))
    };
    let id = house.enqueue(&[full(), Act::Make]).await;
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2));
    let id = house.enqueue(&[full(), full(), full()]).await;
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Failed, 3));
    assert_eq!(job.failure.expect("failed").code, "disk_full");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_tried_once_more_and_then_ours() {
    let house = House::new(1).await;
    let id = house.enqueue(&[Act::Panic, Act::Panic, Act::Make]).await;
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Failed, 2));
    let failure = job.failure.expect("failed");
    assert_eq!(failure.code, "internal");
    assert!(!failure.message.contains("on purpose"), "{}", failure.message);
    // The worker itself goes on.
    let next = house.enqueue(&[Act::Make]).await;
    assert_eq!(house.ended(next).await.state, JobState::Succeeded);
    house.close().await;
}

/// An outage of the store costs time, not attempts; a cancelled job does not wait for its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_waited_for() {
    let house = House::new(1).await;
    house.away.store(7, Ordering::SeqCst);
    let id = house.enqueue(&[Act::WhenTold]).await;
    house.script.begun(id).await;
    assert_eq!(
        house.away.swap(9, Ordering::SeqCst),
        0,
        "its files were waited for"
    );
    house.script.tell();
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
    assert_eq!(
        house.away.swap(usize::MAX, Ordering::SeqCst),
        0,
        "and what it made"
    );
    let id = house.enqueue(&[Act::Make]).await;
    while house.rows.job(id).await.expect("known").state != JobState::Running {
        tokio::task::yield_now().await;
    }
    house.rows.cancel_job(id, "a test").await.expect("cancels");
    house.wake.notify_waiters();
    assert_eq!(house.ended(id).await.state, JobState::Cancelled);
    house.close().await;
}

/// Workers of one process share its memory: what they plan for never sums to more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_beside_each_other_as_far_as_memory_goes() {
    let house = House::new(3).await;
    let mut jobs = Vec::new();
    for share in [2, 2, 2, 3] {
        let job = NewJob {
            need_memory_bytes: (1 << 30) / share,
            ..house.new_job(&[Act::Make], Vec::new())
        };
        house.send(&house.rows, &job).await;
        jobs.push(job.id);
    }
    house.wake.notify_waiters();
    for job in jobs {
        assert_eq!(house.ended(job).await.state, JobState::Succeeded);
    }
    assert!(house.script.most_at_once() <= 2, "two halves are the whole");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops() {
    let house = House::new(1).await;
    let id = house.enqueue(&[Act::UntilStopped]).await;
    house.script.begun(id).await;
    house.rows.cancel_job(id, "a test").await.expect("cancels");
    house.wake.notify_waiters();
    let job = house.ended(id).await;
    assert_eq!((job.state, job.artifacts.len()), (JobState::Cancelled, 0));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_kept_goes_when_it_is_over_whoever_ended_it() {
    let house = House::new(1).await;
    let running = house.enqueue(&[Act::UntilStopped]).await;
    house.script.begun(running).await;
    let (cancelled, in_use) = (
        house.enqueue(&[Act::Make]).await,
        house.enqueue(&[Act::Make]).await,
    );
    for id in [cancelled, in_use] {
        house.rows.cancel_job(id, "a test").await.expect("cancels");
    }
    let unknown = JobId::from_uuid(uuid::Uuid::now_v7());
    let kept = tempfile::tempdir().expect("temp folder");
    let folder = |id: JobId| kept.path().join(id.to_string());
    for id in [running, cancelled, in_use, unknown] {
        std::fs::create_dir(folder(id)).expect("makes");
        std::fs::write(folder(id).join("tensors"), "bytes").expect("writes");
    }
    let _at_work = Kept::lock(&folder(in_use)).expect("opens").expect("free");
    let tidier = Tidier {
        queue: house.rows.clone(),
        kept: kept.path().to_owned(),
        every: SOON,
    };
    tidier.tidy().await;
    let there = [running, cancelled, in_use, unknown].map(|id| folder(id).exists());
    assert_eq!(there, [true, false, true, false]);
    house.rows.cancel_job(running, "a test").await.expect("cancels");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_lost_its_lease_writes_nothing() {
    let house = House::new(1).await;
    let id = house.enqueue(&[Act::UntilStopped, Act::Make]).await;
    house.script.begun(id).await;
    house.rows.reap(Silent::Everyone).await.expect("reaps");
    house.wake.notify_waiters();
    let job = house.ended(id).await;
    assert_eq!(
        (job.state, job.attempt, job.artifacts.len()),
        (JobState::Succeeded, 2, 1)
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_gives_the_attempt_back() {
    let mut house = House::new(1).await;
    let id = house.enqueue(&[Act::UntilStopped, Act::Make]).await;
    house.script.begun(id).await;
    house.release(Duration::ZERO).await;
    let job = house.rows.job(id).await.expect("known");
    assert_eq!((job.state, job.attempt), (JobState::Queued, 0));
    house.hire();
    let job = house.ended(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_grace_lets_the_attempt_end() {
    let mut house = House::new(1).await;
    let id = house.enqueue(&[Act::WhenTold]).await;
    let waiting = house.enqueue(&[Act::Make]).await;
    house.script.begun(id).await;
    let script = house.script.clone();
    let tell = async {
        script.tell();
    };
    tokio::join!(house.release(SOON), tell);
    assert_eq!(
        house.rows.job(id).await.expect("known").state,
        JobState::Succeeded
    );
    assert_eq!(
        house.rows.job(waiting).await.expect("known").state,
        JobState::Queued
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_attempts_than_workers() {
    let house = House::new(2).await;
    let mut ids: Vec<JobId> = Vec::new();
    for _ in 0..12 {
        ids.push(house.enqueue(&[Act::Make]).await);
    }
    for id in ids {
        assert_eq!(house.ended(id).await.state, JobState::Succeeded);
    }
    assert!((1..=2).contains(&house.script.most_at_once()));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_bytes_are_gone_fails_with_a_code() {
    let house = House::new(0).await;
    let id = house.enqueue(&[Act::Make]).await;
    house.lose_the_model();
    let house = house.with_workers(1);
    let job = house.ended(id).await;
    assert_eq!(job.failure.expect("failed").code, "file_missing");
    house.close().await;
}

/// On a full disk there may be no room for the ending as long as scratch space takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch_space_goes_while_the_ending_cannot_be_written() {
    let house = House::new(1).await;
    let full = Error::new(Class::Resources, "disk_full", "no space left");
    let id = house.enqueue(&[Act::FailWhenTold(full)]).await;
    house.script.begun(id).await;
    assert_eq!(house.attempts_in_scratch(), 1);
    let file = house.folder.path().join("test.db");
    let mut other = sqlx::SqliteConnection::connect(&file.display().to_string())
        .await
        .expect("opens");
    let locked = sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await;
    locked.expect("nobody writes now");
    house.script.tell();
    let gone = async {
        while house.attempts_in_scratch() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(5), gone).await;
    drop(other);
    gone.expect("the folder is gone before the ending is written");
    house.ended(id).await;
    house.close().await;
}
