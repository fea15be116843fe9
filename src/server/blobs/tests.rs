//! What the store promises, on a real folder.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::layout::hex;
use super::local::LocalBlobs;
use crate::domain::UploadId;
use crate::domain::ports::{BlobError, Blobs as _, Body, Bounds, Checksum, Uploads as _};

const BOUNDS: Bounds = Bounds {
    max_bytes: 1 << 30,
    idle: Duration::from_secs(20),
    reserve_bytes: 0,
    announced: None,
};

fn id() -> UploadId {
    UploadId::from_uuid(Uuid::now_v7())
}

fn body(parts: &[&[u8]]) -> Body {
    let parts: Vec<_> = parts.iter().map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    stream::iter(parts).boxed()
}

fn broken(part: &'static [u8]) -> Body {
    stream::iter([Ok(Bytes::from_static(part)), Err(io::Error::other("gone"))]).boxed()
}

/// A part, and then silence for ever.
fn silent(part: &'static [u8]) -> Body {
    stream::iter([Ok(Bytes::from_static(part))])
        .chain(stream::pending())
        .boxed()
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn store() -> (tempfile::TempDir, LocalBlobs) {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = LocalBlobs::open(dir.path()).expect("opens");
    store.grace = Duration::ZERO;
    (dir, store)
}

fn files(root: &Path) -> usize {
    std::fs::read_dir(root)
        .expect("readable")
        .map(|e| e.expect("entry").path())
        .map(|p| if p.is_dir() { files(&p) } else { 1 })
        .sum()
}

async fn content(store: &LocalBlobs, digest: &str, first: u64, length: u64) -> Vec<u8> {
    let chunks: Vec<Bytes> = store
        .read(digest, first, length)
        .await
        .expect("opens")
        .try_collect()
        .await
        .expect("reads");
    chunks.concat()
}

#[tokio::test]
async fn what_goes_in_comes_out_under_its_digest() {
    let (dir, store) = store();
    let stored = store
        .put(body(&[b"hello ", b"world"]), BOUNDS, None)
        .await
        .expect("stored");
    assert_eq!(
        (stored.digest.as_str(), stored.bytes),
        (digest(b"hello world").as_str(), 11)
    );
    assert_eq!(content(&store, &stored.digest, 0, 11).await, b"hello world");
    assert_eq!(content(&store, &stored.digest, 6, 3).await, b"wor");
    let again = store
        .put(body(&[b"hello world"]), BOUNDS, None)
        .await
        .expect("stored");
    assert_eq!(
        (&again.digest, again.origin),
        (&stored.digest, None),
        "it was there already"
    );
    assert_eq!(files(dir.path()), 1);
    store.discard(&stored.digest).await.expect("removed");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn nothing_stays_of_a_refused_put() {
    let (dir, store) = store();
    let cases: Vec<(&str, Result<_, BlobError>)> = vec![
        ("broken", store.put(broken(b"abc"), BOUNDS, None).await),
        (
            "large",
            store
                .put(
                    body(&[b"abcdef"]),
                    Bounds {
                        max_bytes: 5,
                        ..BOUNDS
                    },
                    None,
                )
                .await,
        ),
        (
            "announced",
            store
                .put(
                    body(&[b"abc"]),
                    Bounds {
                        announced: Some(1 << 40),
                        ..BOUNDS
                    },
                    None,
                )
                .await,
        ),
        ("digest", store.put(body(&[b"abc"]), BOUNDS, Some([7; 32])).await),
        (
            "idle",
            store
                .put(
                    silent(b"abc"),
                    Bounds {
                        idle: Duration::from_millis(20),
                        ..BOUNDS
                    },
                    None,
                )
                .await,
        ),
        (
            "full",
            store
                .put(
                    body(&[b"abc"]),
                    Bounds {
                        reserve_bytes: u64::MAX,
                        ..BOUNDS
                    },
                    None,
                )
                .await,
        ),
    ];
    for (name, result) in &cases {
        let error = result.as_ref().expect_err(name);
        let right = matches!(
            (*name, error),
            ("broken", BlobError::Truncated(_))
                | ("large" | "announced", BlobError::TooLarge { .. })
                | ("digest", BlobError::DigestMismatch { .. })
                | ("idle", BlobError::Idle(_))
                | ("full", BlobError::Full(_))
        );
        assert!(right, "{name}: {error:?}");
    }
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn a_piece_with_a_checksum_stays_as_a_whole_or_not_at_all() {
    let (_dir, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    let promise = |bytes: &[u8]| {
        [
            Checksum::Sha1(sha1::Sha1::digest(bytes).into()),
            Checksum::Sha256(Sha256::digest(bytes).into()),
        ]
    };
    let mut at = 0;
    for checksum in promise(b"hello ") {
        let wrong = store
            .append(u1, at, body(&[b"hallo "]), BOUNDS, Some(checksum))
            .await;
        assert!(matches!(wrong, Err(BlobError::ChecksumMismatch)));
        let cut = store
            .append(u1, at, broken(b"hello "), BOUNDS, Some(checksum))
            .await;
        assert!(matches!(cut, Err(BlobError::Truncated(_))));
        assert_eq!(store.offset(u1).await.expect("known"), at);
        let right = store
            .append(u1, at, body(&[b"hel", b"lo "]), BOUNDS, Some(checksum))
            .await;
        at += 6;
        assert_eq!(right.expect("appended"), at);
    }
    let stored = store.finish(u1, None).await.expect("published");
    assert_eq!(stored.digest, digest(b"hello hello "));
}

#[tokio::test]
async fn an_upload_goes_on_where_it_stopped_even_after_a_restart() {
    let (dir, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    assert_eq!(
        store
            .append(u1, 0, body(&[b"hello "]), BOUNDS, None)
            .await
            .expect("appended"),
        6
    );
    let error = store
        .append(u1, 6, broken(b"wo"), BOUNDS, None)
        .await
        .expect_err("body broke off");
    assert!(matches!(error, BlobError::Truncated(_)), "{error:?}");

    let store = LocalBlobs::open(dir.path()).expect("opens again");
    assert_eq!(store.offset(u1).await.expect("known"), 8);
    let error = store
        .append(u1, 6, body(&[b"world"]), BOUNDS, None)
        .await
        .expect_err("wrong offset");
    assert!(
        matches!(error, BlobError::OffsetMismatch { actual: 8 }),
        "{error:?}"
    );
    assert_eq!(
        store
            .append(u1, 8, body(&[b"rld"]), BOUNDS, None)
            .await
            .expect("appended"),
        11
    );
    let stored = store
        .finish(u1, Some(Sha256::digest(b"hello world").into()))
        .await
        .expect("finished");
    assert_eq!(stored.digest, digest(b"hello world"));
    assert_eq!(content(&store, &stored.digest, 0, 11).await, b"hello world");
    assert_eq!(files(dir.path()), 1);
    assert!(matches!(store.offset(u1).await, Err(BlobError::NotFound)));
}

#[tokio::test]
async fn bytes_past_the_durable_offset_are_dropped() {
    let (dir, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    store
        .append(u1, 0, body(&[b"abc"]), BOUNDS, None)
        .await
        .expect("appended");
    // A process that died after writing and before noting.
    let data = dir.path().join("uploads").join(u1.to_string()).join("data");
    std::fs::write(&data, b"abcTORN").expect("written");
    store
        .append(u1, 3, body(&[b"def"]), BOUNDS, None)
        .await
        .expect("appended");
    let stored = store.finish(u1, None).await.expect("finished");
    assert_eq!(stored.digest, digest(b"abcdef"));
}

#[tokio::test]
async fn a_newer_request_ends_a_hung_one() {
    let (_dir, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    let seen = Arc::new(AtomicBool::new(false));
    let flag = seen.clone();
    let hung = stream::iter([Ok(Bytes::from_static(b"abc"))])
        .chain(stream::poll_fn(move |_| {
            flag.store(true, Ordering::SeqCst);
            std::task::Poll::Pending
        }))
        .boxed();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.append(u1, 0, hung, BOUNDS, None).await }
    });
    while !seen.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.offset(u1).await.expect("answers at once"), 3);
    assert!(matches!(first.await.expect("ended"), Err(BlobError::Superseded)));
    store
        .append(u1, 3, body(&[b"def"]), BOUNDS, None)
        .await
        .expect("goes on");
    store.abandon(u1).await.expect("abandoned");
    assert!(matches!(store.finish(u1, None).await, Err(BlobError::NotFound)));
}

#[tokio::test]
async fn a_large_body_is_flushed_on_the_way() {
    let (dir, store) = store();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    // Chunks, and the two requests, end in the middle of disk blocks; most of it goes past the page cache.
    let whole: Bytes = (0..150u32 << 20).map(|i| (i ^ i >> 11) as u8).collect();
    let parts = |part: Bytes, size: usize| {
        let chunks: Vec<_> = (0..part.len())
            .step_by(size)
            .map(|i| Ok(part.slice(i..part.len().min(i + size))))
            .collect();
        stream::iter(chunks).boxed()
    };
    let half = (70 << 20) + 77;
    let end = store
        .append(u1, 0, parts(whole.slice(..half), 100_001), BOUNDS, None)
        .await;
    assert_eq!(end.expect("appended"), half as u64);
    let rest = parts(whole.slice(half..), (1 << 20) + 13);
    let end = store.append(u1, half as u64, rest, BOUNDS, None).await;
    assert_eq!(end.expect("appended"), 150 << 20);
    let stored = store.finish(u1, None).await.expect("finished");
    assert_eq!(stored.digest, digest(&whole));
    assert_eq!(files(dir.path()), 1);
    assert!(content(&store, &stored.digest, 0, 150 << 20).await == whole);
}

#[tokio::test]
async fn an_adopted_file_is_noticed_when_it_changes() {
    let (dir, store) = store();
    let outside = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(outside.path(), b"weights").expect("written");
    let stored = store.adopt(outside.path().to_owned()).await.expect("adopted");
    assert_eq!(stored.digest, digest(b"weights"));
    assert_eq!(store.path(&stored.digest).await.expect("known"), outside.path());
    assert_eq!(content(&store, &stored.digest, 0, 7).await, b"weights");
    std::fs::write(outside.path(), b"other weights").expect("written");
    assert!(matches!(
        store.path(&stored.digest).await,
        Err(BlobError::SourceChanged(_))
    ));
    store.discard(&stored.digest).await.expect("removed");
    assert!(outside.path().exists(), "only the note is ours to delete");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn a_file_made_here_is_moved_in() {
    let (dir, store) = store();
    let made = dir.path().join("made");
    std::fs::write(&made, b"artifact").expect("written");
    let stored = store.put_file(made.clone()).await.expect("moved");
    assert_eq!(content(&store, &stored.digest, 0, 8).await, b"artifact");
    assert!(!made.exists());
}

#[tokio::test]
async fn a_publication_is_taken_back_only_by_itself() {
    let (dir, store) = store();
    let first = store.put(body(&[b"x"]), BOUNDS, None).await.expect("stored");
    let second = store.put(body(&[b"x"]), BOUNDS, None).await.expect("stored");
    store
        .revoke(second)
        .await
        .expect("nothing to do: the blob was there before");
    store
        .revoke(first)
        .await
        .expect("nothing to do: it was published again since");
    assert_eq!(files(dir.path()), 1);
    let alone = store.put(body(&[b"y"]), BOUNDS, None).await.expect("stored");
    store.revoke(alone).await.expect("taken back");
    assert_eq!(files(dir.path()), 1);
}

#[tokio::test]
async fn a_blob_published_lately_is_spared() {
    let (dir, mut store) = store();
    store.grace = Duration::from_mins(1);
    let stored = store.put(body(&[b"x"]), BOUNDS, None).await.expect("stored");
    store.discard(&stored.digest).await.expect("spared");
    assert_eq!(store.settled().await.expect("listed"), Vec::<String>::new());
    store.grace = Duration::ZERO;
    assert_eq!(
        store.settled().await.expect("listed"),
        vec![stored.digest.clone()]
    );
    store.discard(&stored.digest).await.expect("removed");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn what_nobody_can_resume_goes_sooner() {
    let (dir, store) = store();
    let hours = |n| std::time::SystemTime::now() - Duration::from_hours(n);
    let left = |name: &str, age: u64| {
        let folder = dir.path().join("uploads").join(name);
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
