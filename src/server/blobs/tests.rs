//! What a store promises: one suite, run on a real folder and on an object store.

mod bed;
mod local;
#[path = "../../../tests/support/s3.rs"]
pub(super) mod s3_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use crate::domain::ports::{BlobError, Bounds, Checksum};

use bed::broken;
pub(super) use bed::{BOUNDS, Bed, body, chunks, content, digest, dribble, files, id, noise, silent};

macro_rules! suite {
    ($($law:ident)*) => {
        mod in_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(super::Bed::local()).await;
            })*
        }
        mod in_a_bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(super::Bed::bucket()).await;
            })*
        }
    };
}

suite! {
    what_goes_in_comes_out_under_its_digest
    nothing_stays_of_a_refused_put
    a_piece_with_a_checksum_stays_as_a_whole_or_not_at_all
    an_upload_goes_on_where_it_stopped_even_after_a_restart
    a_newer_request_ends_a_hung_one
    what_is_finished_stays_until_it_is_abandoned
    a_large_body_is_flushed_on_the_way
    a_file_made_here_is_moved_in
    a_publication_is_taken_back_only_by_itself
    a_blob_published_lately_is_spared
    what_is_no_digest_is_not_found
}

async fn what_goes_in_comes_out_under_its_digest(bed: Bed) {
    let store = bed.open();
    let stored = store
        .put(body(&[b"hello ", b"world"]), BOUNDS, None)
        .await
        .expect("stored");
    assert_eq!(
        (stored.digest.as_str(), stored.bytes),
        (digest(b"hello world").as_str(), 11)
    );
    assert_eq!(
        content(store.as_ref(), &stored.digest, 0, 11).await,
        b"hello world"
    );
    assert_eq!(content(store.as_ref(), &stored.digest, 6, 3).await, b"wor");
    let again = store
        .put(body(&[b"hello world"]), BOUNDS, None)
        .await
        .expect("stored");
    assert_eq!(again.digest, stored.digest);
    if bed.is_local() {
        assert_eq!(again.origin, None, "it was there already");
    } else {
        assert_eq!(bed.left(), 2, "each publication is its own");
        store.remove_stale(Duration::from_hours(1)).await.expect("sweeps");
    }
    assert_eq!(bed.left(), 1);
    assert_eq!(
        content(store.as_ref(), &stored.digest, 0, 11).await,
        b"hello world"
    );
    store.discard(&stored.digest).await.expect("removed");
    assert_eq!(bed.left(), 0);
}

async fn nothing_stays_of_a_refused_put(bed: Bed) {
    let store = bed.open();
    let mut cases: Vec<(&str, Result<_, BlobError>)> = vec![
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
    ];
    let slow = Bounds {
        idle: Duration::from_millis(100),
        ..BOUNDS
    };
    cases.push(("slow", store.put(dribble(), slow, None).await));
    if bed.is_local() {
        // What goes into a bucket needs no disk here.
        let bounds = Bounds {
            reserve_bytes: u64::MAX,
            ..BOUNDS
        };
        cases.push(("full", store.put(body(&[b"abc"]), bounds, None).await));
    }
    for (name, result) in &cases {
        let error = result.as_ref().expect_err(name);
        let right = matches!(
            (*name, error),
            ("broken", BlobError::Truncated(_))
                | ("large" | "announced", BlobError::TooLarge { .. })
                | ("digest", BlobError::DigestMismatch { .. })
                | ("idle", BlobError::Idle(_))
                | ("slow", BlobError::Slow { .. })
                | ("full", BlobError::Full(_))
        );
        assert!(right, "{name}: {error:?}");
    }
    assert_eq!(bed.left(), 0);
}

async fn a_piece_with_a_checksum_stays_as_a_whole_or_not_at_all(bed: Bed) {
    let store = bed.open();
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

async fn an_upload_goes_on_where_it_stopped_even_after_a_restart(bed: Bed) {
    let store = bed.open();
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

    let store = bed.open();
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
    assert_eq!(
        content(store.as_ref(), &stored.digest, 0, 11).await,
        b"hello world"
    );
    store.abandon(u1).await.expect("abandoned");
    assert_eq!(bed.left(), 1);
    assert!(matches!(store.offset(u1).await, Err(BlobError::NotFound)));
}

/// The row that is to speak of a blob may not come to be: then the blob is taken back, and the upload is as it was.
async fn what_is_finished_stays_until_it_is_abandoned(bed: Bed) {
    let store = bed.open();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    store
        .append(u1, 0, body(&[b"hello world"]), BOUNDS, None)
        .await
        .expect("appended");
    let first = store.finish(u1, None).await.expect("finished");
    let (hello, more) = (first.digest.clone(), body(&[b"!"]));
    let after = store.append(u1, 11, more, BOUNDS, None).await;
    assert!(matches!(after, Err(BlobError::TooLarge { .. })), "{after:?}");
    assert_eq!(
        content(store.as_ref(), &hello, 0, 99).await,
        b"hello world",
        "nothing follows what is published"
    );
    store.revoke(first).await.expect("taken back");
    assert!(store.path(&hello).await.is_err());
    assert_eq!(store.offset(u1).await.expect("stands"), 11);
    let again = store.finish(u1, None).await.expect("finished again");
    let once_more = store.finish(u1, None).await.expect("as often as one likes");
    assert_eq!((&again.digest, &once_more.digest), (&hello, &hello));
    store.abandon(u1).await.expect("abandoned");
    assert_eq!(content(store.as_ref(), &hello, 0, 99).await, b"hello world");
}

async fn a_newer_request_ends_a_hung_one(bed: Bed) {
    let store = bed.open();
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

async fn a_large_body_is_flushed_on_the_way(bed: Bed) {
    let store = bed.open();
    let u1 = id();
    store.begin(u1).await.expect("begun");
    // Chunks, and the two requests, end in the middle of disk blocks; most of it goes past the page cache.
    let (size, half) = if bed.is_local() {
        (150 << 20, (70 << 20) + 77)
    } else {
        (40 << 20, (17 << 20) + 77)
    };
    let whole = noise(size);
    let first = chunks(&whole.slice(..half), 100_001);
    let end = store.append(u1, 0, first, BOUNDS, None).await;
    assert_eq!(end.expect("appended"), half as u64);
    let rest = chunks(&whole.slice(half..), (1 << 20) + 13);
    let end = store.append(u1, half as u64, rest, BOUNDS, None).await;
    assert_eq!(end.expect("appended"), size as u64);
    let stored = store.finish(u1, None).await.expect("finished");
    assert_eq!(stored.digest, digest(&whole));
    store.abandon(u1).await.expect("abandoned");
    assert_eq!(bed.left(), 1);
    assert!(content(store.as_ref(), &stored.digest, 0, size as u64).await == whole);
}

async fn a_file_made_here_is_moved_in(bed: Bed) {
    let store = bed.open();
    let made = bed.folder.path().join("made");
    std::fs::write(&made, b"artifact").expect("written");
    let stored = store.put_file(made.clone()).await.expect("moved");
    assert_eq!(content(store.as_ref(), &stored.digest, 0, 8).await, b"artifact");
    assert!(!made.exists());
}

async fn a_publication_is_taken_back_only_by_itself(bed: Bed) {
    let store = bed.open();
    let put = || async { store.put(body(&[b"x"]), BOUNDS, None).await.expect("stored") };
    let (first, second) = (put().await, put().await);
    let digest = first.digest.clone();
    store.revoke(second).await.expect("the blob was there before");
    assert_eq!(content(store.as_ref(), &digest, 0, 1).await, b"x");
    put().await;
    store.revoke(first).await.expect("it was published again since");
    assert_eq!(content(store.as_ref(), &digest, 0, 1).await, b"x");
    assert_eq!(bed.left(), 1);
    let alone = store.put(body(&[b"y"]), BOUNDS, None).await.expect("stored");
    store.revoke(alone).await.expect("taken back");
    assert_eq!(bed.left(), 1);
}

async fn a_blob_published_lately_is_spared(bed: Bed) {
    let store = bed.open_with(Duration::from_mins(1));
    let stored = store.put(body(&[b"x"]), BOUNDS, None).await.expect("stored");
    store.discard(&stored.digest).await.expect("spared");
    assert_eq!(store.settled().await.expect("listed"), Vec::<String>::new());
    let store = bed.open();
    assert_eq!(
        store.settled().await.expect("listed"),
        vec![stored.digest.clone()]
    );
    store.discard(&stored.digest).await.expect("removed");
    assert_eq!(bed.left(), 0);
}

async fn what_is_no_digest_is_not_found(bed: Bed) {
    let store = bed.open();
    let traps = [
        String::new(),
        "..".into(),
        "a/../b".into(),
        "A".repeat(63),
        "0".repeat(64),
    ];
    for digest in traps {
        let path = store.path(&digest).await;
        assert!(matches!(path, Err(BlobError::NotFound)), "{digest}: {path:?}");
        let read = store.read(&digest, 0, 1).await.map(drop);
        assert!(matches!(read, Err(BlobError::NotFound)), "{digest}: {read:?}");
    }
}
