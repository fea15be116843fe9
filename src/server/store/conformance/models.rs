//! Models and uploads.

use uuid::Uuid;

use super::bed::{Bed, HOUR, digest};
use crate::domain::ports::{Store as _, StoreError, Stores as _};
use crate::domain::queue::End;
use crate::domain::{Clock as _, FileRef, ModelId, ModelState, NewJob, Upload, UploadId};

fn file(name: &str, letter: char) -> FileRef {
    FileRef {
        name: name.into(),
        digest: digest(letter),
        bytes: 3,
    }
}

async fn draft(bed: &Bed) -> ModelId {
    let id = ModelId::from_uuid(Uuid::now_v7());
    bed.rows.insert_model(&bed.draft(id)).await.expect("new");
    id
}

pub(super) async fn a_draft_becomes_ready_once(bed: Bed) {
    let id = draft(&bed).await;
    let refused = bed
        .send(&NewJob {
            model: id,
            ..bed.new_job()
        })
        .await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(
        bed.rows.put_model_file(id, &file("b", 'b')).await.expect("draft"),
        None
    );
    bed.rows.put_model_file(id, &file("a", 'c')).await.expect("draft");
    let old = bed.rows.put_model_file(id, &file("b", 'd')).await.expect("draft");
    assert_eq!(old, Some(file("b", 'b')));
    let files = vec![file("b", 'd'), file("a", 'c')];
    let model = bed
        .rows
        .commit_model(id, &bed.commit(files))
        .await
        .expect("ready");
    assert_eq!(model.state, ModelState::Ready);
    assert_eq!(model.files, [file("a", 'c'), file("b", 'd')]);
    assert_eq!(
        model.summary.as_ref().map(ToString::to_string).as_deref(),
        Some(r#"{"format":"safetensors","z":1,"a":2}"#)
    );
    let read = bed.rows.model(id).await.expect("known");
    assert_eq!(format!("{read:?}"), format!("{model:?}"));
    let late = bed.rows.put_model_file(id, &file("c", 'e')).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
    let listed = bed.rows.list_models(None, 10).await.expect("lists");
    assert_eq!(listed.iter().map(|m| m.id).collect::<Vec<_>>(), [id, bed.model]);
    assert_eq!(listed[0].files.len(), 2);
    let next = bed.rows.list_models(Some(id), 10).await.expect("lists");
    assert_eq!(next.len(), 1);
}

pub(super) async fn files_that_changed_are_not_committed(bed: Bed) {
    let id = draft(&bed).await;
    bed.rows.put_model_file(id, &file("a", 'c')).await.expect("draft");
    let stale = bed.commit(vec![file("a", 'b')]);
    let refused = bed.rows.commit_model(id, &stale).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(bed.rows.model(id).await.expect("known").state, ModelState::Draft);
}

pub(super) async fn a_model_in_use_stays(bed: Bed) {
    let lease = bed.claimed(HOUR).await;
    let refused = bed.rows.delete_model(bed.model).await;
    assert!(matches!(refused, Err(StoreError::InUse)), "{refused:?}");
    bed.finish(lease, End::Cancelled).await.expect("its own");
    let files = bed.rows.delete_model(bed.model).await.expect("free");
    assert_eq!(files[0].digest, digest('a'));
    assert!(matches!(
        bed.rows.delete_model(bed.model).await,
        Err(StoreError::NotFound)
    ));
    assert!(matches!(
        bed.send(&bed.new_job()).await,
        Err(StoreError::NotFound)
    ));
    // The job remembers which model it was.
    assert_eq!(bed.job(lease.job).await.model, bed.model);
    let gone = [digest('a')];
    assert_eq!(bed.rows.unreferenced(&gone).await.expect("answers"), gone);
}

pub(super) async fn tensors_by_page(bed: Bed) {
    let page = bed.rows.list_tensors(bed.model, 1, 2).await.expect("lists");
    let names: Vec<&str> = page.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["layer.1.weight", "layer.2.weight"]);
    assert_eq!((page[1].shape.as_slice(), page[1].bytes), ([4, 2].as_slice(), 16));
    assert!(
        bed.rows
            .list_tensors(bed.model, 5, 2)
            .await
            .expect("lists")
            .is_empty()
    );
}

pub(super) async fn uploads(bed: Bed) {
    let upload = Upload {
        id: UploadId::from_uuid(Uuid::now_v7()),
        length: None,
        metadata: Some("filename d29ybGQ=".to_owned()),
        complete: None,
        created_at: bed.clock.now(),
        expires_at: bed.clock.now() + HOUR,
    };
    bed.rows.insert_upload(&upload).await.expect("new");
    let read = bed.rows.upload(upload.id).await.expect("known");
    assert_eq!(
        (read.complete, read.length, &read.metadata),
        (None, None, &upload.metadata)
    );
    bed.rows
        .announce_upload(upload.id, 3)
        .await
        .expect("unknown so far");
    let again = bed.rows.announce_upload(upload.id, 4).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))));
    let bytes = [digest('9')];
    assert_eq!(bed.rows.unreferenced(&bytes).await.expect("answers"), bytes);
    bed.rows
        .complete_upload(upload.id, &digest('9'), 3)
        .await
        .expect("known");
    assert!(bed.rows.unreferenced(&bytes).await.expect("answers").is_empty());
    let read = bed.rows.upload(upload.id).await.expect("known");
    assert_eq!(
        (read.length, read.complete, read.expires_at),
        (Some(3), Some((digest('9'), 3)), upload.expires_at)
    );
    let expired = bed.rows.expired_uploads(bed.clock.now(), 9).await.expect("lists");
    assert!(expired.is_empty());
    bed.clock.advance(2 * HOUR);
    let expired = bed.rows.expired_uploads(bed.clock.now(), 9).await.expect("lists");
    assert_eq!(expired, [upload.id]);
    bed.rows.delete_upload(upload.id).await.expect("there");
    bed.rows
        .delete_upload(upload.id)
        .await
        .expect("a missing one is fine");
    assert!(matches!(
        bed.rows.upload(upload.id).await,
        Err(StoreError::NotFound)
    ));
    let unknown = bed.rows.complete_upload(upload.id, &digest('9'), 3).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)));
}
