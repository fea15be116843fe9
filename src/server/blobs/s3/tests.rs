//! What only a bucket does: several machines with one store, blobs brought to each, leftovers of the dead.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::pen::PART;
use super::{S3Blobs, look};
use crate::blobs::tests::{BOUNDS, Bed, body, chunks, content, digest, files, id, noise, silent};
use crate::domain::ports::{BlobError, Blobs as _, Bounds, Checksum, Uploads as _};

async fn put(store: &S3Blobs, bytes: &[u8]) -> String {
    store
        .put(body(&[bytes]), BOUNDS, None)
        .await
        .expect("stored")
        .digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_at_another_machine() {
    let bed = Bed::bucket();
    let (one, two) = (bed.node(), bed.node());
    let whole = noise(PART + 1000);
    let upload = id();
    one.begin(upload).await.expect("begun");
    let first = chunks(&whole.slice(..1000), 300);
    one.append(upload, 0, first, BOUNDS, None)
        .await
        .expect("appended");
    assert_eq!(two.offset(upload).await.expect("found"), 1000);
    let rest = chunks(&whole.slice(1000..), 77_777);
    two.append(upload, 1000, rest, BOUNDS, None)
        .await
        .expect("appended");
    let finished = one.finish(upload, None).await.expect("finished");
    assert_eq!(finished.digest, digest(&whole));
    assert!(content(&two, &finished.digest, 0, u64::MAX).await == whole);
    two.abandon(upload).await.expect("abandoned");
    assert!(matches!(one.finish(upload, None).await, Err(BlobError::NotFound)));
    assert_eq!(bed.left(), 1);
}

/// The machine that a client has left does not change what the other one has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_request_at_another_machine_changes_nothing_any_more() {
    let bed = Bed::bucket();
    let (one, two) = (bed.node(), bed.node());
    let upload = id();
    one.begin(upload).await.expect("begun");
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let hung = silent(b"old").inspect(move |_| begun.try_send(()).unwrap_or(()));
    let bounds = Bounds {
        idle: Duration::from_secs(1),
        ..BOUNDS
    };
    let old = tokio::spawn(async move { one.append(upload, 0, hung.boxed(), bounds, None).await });
    has_begun.recv().await.expect("it has begun");
    two.append(upload, 0, body(&[b"new"]), BOUNDS, None)
        .await
        .expect("taken over");
    let refused = old.await.expect("no panic");
    assert!(matches!(refused, Err(BlobError::Superseded)), "{refused:?}");
    let finished = two.finish(upload, None).await.expect("finished");
    assert_eq!(finished.digest, digest(b"new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_brought_once_for_all_who_ask_and_checked() {
    let bed = Bed::bucket();
    let cache = bed.folder.path().join("cache");
    let store = bed.node_with(&cache, 1 << 30);
    let whole = noise(3 << 20);
    let digest = put(&bed.node(), &whole).await;
    let asked = (0..8).map(|_| store.path(&digest));
    for file in futures_util::future::join_all(asked).await {
        let file = file.expect("brought");
        assert!(std::fs::read(&*file).expect("there") == whole);
    }
    assert_eq!(files(&cache), std::slice::from_ref(&digest));

    // What another try left is gone on with, and begun again where it is not what it should be.
    let (whole_file, part) = (cache.join(&digest), cache.join(&digest).with_extension("part"));
    for left in [whole.slice(..1 << 20), noise(1 << 20).slice(7..), noise(4 << 20)] {
        std::fs::remove_file(&whole_file).expect("removed");
        std::fs::write(&part, &left).expect("written");
        let file = store.path(&digest).await.expect("brought");
        assert!(std::fs::read(&*file).expect("there") == whole);
        assert_eq!(files(&cache), std::slice::from_ref(&digest));
    }

    // Other bytes than those that were stored are no blob.
    std::fs::remove_file(&whole_file).expect("removed");
    tamper(&bed.store_folder().join("data"));
    let damaged = store.path(&digest).await;
    assert!(
        matches!(damaged, Err(BlobError::DigestMismatch { .. })),
        "{damaged:?}"
    );
    assert_eq!(files(&cache), Vec::<String>::new());
}

/// Changes the first byte of every file.
fn tamper(folder: &Path) {
    for file in files(folder) {
        let path = folder.join(file);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    }
}

/// What came through a machine need not be brought back to it; what came in part through another one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_through_a_machine_is_there_already() {
    let bed = Bed::bucket();
    let (here, there) = (bed.node(), bed.node());
    let whole = noise(PART + 1000);
    let upload = async |second: &S3Blobs, whole: &Bytes| {
        let upload = id();
        here.begin(upload).await.expect("begun");
        let first = chunks(&whole.slice(..1000), 300);
        here.append(upload, 0, first, BOUNDS, None)
            .await
            .expect("appended");
        let wrong = Some(Checksum::Sha256([7; 32]));
        let refused = here
            .append(upload, 1000, body(&[b"other bytes"]), BOUNDS, wrong)
            .await;
        assert!(matches!(refused, Err(BlobError::ChecksumMismatch)), "{refused:?}");
        let rest = chunks(&whole.slice(1000..), 77_777);
        second
            .append(upload, 1000, rest, BOUNDS, None)
            .await
            .expect("appended");
        here.finish(upload, None).await.expect("finished").digest
    };
    let digest = upload(&there, &whole).await;
    let file = here.path(&digest).await.expect("brought");
    assert!(std::fs::read(&*file).expect("there") == whole);

    let alone = bed.node();
    let small = put(&alone, b"small").await;
    std::fs::remove_dir_all(bed.store_folder().join("data")).expect("removed");
    assert_eq!(
        std::fs::read(&*alone.path(&small).await.expect("here")).expect("there"),
        b"small"
    );
    let other = noise(PART + 2000);
    let digest = upload(&here, &other).await;
    std::fs::remove_dir_all(bed.store_folder().join("data")).expect("removed");
    let file = here.path(&digest).await.expect("here");
    assert!(std::fs::read(&*file).expect("there") == other);
    assert!(alone.path(&digest).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_stays_in_a_full_cache() {
    let bed = Bed::bucket();
    let cache = bed.folder.path().join("cache");
    let store = bed.node_with(&cache, 250);
    let source = bed.node();
    let mut blobs = Vec::new();
    for n in 1..4 {
        blobs.push(put(&source, &[n; 100]).await);
    }
    let held = store.path(&blobs[0]).await.expect("brought");
    drop(store.path(&blobs[1]).await.expect("brought"));
    drop(store.path(&blobs[2]).await.expect("brought"));
    assert!(held.exists() && !cache.join(&blobs[1]).exists() && cache.join(&blobs[2]).exists());
    drop(store.path(&blobs[1]).await.expect("brought again"));
    assert!(held.exists() && !cache.join(&blobs[2]).exists());
    drop(held);
    drop(store.path(&blobs[2]).await.expect("brought again"));
    assert!(!cache.join(&blobs[0]).exists() && cache.join(&blobs[2]).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_file_is_copied_in() {
    let bed = Bed::bucket();
    let store = bed.node();
    let outside = bed.folder.path().join("weights");
    std::fs::write(&outside, b"weights").expect("written");
    let stored = store.adopt(outside.clone()).await.expect("adopted");
    std::fs::write(&outside, b"other").expect("written");
    assert_eq!(content(&store, &stored.digest, 0, 7).await, b"weights");
    assert!(outside.exists());
}

/// Segments of a process that died in the middle, and uploads that nobody goes on with, go; nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dead_left_is_swept() {
    let bed = Bed::bucket();
    let store = bed.node();
    let kept = put(&store, b"kept").await;
    let (stale, living) = (id(), id());
    for upload in [stale, living] {
        store.begin(upload).await.expect("begun");
        store
            .append(upload, 0, body(&[b"half"]), BOUNDS, None)
            .await
            .expect("appended");
    }
    let folder = bed.store_folder();
    for (name, hours) in [("dead", 7), ("slow", 1)] {
        std::fs::create_dir_all(folder.join("data").join(name)).expect("made");
        let segment = folder.join("data").join(name).join("0-x");
        std::fs::write(&segment, b"half").expect("written");
        age(&segment, hours);
    }
    let name = |upload: crate::domain::UploadId| upload.to_string().replace("upl_", "");
    age(&folder.join("uploads").join(name(stale)), 50);
    for segment in files(&folder.join("data").join(name(stale))) {
        age(&folder.join("data").join(name(stale)).join(segment), 50);
    }
    let removed = store
        .remove_stale(Duration::from_hours(48))
        .await
        .expect("sweeps");
    assert_eq!(removed, 3, "the upload, its bytes, the dead one's");
    let mut left: Vec<String> = std::fs::read_dir(folder.join("data"))
        .expect("lists")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| !files(path).is_empty())
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    left.retain(|owner| owner != "slow");
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(content(&store, &kept, 0, 4).await, b"kept");
    store
        .append(living, 4, body(&[b"whole"]), BOUNDS, None)
        .await
        .expect("goes on");
    store.finish(living, None).await.expect("finished");
}

fn age(path: &Path, hours: u64) {
    let file = std::fs::File::open(path).expect("opens");
    file.set_modified(SystemTime::now() - Duration::from_hours(hours))
        .expect("ages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_finds_what_is_lost() {
    let bed = Bed::bucket();
    let store = bed.node();
    let (there, lost) = (put(&store, b"there").await, "ab".repeat(32));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let wanted = [(there.clone(), 5), (lost.clone(), 9)];
    let found = look(&bed.address(), &wanted, now.as_millis() as i64)
        .await
        .expect("looks");
    assert!(found.ahead_millis.abs() < 60_000 && found.is_guarded, "{found:?}");
    assert_eq!(found.lost, std::slice::from_ref(&lost));
    for segment in files(&bed.store_folder().join("data")) {
        std::fs::remove_file(bed.store_folder().join("data").join(segment)).expect("removed");
    }
    let found = look(&bed.address(), &wanted, now.as_millis() as i64)
        .await
        .expect("looks");
    assert_eq!(found.lost, [there, lost]);
}
