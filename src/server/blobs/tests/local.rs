//! What only a local folder does.

use std::time::Duration;

use super::{BOUNDS, Bed, body, content, digest, id};
use crate::blobs::local::LocalBlobs;
use crate::domain::ports::{BlobError, Blobs as _, Uploads as _};

fn store() -> (Bed, LocalBlobs) {
    let bed = Bed::local();
    let mut store = LocalBlobs::open(&bed.store_folder()).expect("opens");
    store.grace = Duration::ZERO;
    (bed, store)
}

#[tokio::test]
async fn bytes_past_the_durable_offset_are_dropped() {
    let (bed, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    store
        .append(u1, 0, body(&[b"abc"]), BOUNDS, None)
        .await
        .expect("appended");
    // A process that died after writing and before noting.
    let data = bed
        .store_folder()
        .join("uploads")
        .join(u1.to_string())
        .join("data");
    std::fs::write(&data, b"abcTORN").expect("written");
    store
        .append(u1, 3, body(&[b"def"]), BOUNDS, None)
        .await
        .expect("appended");
    let stored = store.finish(u1, None).await.expect("finished");
    assert_eq!(stored.digest, digest(b"abcdef"));
}

#[tokio::test]
async fn an_adopted_file_is_noticed_when_it_changes() {
    let (bed, store) = store();
    let outside = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(outside.path(), b"weights").expect("written");
    let stored = store.adopt(outside.path().to_owned()).await.expect("adopted");
    assert_eq!(stored.digest, digest(b"weights"));
    assert_eq!(&*store.path(&stored.digest).await.expect("known"), outside.path());
    assert_eq!(content(&store, &stored.digest, 0, 7).await, b"weights");
    std::fs::write(outside.path(), b"other weights").expect("written");
    assert!(matches!(
        store.path(&stored.digest).await,
        Err(BlobError::SourceChanged(_))
    ));
    store.discard(&stored.digest).await.expect("removed");
    assert!(outside.path().exists(), "only the note is ours to delete");
    assert_eq!(bed.left(), 0);
}

#[tokio::test]
async fn what_nobody_can_resume_goes_sooner() {
    let (bed, store) = store();
    let hours = |n| std::time::SystemTime::now() - Duration::from_hours(n);
    let left = |name: &str, age: u64| {
        let folder = bed.store_folder().join("uploads").join(name);
        std::fs::create_dir(&folder).expect("makes");
        std::fs::write(folder.join("data"), b"half").expect("writes");
        for path in [folder.join("data"), folder.clone()] {
            let file = std::fs::File::open(&path).expect("opens");
            file.set_modified(hours(age)).expect("ages");
        }
        folder
    };
    let (dead, alive) = (left("put-1", 7), left("put-2", 1));
    let (resumable, expired) = (left("upl_1", 7), left("upl_2", 50));
    let removed = store
        .remove_stale(Duration::from_hours(48))
        .await
        .expect("sweeps");
    assert_eq!(removed, 2);
    assert!(alive.exists() && resumable.exists() && !dead.exists() && !expired.exists());
}
