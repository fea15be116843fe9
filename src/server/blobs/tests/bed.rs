//! A fresh store of either kind, and short words for what the laws do.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::s3_server::S3;
use crate::blobs::layout::hex;
use crate::blobs::local::LocalBlobs;
use crate::blobs::s3::S3Blobs;
use crate::domain::UploadId;
use crate::domain::ports::{Blobs, Body, Bounds, Uploads};

pub(in crate::blobs) const BOUNDS: Bounds = Bounds {
    max_bytes: 1 << 30,
    idle: Duration::from_secs(20),
    least_bytes_per_second: 500,
    reserve_bytes: 0,
    announced: None,
};

/// Both faces of a store.
pub(in crate::blobs) trait Store: Blobs + Uploads {}

impl<T: Blobs + Uploads> Store for T {}

/// The bytes of one store, wherever they are.
pub(in crate::blobs) struct Bed {
    /// Of the local store, and of what is the test's own.
    pub(in crate::blobs) folder: tempfile::TempDir,
    bucket: Option<S3>,
}

impl Bed {
    pub(in crate::blobs) fn local() -> Self {
        Self {
            folder: tempfile::tempdir().expect("temp folder"),
            bucket: None,
        }
    }

    pub(in crate::blobs) fn bucket() -> Self {
        // As the process does when it starts; another test may have been first.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        Self {
            folder: tempfile::tempdir().expect("temp folder"),
            bucket: Some(S3::start()),
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.bucket.is_none()
    }

    /// The store as a new process opens it, without a grace; in a bucket it may be on another machine.
    pub(super) fn open(&self) -> Arc<dyn Store> {
        self.open_with(Duration::ZERO)
    }

    pub(super) fn open_with(&self, grace: Duration) -> Arc<dyn Store> {
        if self.bucket.is_some() {
            let mut store = self.node();
            store.grace = grace;
            return Arc::new(store);
        }
        let mut store = LocalBlobs::open(&self.store_folder()).expect("opens");
        store.grace = grace;
        Arc::new(store)
    }

    /// A machine of its own, with an empty cache.
    pub(in crate::blobs) fn node(&self) -> S3Blobs {
        let cache = self.folder.path().join(Uuid::now_v7().simple().to_string());
        self.node_with(&cache, 1 << 30)
    }

    pub(in crate::blobs) fn node_with(&self, cache: &Path, bytes: u64) -> S3Blobs {
        let mut store = S3Blobs::open(&self.address(), cache, bytes, 0).expect("opens");
        store.grace = Duration::ZERO;
        store
    }

    pub(in crate::blobs) fn address(&self) -> crate::domain::bucket::Bucket {
        let server = self.bucket.as_ref().expect("a bucket");
        server.url("some/prefix").parse().expect("an address")
    }

    /// The folder of the local store, or that of the bucket's objects.
    pub(in crate::blobs) fn store_folder(&self) -> std::path::PathBuf {
        match &self.bucket {
            None => self.folder.path().join("store"),
            Some(server) => server.folder().join("some/prefix"),
        }
    }

    /// Blobs and uploads that are there, and bytes of which neither knows.
    pub(in crate::blobs) fn left(&self) -> usize {
        let folder = self.store_folder();
        if self.is_local() {
            return files(&folder).len();
        }
        let (mut spoken_of, mut owners) = (HashSet::new(), HashSet::new());
        let mut left = 0;
        for file in files(&folder) {
            let parts: Vec<&str> = file.split('/').collect();
            match parts[..] {
                ["labels", _, label] => {
                    left += 1;
                    spoken_of.insert(label.split_once('-').expect("bytes and id").1.to_owned());
                }
                ["uploads", id] => {
                    left += 1;
                    spoken_of.insert(id.to_owned());
                }
                ["data", id, _] => {
                    owners.insert(id.to_owned());
                }
                _ => assert_eq!(file, "clock"),
            }
        }
        left + owners.difference(&spoken_of).count()
    }
}

/// Files below a folder, relative to it.
pub(in crate::blobs) fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten() {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found
}

pub(in crate::blobs) fn id() -> UploadId {
    UploadId::from_uuid(Uuid::now_v7())
}

pub(in crate::blobs) fn body(parts: &[&[u8]]) -> Body {
    let parts: Vec<_> = parts.iter().map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    stream::iter(parts).boxed()
}

/// Bytes in chunks of a size.
pub(in crate::blobs) fn chunks(bytes: &Bytes, size: usize) -> Body {
    let chunks: Vec<_> = (0..bytes.len())
        .step_by(size)
        .map(|i| Ok(bytes.slice(i..bytes.len().min(i + size))))
        .collect();
    stream::iter(chunks).boxed()
}

/// So many bytes that look like nothing.
pub(in crate::blobs) fn noise(length: usize) -> Bytes {
    (0..length as u32).map(|i| (i ^ i >> 11) as u8).collect()
}

pub(super) fn broken(part: &'static [u8]) -> Body {
    stream::iter([Ok(Bytes::from_static(part)), Err(io::Error::other("gone"))]).boxed()
}

/// A part, and then silence for ever.
pub(in crate::blobs) fn silent(part: &'static [u8]) -> Body {
    stream::iter([Ok(Bytes::from_static(part))])
        .chain(stream::pending())
        .boxed()
}

/// Never silent, and never done.
pub(in crate::blobs) fn dribble() -> Body {
    stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Ok(Bytes::from_static(b"x")), ()))
    })
    .boxed()
}

pub(in crate::blobs) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(in crate::blobs) async fn content(store: &dyn Blobs, digest: &str, first: u64, length: u64) -> Vec<u8> {
    let chunks = store.read(digest, first, length).await.expect("opens");
    chunks.try_collect::<Vec<Bytes>>().await.expect("reads").concat()
}
