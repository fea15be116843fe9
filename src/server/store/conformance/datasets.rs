//! Datasets, and the jobs that read them.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::bed::{Bed, HOUR, digest};
use crate::domain::ports::{Store as _, StoreError, Stores as _};
use crate::domain::queue::End;
use crate::domain::{Clock as _, Dataset, DatasetId, FileRef, JobState, NewJob};

fn file(name: &str, letter: char) -> FileRef {
    FileRef {
        name: name.into(),
        digest: digest(letter),
        bytes: 3,
    }
}

async fn dataset(bed: &Bed, files: Vec<FileRef>) -> Dataset {
    let dataset = Dataset {
        id: DatasetId::from_uuid(Uuid::now_v7()),
        name: Some("tickets".into()),
        metadata: BTreeMap::from([("team".into(), "blue".into())]),
        digest: digest('f'),
        files,
        summary: json!({"format": "jsonl", "z": 1, "a": 2}),
        created_at: bed.clock.now(),
    };
    bed.rows.insert_dataset(&dataset).await.expect("new");
    dataset
}

pub(super) async fn a_dataset_is_what_was_recorded(bed: Bed) {
    let first = dataset(&bed, vec![file("a.jsonl", 'b'), file("b.jsonl", 'c')]).await;
    let second = dataset(&bed, vec![file("a.jsonl", 'b')]).await;
    let read = bed.rows.dataset(first.id).await.expect("known");
    assert_eq!(format!("{read:?}"), format!("{first:?}"));
    let listed = bed.rows.list_datasets(None, 10).await.expect("lists");
    assert_eq!(
        format!("{listed:?}"),
        format!("{:?}", [second.clone(), first.clone()])
    );
    let next = bed.rows.list_datasets(Some(second.id), 10).await.expect("lists");
    assert_eq!(next.iter().map(|row| row.id).collect::<Vec<_>>(), [first.id]);
    let blobs = [digest('b'), digest('c'), digest('d')];
    let orphans = bed.rows.unreferenced(&blobs).await.expect("answers");
    assert_eq!(orphans, [digest('d')], "the sweep leaves a dataset's bytes alone");
    let files = bed.rows.delete_dataset(first.id).await.expect("free");
    assert_eq!(files, first.files);
    let orphans = bed.rows.unreferenced(&blobs).await.expect("answers");
    assert_eq!(
        orphans,
        [digest('c'), digest('d')],
        "the other one has the same bytes"
    );
    for gone in [
        bed.rows.dataset(first.id).await.map(|_| ()),
        bed.rows.delete_dataset(first.id).await.map(|_| ()),
    ] {
        assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    }
}

pub(super) async fn a_dataset_in_use_stays(bed: Bed) {
    let used = dataset(&bed, vec![file("a.txt", 'b'), file("b.txt", 'c')]).await;
    let other = dataset(&bed, vec![file("a.txt", 'd')]).await;
    let job = NewJob {
        datasets: vec![used.id, other.id],
        ..bed.new_job()
    };
    bed.send(&job).await.expect("enqueues");
    let queued = bed.rows.delete_dataset(used.id).await;
    assert!(matches!(queued, Err(StoreError::InUse)), "{queued:?}");
    let claim = bed.claim(HOUR).await.expect("there is one");
    let given = [(used.id, used.files.clone()), (other.id, other.files.clone())];
    assert_eq!(claim.datasets, given);
    let running = bed.rows.delete_dataset(used.id).await;
    assert!(matches!(running, Err(StoreError::InUse)), "{running:?}");
    bed.finish(claim.lease, End::Cancelled).await.expect("its own");
    bed.rows.delete_dataset(used.id).await.expect("free");
    assert_eq!(bed.state(job.id).await, JobState::Cancelled, "the job stays");
    let late = NewJob {
        datasets: vec![used.id],
        ..bed.new_job()
    };
    let refused = bed.send(&late).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert!(bed.rows.job(late.id).await.is_err(), "nothing is left of it");
}
