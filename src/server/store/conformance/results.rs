//! What an attempt leaves behind.

use serde_json::json;
use uuid::Uuid;

use super::bed::{Bed, HOUR, digest, ending, failure, is_lost};
use crate::domain::ports::{Store as _, StoreError, Stores as _};
use crate::domain::queue::{End, NewEvent, Queue as _, Retention};
use crate::domain::{FileRef, JobState, ModelId};

fn event(message: &str) -> NewEvent {
    NewEvent {
        kind: "message",
        level: "info",
        message: message.into(),
        data: json!({}),
    }
}

pub(super) async fn a_success_publishes_everything_at_once(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    assert!(matches!(
        bed.rows.report(lease.job).await,
        Err(StoreError::NotFound)
    ));
    let publication = bed.publication(lease.job, 'b');
    let artifact = publication.artifacts[0].clone();
    let mut end = ending(End::Succeeded(publication));
    end.events.push(event("verified"));
    let state = bed.rows.finish(lease, &end).await.expect("its own");
    assert_eq!(state, JobState::Succeeded);
    let job = bed.job(lease.job).await;
    assert_eq!(
        (job.state, job.artifacts),
        (JobState::Succeeded, vec![artifact.id])
    );
    assert!(job.finished_at.is_some());
    let read = bed.rows.artifact(artifact.id).await.expect("published");
    assert_eq!(format!("{read:?}"), format!("{artifact:?}"));
    let report = bed.rows.report(lease.job).await.expect("published");
    assert_eq!(report.as_str(), r#"{"z":1,"ratio":3.5}"#);
    assert_eq!(
        bed.messages(lease.job).await,
        ["job is queued", "job is running", "verified", "job is succeeded"]
    );
}

pub(super) async fn a_missed_gate_fails_and_publishes(bed: Bed) {
    let missed = failure("quality_gate");
    // Kept or not: the report is there, and the artifacts that were published with it.
    for letter in [Some('b'), None] {
        let lease = bed.claimed(HOUR).await;
        let mut publication = bed.publication(lease.job, 'b');
        publication.artifacts.retain(|_| letter.is_some());
        let kept: Vec<_> = publication.artifacts.iter().map(|artifact| artifact.id).collect();
        let end = End::GateMissed(missed.clone(), publication);
        let state = bed.finish(lease, end.clone()).await.expect("its own");
        assert_eq!(state, JobState::Failed);
        let job = bed.job(lease.job).await;
        assert_eq!((job.failure.as_ref(), &job.artifacts), (Some(&missed), &kept));
        let report = bed.rows.report(lease.job).await.expect("published");
        assert_eq!(report.as_str(), r#"{"z":1,"ratio":3.5}"#);
        assert_eq!(
            bed.messages(lease.job).await,
            ["job is queued", "job is running", "job is failed"]
        );
        assert!(is_lost(&bed.finish(lease, end).await), "over is over");
    }
    let orphans = bed.rows.unreferenced(&[digest('b')]).await.expect("answers");
    assert!(orphans.is_empty(), "what was kept is referred to");
}

pub(super) async fn events_have_no_gaps(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    // Writers at the same time: messages of the attempt, and a user who cancels.
    let writers = (0..8).map(|n| {
        let bed = bed.clone();
        tokio::spawn(async move {
            if n == 4 {
                bed.rows.cancel_job(lease.job, "a test").await.expect("cancels");
            }
            let pair = [event(&format!("{n} first")), event(&format!("{n} second"))];
            bed.rows.record(lease, &pair).await.expect("its own");
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.expect("no panic");
    }
    bed.finish(lease, End::Failed(failure("x")))
        .await
        .expect("its own");
    let events = bed.events(lease.job).await;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    let tail = bed.rows.list_events(lease.job, 18, 1).await.expect("lists");
    assert_eq!((tail.len(), tail[0].seq), (1, 19));
    // Events of one call stay together.
    for pair in events.iter().filter(|event| event.message.ends_with("first")) {
        let next = &events[pair.seq as usize];
        assert_eq!(next.message, pair.message.replace("first", "second"));
    }
}

pub(super) async fn announced_blobs_are_not_orphans(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let blobs = [digest('b'), digest('c')];
    assert_eq!(bed.rows.unreferenced(&blobs).await.expect("answers"), blobs);
    for _ in 0..2 {
        bed.rows.announce(lease, &blobs).await.expect("its own");
    }
    assert!(bed.rows.unreferenced(&blobs).await.expect("answers").is_empty());
    // Published ones stay referred to, the others become orphans.
    bed.finish(lease, End::Succeeded(bed.publication(lease.job, 'b')))
        .await
        .expect("its own");
    let orphans = bed.rows.unreferenced(&blobs).await.expect("answers");
    assert_eq!(orphans, [digest('c')]);
    assert!(
        bed.rows
            .unreferenced(&[digest('a')])
            .await
            .expect("answers")
            .is_empty()
    );
}

pub(super) async fn a_checkpoint_is_the_next_attempts_and_goes_with_the_end(bed: Bed) {
    let files = |letters: &str| -> Vec<FileRef> {
        let file = |letter: char| FileRef {
            name: format!("weights/{letter}"),
            digest: digest(letter),
            bytes: 3,
        };
        letters.chars().map(file).collect()
    };
    let blobs = ['b', 'c', 'd'].map(digest);
    let orphans = async || bed.rows.unreferenced(&blobs).await.expect("answers");
    let first = bed.claimed(HOUR).await;
    for letters in ["bc", "cd"] {
        bed.rows
            .checkpoint(first, &files(letters))
            .await
            .expect("its own");
    }
    assert_eq!(orphans().await, [digest('b')], "what a newer checkpoint lacks");
    bed.finish(first, End::Released).await.expect("its own");
    assert!(
        is_lost(&bed.rows.checkpoint(first, &files("b")).await),
        "over is over"
    );

    let claim = bed.claim(HOUR).await.expect("queued again");
    let checkpoint = claim.checkpoint.expect("was left");
    assert_eq!((checkpoint.fence, checkpoint.files), (first.fence, files("cd")));
    bed.finish(claim.lease, End::Failed(failure("x")))
        .await
        .expect("its own");
    assert_eq!(orphans().await, blobs, "nobody goes on with it");
    let fresh = bed.enqueue().await;
    let claim = bed.claim(HOUR).await.expect("waits");
    assert_eq!((claim.lease.job, claim.checkpoint), (fresh, None));
    bed.rows
        .checkpoint(claim.lease, &files("b"))
        .await
        .expect("its own");
    bed.rows.cancel_job(fresh, "a test").await.expect("cancels");
    bed.finish(claim.lease, End::Cancelled).await.expect("its own");
    assert_eq!(orphans().await, blobs, "nobody goes on with it");
}

pub(super) async fn old_jobs_go_with_everything(bed: Bed) {
    let done = bed.claimed(HOUR).await;
    let publication = bed.publication(done.job, 'b');
    let artifact = publication.artifacts[0].id;
    bed.finish(done, End::Succeeded(publication))
        .await
        .expect("its own");
    let failed = bed.claimed(HOUR).await;
    bed.finish(failed, End::Failed(failure("x")))
        .await
        .expect("its own");
    let running = bed.claimed(HOUR).await;
    bed.clock.advance(48 * HOUR);
    let retention = Retention {
        succeeded: Some(24 * HOUR),
        unsuccessful: Some(72 * HOUR),
        ..Retention::default()
    };
    assert_eq!(bed.rows.prune(retention).await.expect("prunes").jobs, 1);
    assert!(matches!(bed.rows.job(done.job).await, Err(StoreError::NotFound)));
    assert!(matches!(
        bed.rows.artifact(artifact).await,
        Err(StoreError::NotFound)
    ));
    assert!(bed.events(done.job).await.is_empty());
    let orphans = bed.rows.unreferenced(&[digest('b')]).await.expect("answers");
    assert_eq!(orphans, [digest('b')]);
    assert_eq!(bed.state(failed.job).await, JobState::Failed);
    bed.clock.advance(10_000 * HOUR);
    let for_ever = bed.rows.prune(Retention::default()).await;
    assert!(for_ever.expect("prunes").is_empty());
    assert_eq!(bed.rows.prune(retention).await.expect("prunes").jobs, 1);
    assert_eq!(bed.state(running.job).await, JobState::Running);
}

pub(super) async fn drafts_and_keys_of_long_ago_go(bed: Bed) {
    let draft = ModelId::from_uuid(Uuid::now_v7());
    bed.rows.insert_model(&bed.draft(draft)).await.expect("new");
    let file = FileRef {
        name: "model.safetensors".into(),
        digest: digest('d'),
        bytes: 1,
    };
    bed.rows.put_model_file(draft, &file).await.expect("a draft");
    let mut job = bed.new_job();
    job.idempotency = Some(("once".into(), [7; 32]));
    bed.send(&job).await.expect("enqueues");
    let retention = Retention {
        drafts: Some(48 * HOUR),
        ..Retention::default()
    };
    bed.clock.advance(25 * HOUR);
    let pruned = bed.rows.prune(retention).await.expect("prunes");
    assert_eq!(
        (pruned.drafts, pruned.idempotency_keys),
        (0, 1),
        "keys live a day"
    );
    bed.clock.advance(25 * HOUR);
    let pruned = bed.rows.prune(retention).await.expect("prunes");
    assert_eq!((pruned.drafts, pruned.idempotency_keys), (1, 0));
    assert!(matches!(bed.rows.model(draft).await, Err(StoreError::NotFound)));
    let orphans = bed.rows.unreferenced(&[digest('d')]).await.expect("answers");
    assert_eq!(orphans, [digest('d')], "its bytes are the sweep's");
    assert_eq!(
        bed.rows.model(bed.model).await.expect("ready ones stay").id,
        bed.model
    );
    assert!(bed.rows.prune(retention).await.expect("prunes").is_empty());
}
