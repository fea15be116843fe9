//! The checksum of one piece of an upload, taken while it comes in.
//!
//! Owns: hashing on the way. Must not know: what happens to a piece that is not what it should be.
//! Invariant: what passes through is not changed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::domain::ports::{Body, Checksum};

/// A body, and what its checksum has come to.
pub(super) struct Checked {
    body: Body,
    promise: Option<(Checksum, Hasher)>,
}

enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Checked {
    pub(super) fn new(body: Body, promised: Option<Checksum>) -> Self {
        let promise = promised.map(|checksum| {
            let hasher = match checksum {
                Checksum::Sha1(_) => Hasher::Sha1(Sha1::new()),
                Checksum::Sha256(_) => Hasher::Sha256(Sha256::new()),
            };
            (checksum, hasher)
        });
        Self { body, promise }
    }

    /// True where what passed has the promised checksum, or none was promised.
    pub(super) fn holds(self) -> bool {
        match self.promise {
            None => true,
            Some((promised, Hasher::Sha1(hasher))) => promised == Checksum::Sha1(hasher.finalize().into()),
            Some((promised, Hasher::Sha256(hasher))) => {
                promised == Checksum::Sha256(hasher.finalize().into())
            }
        }
    }
}

impl Stream for Checked {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.body.poll_next_unpin(cx));
        if let (Some(Ok(chunk)), Some((_, hasher))) = (&next, &mut self.promise) {
            match hasher {
                Hasher::Sha1(hasher) => hasher.update(chunk),
                Hasher::Sha256(hasher) => hasher.update(chunk),
            }
        }
        Poll::Ready(next)
    }
}
