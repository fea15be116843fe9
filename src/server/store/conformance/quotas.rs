//! What one tenant may have.

use uuid::Uuid;

use super::bed::{Bed, HOUR, node};
use crate::domain::ports::{Enqueued, Room, Store, StoreError, Stores as _};
use crate::domain::queue::{End, Node, Queue as _};
use crate::domain::{Clock as _, Model, ModelId, NewJob, Tenant, Upload, UploadId};
use std::sync::Arc;

/// Another tenant with a model of its own.
async fn other(bed: &Bed) -> (Arc<dyn Store>, ModelId) {
    let theirs = bed.rows.of(&"other".parse::<Tenant>().expect("a name"));
    let model = Model {
        id: ModelId::from_uuid(Uuid::now_v7()),
        ..bed.rows.model(bed.model).await.expect("is there")
    };
    theirs.insert_model(&model).await.expect("inserts");
    (theirs, model.id)
}

fn busy(most: u64) -> Node {
    Node {
        most_of_tenant: Some(most),
        ..node(HOUR)
    }
}

/// A tenant's own bound turns its jobs away, nobody else's, and leaves their idempotency keys free.
pub(super) async fn a_tenants_queue_has_an_end(bed: Bed) {
    let (theirs, model) = other(&bed).await;
    let room = Room {
        all: 100,
        tenant: Some(1),
    };
    bed.rows.enqueue(&bed.new_job(), room).await.expect("room");
    let keyed = NewJob {
        idempotency: Some(("k".into(), [1; 32])),
        ..bed.new_job()
    };
    let full = bed.rows.enqueue(&keyed, room).await;
    assert!(matches!(full, Err(StoreError::TenantFull(1))), "{full:?}");
    let job = NewJob {
        model,
        ..bed.new_job()
    };
    theirs.enqueue(&job, room).await.expect("their own room");
    bed.claim(HOUR).await.expect("the first runs");
    let later = bed.rows.enqueue(&keyed, room).await;
    assert!(matches!(later, Ok(Enqueued::New(_))), "{later:?}");
}

/// What waits behind a tenant's running jobs lets others go first.
pub(super) async fn a_tenant_runs_so_many_at_a_time(bed: Bed) {
    let (theirs, model) = other(&bed).await;
    let (first, second) = (bed.enqueue().await, bed.enqueue().await);
    let job = NewJob {
        model,
        ..bed.new_job()
    };
    theirs.enqueue(&job, Room::of(9)).await.expect("enqueues");
    let claim = || async { bed.rows.claim(&busy(1)).await.expect("claims") };
    let running = claim().await.expect("the oldest").lease;
    assert_eq!(running.job, first);
    assert_eq!(claim().await.expect("the other tenant's").lease.job, job.id);
    assert!(claim().await.is_none());
    let publication = bed.publication(first, 'b');
    bed.finish(running, End::Succeeded(publication))
        .await
        .expect("its own");
    assert_eq!(claim().await.expect("now").lease.job, second);
}

/// Claims that come at once count each other.
pub(super) async fn a_tenant_never_runs_more_than_it_may(bed: Bed) {
    for _ in 0..12 {
        bed.enqueue().await;
    }
    let claims = (0..12).map(|_| {
        let bed = bed.clone();
        tokio::spawn(async move { bed.rows.claim(&busy(3)).await.expect("claims") })
    });
    let mut running = 0;
    for claim in futures_util::future::join_all(claims).await {
        running += usize::from(claim.expect("no panic").is_some());
    }
    assert_eq!(running, 3);
}

/// Files of models, datasets and artifacts, and uploads as long as they will be; nobody else's.
pub(super) async fn the_bytes_of_a_tenant(bed: Bed) {
    let bytes = || async { bed.rows.stored_bytes().await.expect("counts") };
    let (theirs, _) = other(&bed).await;
    let model = bed.rows.model(bed.model).await.expect("is there");
    let mine: u64 = model.files.iter().map(|file| file.bytes).sum();
    assert!(mine > 0 && bytes().await == mine);
    let upload = Upload {
        id: UploadId::from_uuid(Uuid::now_v7()),
        length: Some(1000),
        metadata: None,
        complete: None,
        created_at: bed.clock.now(),
        expires_at: bed.clock.now() + HOUR,
    };
    bed.rows.insert_upload(&upload).await.expect("inserts");
    assert_eq!(bytes().await, mine + 1000);
    let lease = bed.claimed(HOUR).await;
    let publication = bed.publication(lease.job, 'c');
    bed.finish(lease, End::Succeeded(publication))
        .await
        .expect("its own");
    assert_eq!(bytes().await, mine + 1000 + 5);
    bed.rows.delete_upload(upload.id).await.expect("deletes");
    assert_eq!(bytes().await, mine + 5);
    assert_eq!(
        theirs.stored_bytes().await.expect("counts"),
        mine,
        "the same files, theirs"
    );
}
