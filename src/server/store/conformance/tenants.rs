//! Tenants see their own rows only, and keys end for good.

use time::Duration;
use uuid::Uuid;

use super::bed::{Bed, HOUR, digest};
use crate::domain::key::Secret;
use crate::domain::ports::{Enqueued, JobFilter, Room, Store as _, StoreError, Stores as _};
use crate::domain::queue::{Queue as _, Retention};
use crate::domain::{ApiKey, Clock as _, Entry, EntryId, KeyId, NewJob, Scope, Tenant, Upload, UploadId};

fn other() -> Tenant {
    "other".parse().expect("a name")
}

fn key(bed: &Bed, tenant: &Tenant) -> ApiKey {
    ApiKey {
        id: KeyId::from_uuid(Uuid::now_v7()),
        tenant: tenant.clone(),
        name: "pipeline".into(),
        scopes: vec![Scope::ReadJobs, Scope::WriteModels],
        secret_digest: Secret::of([3; 32]).digest(),
        created_at: bed.clock.now(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    }
}

macro_rules! not_found {
    ($call:expr) => {
        let found = $call.await;
        assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
    };
}

/// Whatever is asked by another tenant about a row, it is not there, and nothing happens to it.
pub(super) async fn nobody_sees_anothers_rows(bed: Bed) {
    let job = bed.new_job();
    assert!(matches!(bed.send(&job).await, Ok(Enqueued::New(_))));
    let upload = Upload {
        id: UploadId::from_uuid(Uuid::now_v7()),
        length: None,
        metadata: None,
        complete: None,
        created_at: bed.clock.now(),
        expires_at: bed.clock.now() + Duration::HOUR,
    };
    bed.rows.insert_upload(&upload).await.expect("inserts");
    let mine = key(&bed, &Tenant::default());
    bed.rows.insert_key(&mine).await.expect("inserts");

    let theirs = bed.rows.of(&other());
    not_found!(theirs.model(bed.model));
    not_found!(theirs.delete_model(bed.model));
    not_found!(theirs.job(job.id));
    not_found!(theirs.cancel_job(job.id, "mine now"));
    not_found!(theirs.report(job.id));
    not_found!(theirs.upload(upload.id));
    not_found!(theirs.complete_upload(upload.id, &digest('a'), 1));
    not_found!(theirs.key(mine.id));
    not_found!(theirs.revoke_key(mine.id, bed.clock.now()));
    let announced = theirs.announce_upload(upload.id, 5).await;
    assert!(announced.is_err(), "{announced:?}");
    theirs
        .delete_upload(upload.id)
        .await
        .expect("as if it were missing");
    not_found!(theirs.enqueue(&bed.new_job(), Room::of(10)));
    let filter = JobFilter {
        limit: 10,
        ..JobFilter::default()
    };
    assert!(theirs.list_jobs(&filter).await.expect("lists").is_empty());
    assert!(theirs.list_models(None, 10).await.expect("lists").is_empty());
    assert!(
        theirs
            .list_tensors(bed.model, 0, 10)
            .await
            .expect("lists")
            .is_empty()
    );
    assert!(theirs.list_events(job.id, 0, 10).await.expect("lists").is_empty());
    assert!(theirs.list_keys(None, 10).await.expect("lists").is_empty());

    assert!(
        bed.rows
            .upload(upload.id)
            .await
            .is_ok_and(|row| row.length.is_none())
    );
    assert!(
        bed.rows
            .key(mine.id)
            .await
            .is_ok_and(|row| row.revoked_at.is_none())
    );
    let seen = bed.rows.job(job.id).await.expect("is there");
    assert!(seen.cancel_requested_at.is_none() && !seen.state.is_terminal());
    bed.rows.drop_upload(upload.id).await.expect("the sweep may");
    not_found!(bed.rows.upload(upload.id));
}

/// A key comes back as it was recorded; it ends by being revoked, or replaced, and never comes back.
pub(super) async fn keys_end_for_good(bed: Bed) {
    let now = bed.clock.now();
    let theirs = bed.rows.of(&other());
    assert!(!bed.rows.has_good_key(now).await.expect("answers"));
    let first = key(&bed, &other());
    theirs.insert_key(&first).await.expect("inserts");
    assert!(bed.rows.has_good_key(now).await.expect("answers"));
    assert_eq!(bed.rows.key_of_any(first.id).await.expect("is there"), first);

    bed.rows.touch_key(first.id, now).await.expect("notes");
    let used = theirs.key(first.id).await.expect("is there");
    assert_eq!(used.last_used_at, Some(now));
    bed.rows
        .touch_key(first.id, now - Duration::HOUR)
        .await
        .expect("notes");
    assert_eq!(
        theirs.key(first.id).await.expect("is there"),
        used,
        "time does not go back"
    );

    let second = key(&bed, &other());
    let (soon, later) = (now + Duration::HOUR, now + Duration::DAY);
    theirs
        .replace_key(first.id, &second, soon)
        .await
        .expect("replaces");
    assert_eq!(
        theirs.key(first.id).await.expect("is there").expires_at,
        Some(soon)
    );
    let third = key(&bed, &other());
    theirs
        .replace_key(first.id, &third, later)
        .await
        .expect("replaces");
    assert_eq!(
        theirs.key(first.id).await.expect("is there").expires_at,
        Some(soon),
        "never later"
    );

    let revoked = theirs.revoke_key(second.id, soon).await.expect("revokes");
    assert_eq!(revoked.revoked_at, Some(soon));
    let again = theirs.revoke_key(second.id, later).await.expect("answers");
    assert_eq!(again.revoked_at, Some(soon));
    let fourth = key(&bed, &other());
    let refused = theirs.replace_key(second.id, &fourth, later).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    not_found!(theirs.key(fourth.id));
    let ids: Vec<KeyId> = theirs
        .list_keys(None, 10)
        .await
        .expect("lists")
        .iter()
        .map(|k| k.id)
        .collect();
    assert_eq!(ids, [third.id, second.id, first.id]);
    let page = theirs.list_keys(Some(second.id), 1).await.expect("lists");
    assert_eq!(page.len(), 1);
    theirs.revoke_key(third.id, soon).await.expect("revokes");
    assert!(!bed.rows.has_good_key(soon).await.expect("answers"));
}

/// The same word of two tenants is two words.
pub(super) async fn idempotency_keys_are_a_tenants_own(bed: Bed) {
    let theirs = bed.rows.of(&other());
    let model = bed.rows.model(bed.model).await.expect("is there");
    let model = crate::domain::Model {
        id: crate::domain::ModelId::from_uuid(Uuid::now_v7()),
        ..model
    };
    theirs.insert_model(&model).await.expect("inserts");
    let keyed = |model, print: u8| NewJob {
        model,
        idempotency: Some(("k".into(), [print; 32])),
        dedupe_key: Some("same".into()),
        ..bed.new_job()
    };
    let mine = bed.send(&keyed(bed.model, 1)).await;
    assert!(matches!(mine, Ok(Enqueued::New(_))), "{mine:?}");
    let new = theirs.enqueue(&keyed(model.id, 2), Room::of(10)).await;
    assert!(matches!(new, Ok(Enqueued::New(_))), "{new:?}");
    let again = theirs.enqueue(&keyed(model.id, 2), Room::of(10)).await;
    assert!(matches!(again, Ok(Enqueued::Replayed(_))), "{again:?}");
}

/// Entries come back as they were written, newest first, to their tenant only, until they are old.
pub(super) async fn the_audit_log_is_a_tenants_own_and_forgets(bed: Bed) {
    let theirs = bed.rows.of(&other());
    let entry = |key, object: Option<&str>| Entry {
        id: EntryId::from_uuid(Uuid::now_v7()),
        key,
        action: "POST /v1/jobs".into(),
        object: object.map(str::to_owned),
        request_id: "r-1".into(),
        client: object.map(|_| "192.0.2.7".to_owned()),
        at: bed.clock.now(),
    };
    let first = entry(None, None);
    theirs.add_entry(&first).await.expect("writes");
    bed.clock.advance(HOUR);
    let second = entry(Some(KeyId::from_uuid(Uuid::now_v7())), Some("job_x"));
    theirs.add_entry(&second).await.expect("writes");
    let list = theirs.list_entries(None, 10).await.expect("lists");
    assert_eq!(list, [second.clone(), first.clone()]);
    let page = theirs.list_entries(Some(second.id), 10).await.expect("lists");
    assert_eq!(page, [first]);
    assert!(bed.rows.list_entries(None, 10).await.expect("lists").is_empty());

    let keep = |age| Retention {
        audit: age,
        ..Retention::default()
    };
    bed.rows.prune(keep(None)).await.expect("prunes");
    assert_eq!(theirs.list_entries(None, 10).await.expect("lists").len(), 2);
    let dropped = bed.rows.prune(keep(Some(HOUR / 2))).await.expect("prunes");
    assert_eq!(dropped.audit_entries, 1);
    assert_eq!(theirs.list_entries(None, 10).await.expect("lists"), [second]);
}
