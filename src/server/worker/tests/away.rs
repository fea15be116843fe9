//! A blob store that is away for so many calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;

use crate::blobs::LocalBlobs;
use crate::domain::ports::{BlobError, BlobReply, Blobs, Body, Bounds, Hash, LocalFile, Stored};

/// The store of a house, seen over a network.
#[derive(Debug)]
pub(super) struct Distant {
    pub(super) blobs: Arc<LocalBlobs>,
    /// Calls that it will not answer.
    pub(super) away: Arc<AtomicUsize>,
}

impl Distant {
    fn ask<'a, T: Send + 'a>(&'a self, call: BlobReply<'a, T>) -> BlobReply<'a, T> {
        let is_away = self
            .away
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |calls| calls.checked_sub(1));
        match is_away {
            Ok(_) => async { Err(BlobError::Unavailable("no route".into())) }.boxed(),
            Err(_) => call,
        }
    }
}

impl Blobs for Distant {
    fn put(&self, body: Body, bounds: Bounds, expected: Option<Hash>) -> BlobReply<'_, Stored> {
        self.ask(self.blobs.put(body, bounds, expected))
    }

    fn put_file(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        self.ask(self.blobs.put_file(path))
    }

    fn adopt(&self, path: PathBuf) -> BlobReply<'_, Stored> {
        self.ask(self.blobs.adopt(path))
    }

    fn path<'a>(&'a self, digest: &'a str) -> BlobReply<'a, LocalFile> {
        self.ask(self.blobs.path(digest))
    }

    fn read<'a>(&'a self, digest: &'a str, first: u64, length: u64) -> BlobReply<'a, Body> {
        self.ask(self.blobs.read(digest, first, length))
    }

    fn revoke(&self, stored: Stored) -> BlobReply<'_, ()> {
        self.ask(self.blobs.revoke(stored))
    }

    fn discard<'a>(&'a self, digest: &'a str) -> BlobReply<'a, ()> {
        self.ask(self.blobs.discard(digest))
    }

    fn settled(&self) -> BlobReply<'_, Vec<String>> {
        self.ask(self.blobs.settled())
    }

    fn probe(&self) -> BlobReply<'_, ()> {
        self.ask(self.blobs.probe())
    }
}
