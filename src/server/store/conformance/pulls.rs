//! Models that are brought from elsewhere: in one pair of hands, counted before they are there, ended once.

use std::time::Duration;

use uuid::Uuid;

use super::bed::{Bed, HOUR, digest, failure};
use crate::domain::model::ModelState;
use crate::domain::ports::{Store as _, StoreError, Stores as _};
use crate::domain::pull::{NewPull, PullClaim, PullFile, PullState, PullTicket};
use crate::domain::{Clock as _, FileRef, Model, ModelId, Pull, Pulls as _, Tenant, UploadId};

const TTL: Duration = HOUR;

async fn asked(bed: &Bed) -> ModelId {
    let model = bed.draft(ModelId::from_uuid(Uuid::now_v7()));
    let pull = NewPull {
        source: "hf://org/name@main".parse().expect("a source"),
        include: vec!["*.gguf".into()],
        token: Some("sealed".into()),
    };
    bed.rows.begin_pull(&model, &pull).await.expect("records");
    model.id
}

async fn claimed(bed: &Bed) -> PullClaim {
    bed.rows
        .claim_pull(TTL)
        .await
        .expect("claims")
        .expect("one is due")
}

async fn nothing_due(bed: &Bed) {
    let found = bed.rows.claim_pull(TTL).await.expect("claims");
    assert!(found.is_none(), "{found:?}");
}

async fn model(bed: &Bed, id: ModelId) -> Model {
    bed.rows.model(id).await.expect("is there")
}

async fn pull(bed: &Bed, id: ModelId) -> Pull {
    model(bed, id).await.pull.expect("has a pull")
}

async fn beat(bed: &Bed, ticket: PullTicket) -> bool {
    bed.rows.beat_pull(ticket, TTL, 1, 7).await.expect("answers")
}

fn file(name: &str, bytes: u64) -> PullFile {
    PullFile {
        name: name.into(),
        origin: format!("files/{name}"),
        bytes,
        sha256: Some(digest('c')),
        upload: UploadId::from_uuid(Uuid::now_v7()),
        done: false,
    }
}

async fn planned(bed: &Bed, claim: &PullClaim) -> Vec<PullFile> {
    let files = vec![file("a.gguf", 30), file("b.gguf", 12)];
    let until = bed.clock.now() + HOUR;
    assert!(
        bed.rows
            .plan_pull(claim, "abc", &files, until)
            .await
            .expect("plans")
    );
    files
}

pub(super) async fn a_pull_is_in_one_pair_of_hands(bed: Bed) {
    let id = asked(&bed).await;
    let first = claimed(&bed).await;
    assert_eq!(
        (first.ticket.model, first.tenant.clone()),
        (id, Tenant::default())
    );
    assert_eq!(
        (first.source.to_string(), first.include.clone()),
        ("hf://org/name@main".into(), vec!["*.gguf".into()])
    );
    assert_eq!(
        (first.token.as_deref(), first.revision.as_deref(), first.failures),
        (Some("sealed"), None, 0)
    );
    nothing_due(&bed).await;
    assert!(beat(&bed, first.ticket).await);
    assert_eq!(
        (pull(&bed, id).await.files_done, pull(&bed, id).await.bytes_done),
        (1, 7)
    );

    assert!(
        bed.rows
            .release_pull(first.ticket, HOUR, 3, Some("is busy"))
            .await
            .expect("gives back")
    );
    assert_eq!(pull(&bed, id).await.note.as_deref(), Some("is busy"));
    nothing_due(&bed).await;
    let other = asked(&bed).await;
    let dead = claimed(&bed).await;
    assert_eq!(dead.ticket.model, other);
    bed.rows.free_pulls().await.expect("frees");
    let second = claimed(&bed).await;
    assert_eq!(second.ticket.model, other);
    assert!(!beat(&bed, dead.ticket).await, "an old ticket is no good");
    let until = bed.clock.now() + HOUR;
    assert!(
        !bed.rows
            .plan_pull(&dead, "abc", &[], until)
            .await
            .expect("answers")
    );
    assert!(
        !bed.rows
            .release_pull(dead.ticket, HOUR, 1, None)
            .await
            .expect("answers")
    );
    assert!(
        bed.rows
            .fail_pull(&dead, &failure("late"))
            .await
            .expect("answers")
            .is_none()
    );

    assert!(
        bed.rows
            .release_pull(second.ticket, Duration::ZERO, 4, None)
            .await
            .expect("gives back")
    );
    let third = claimed(&bed).await;
    assert_eq!((third.failures, third.bytes_done), (4, 0));
    bed.rows.delete_model(other).await.expect("deletes");
    assert!(!beat(&bed, third.ticket).await, "it is gone");
    assert!(
        bed.rows
            .fail_pull(&third, &failure("late"))
            .await
            .expect("answers")
            .is_none()
    );
}

/// The bytes of a pull are the tenant's from the moment they are known, and nobody's when its model is deleted.
pub(super) async fn a_pull_counts_what_will_arrive(bed: Bed) {
    let before = bed.rows.stored_bytes().await.expect("counts");
    let id = asked(&bed).await;
    let claim = claimed(&bed).await;
    let files = planned(&bed, &claim).await;
    assert_eq!(bed.rows.stored_bytes().await.expect("counts"), before + 42);
    let seen = pull(&bed, id).await;
    assert_eq!(
        (seen.files, seen.bytes, seen.revision.as_deref()),
        (2, 42, Some("abc"))
    );
    assert_eq!(bed.rows.pull_files(id).await.expect("lists"), files);

    let upload = files[0].upload;
    bed.rows
        .complete_upload(upload, &digest('c'), 30)
        .await
        .expect("completes");
    let done = FileRef {
        name: "a.gguf".into(),
        digest: digest('c'),
        bytes: 30,
    };
    bed.rows.put_model_file(id, &done).await.expect("puts");
    bed.rows.delete_upload(upload).await.expect("deletes");
    let listed = bed.rows.pull_files(id).await.expect("lists");
    assert_eq!(
        listed.iter().map(|file| file.done).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(bed.rows.stored_bytes().await.expect("counts"), before + 42);
    bed.rows.delete_model(id).await.expect("deletes");
    assert_eq!(bed.rows.stored_bytes().await.expect("counts"), before);
    assert!(matches!(
        bed.rows.upload(files[1].upload).await,
        Err(StoreError::NotFound)
    ));
}

pub(super) async fn a_pull_ends_in_a_model_once(bed: Bed) {
    let id = asked(&bed).await;
    let claim = claimed(&bed).await;
    let done = FileRef {
        name: "a.gguf".into(),
        digest: digest('c'),
        bytes: 30,
    };
    bed.rows.put_model_file(id, &done).await.expect("puts");
    let ready = bed
        .rows
        .commit_model(id, &bed.commit(vec![done]))
        .await
        .expect("commits");
    assert_eq!((ready.state, ready.status()), (ModelState::Ready, "ready"));
    assert_eq!(pull(&bed, id).await.state, PullState::Done);
    assert!(!beat(&bed, claim.ticket).await);
    assert!(
        bed.rows
            .fail_pull(&claim, &failure("late"))
            .await
            .expect("answers")
            .is_none()
    );
    nothing_due(&bed).await;
    let listed = bed.rows.list_models(None, 1).await.expect("lists");
    assert_eq!((listed[0].id, listed[0].status()), (id, "ready"));
}

pub(super) async fn a_failed_pull_keeps_its_reason_only(bed: Bed) {
    let before = bed.rows.stored_bytes().await.expect("counts");
    let id = asked(&bed).await;
    let claim = claimed(&bed).await;
    let files = planned(&bed, &claim).await;
    let done = FileRef {
        name: "a.gguf".into(),
        digest: digest('c'),
        bytes: 30,
    };
    bed.rows.put_model_file(id, &done).await.expect("puts");
    let left = bed
        .rows
        .fail_pull(&claim, &failure("source_not_found"))
        .await
        .expect("ends");
    let left = left.expect("its own");
    assert_eq!(
        (left.uploads.len(), left.digests),
        (files.len(), vec![digest('c')])
    );
    let seen = model(&bed, id).await;
    assert_eq!((seen.status(), seen.files.len()), ("failed", 0));
    assert_eq!(
        seen.pull.and_then(|pull| pull.failure),
        Some(failure("source_not_found"))
    );
    assert_eq!(bed.rows.stored_bytes().await.expect("counts"), before);
    nothing_due(&bed).await;
    assert!(!beat(&bed, claim.ticket).await);
    let theirs = bed.rows.of(&"other".parse().expect("a name"));
    assert!(matches!(theirs.model(id).await, Err(StoreError::NotFound)));
    bed.rows.delete_model(id).await.expect("deletes");
}
