//! Moving a request's body into an upload: bounded memory, hash on the fly, writeback in the background.
//!
//! Owns: batching, the size limit, when to flush.
//! Must not know: what the bytes are; how the upload ends.
//! Invariant: never more than two batches of one body are in memory, and no byte past the limit is written.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::direct::BLOCK;
use super::pace::Pace;
use super::partial::Partial;
use crate::domain::ports::Bounds;

/// Bytes handed to the disk at once: enough that the hand-over costs nothing, few enough to stay in the cache.
const BATCH_BYTES: usize = 2 << 20;
/// Chunks in a batch, so that a client of tiny chunks cannot pin many buffers.
const BATCH_CHUNKS: usize = 1024;
/// Written bytes after which free space is looked at and, in a resumable upload, the durable offset moves on.
const FLUSH_BYTES: u64 = 256 << 20;

/// Why an intake ended before its body did.
#[derive(Debug)]
pub(super) enum Cut {
    /// The body broke off.
    Body(String),
    /// Nothing came for too long.
    Idle,
    /// Too little came for too long.
    Slow,
    /// More bytes than allowed.
    TooLarge,
    /// A newer request took over.
    Superseded,
    /// The disk refused.
    Disk(io::Error),
}

/// How writeback goes while bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Flushes also move the durable offset: the upload can be resumed.
    Resumable,
    /// Only the whole counts.
    Transient,
}

/// Takes the body in. The upload comes back (unless the disk failed) with whatever arrived, and why it stopped.
pub(super) async fn take<S>(
    partial: Partial,
    mut body: S,
    bounds: Bounds,
    keep: Keep,
    stop: &CancellationToken,
) -> (Option<Partial>, Result<(), Cut>)
where
    S: Stream<Item = Result<Bytes, io::Error>> + Unpin + Send,
{
    let mut writer = Writer::new(partial, keep, bounds.reserve_bytes);
    let mut batch = Batch::new(writer.begun_at);
    let mut total = writer.begun_at;
    let mut pace = Pace::new(&bounds);
    let end = loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break Err(Cut::Superseded),
            next = pace.next(&mut body) => next,
        };
        match next {
            Err(cut) => break Err(cut),
            Ok(None) => break Ok(()),
            Ok(Some(chunk)) => {
                total += chunk.len() as u64;
                if total > bounds.max_bytes {
                    break Err(Cut::TooLarge);
                }
                if batch.push(chunk)
                    && let Err(error) = writer.write(batch.take()).await
                {
                    writer.settle().await;
                    return (None, Err(Cut::Disk(error)));
                }
            }
        }
    };
    match writer.finish(batch.chunks).await {
        Ok(partial) => (Some(partial), end),
        Err(error) => (None, Err(Cut::Disk(error))),
    }
}

struct Batch {
    /// Offset of its first byte.
    begun_at: u64,
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn new(begun_at: u64) -> Self {
        Self {
            begun_at,
            chunks: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a chunk; says whether the batch is full.
    fn push(&mut self, chunk: Bytes) -> bool {
        self.bytes += chunk.len();
        self.chunks.push(chunk);
        self.bytes >= BATCH_BYTES || self.chunks.len() >= BATCH_CHUNKS
    }

    /// Empties it, up to the last whole block of the file; what is past that begins the next batch.
    fn take(&mut self) -> Vec<Bytes> {
        let past = (self.begun_at + self.bytes as u64) % BLOCK as u64;
        let carried = match self.chunks.last_mut() {
            Some(last) if past > 0 && last.len() as u64 > past => {
                vec![last.split_off(last.len() - past as usize)]
            }
            _ => Vec::new(),
        };
        let left = carried.iter().map(Bytes::len).sum::<usize>();
        self.begun_at += (self.bytes - left) as u64;
        self.bytes = left;
        std::mem::replace(&mut self.chunks, carried)
    }
}

/// Writes one batch while the next is gathered; flushes while batches are written.
struct Writer {
    begun_at: u64,
    flushed_to: u64,
    keep: Keep,
    reserve_bytes: u64,
    writing: Option<JoinHandle<io::Result<Partial>>>,
    flushing: Option<JoinHandle<io::Result<()>>>,
    idle: Option<Partial>,
}

impl Writer {
    fn new(partial: Partial, keep: Keep, reserve_bytes: u64) -> Self {
        let begun_at = partial.offset();
        Self {
            begun_at,
            flushed_to: begun_at,
            keep,
            reserve_bytes,
            writing: None,
            flushing: None,
            idle: Some(partial),
        }
    }

    async fn write(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut partial = self.ready().await?;
        if partial.offset() >= self.flushed_to + FLUSH_BYTES {
            self.flush(&partial).await?;
        }
        self.writing = Some(tokio::task::spawn_blocking(move || {
            partial.write(&chunks)?;
            Ok(partial)
        }));
        Ok(())
    }

    async fn finish(mut self, chunks: Vec<Bytes>) -> io::Result<Partial> {
        let written = if chunks.is_empty() {
            Ok(())
        } else {
            self.write(chunks).await
        };
        let partial = self.ready().await;
        let flushed = self.flushed().await;
        written.and(flushed).and(partial)
    }

    /// The upload, once the batch before is written.
    async fn ready(&mut self) -> io::Result<Partial> {
        if let Some(writing) = self.writing.take() {
            return writing.await.map_err(io::Error::other)?;
        }
        self.idle
            .take()
            .ok_or_else(|| io::Error::other("the upload is closed after an earlier error"))
    }

    /// Starts a flush in the background; waits for the one before, which bounds the dirty pages.
    async fn flush(&mut self, partial: &Partial) -> io::Result<()> {
        self.flushed().await?;
        self.flushed_to = partial.offset();
        let mark = partial.mark()?;
        let keep = self.keep;
        let reserve = self.reserve_bytes;
        self.flushing = Some(tokio::task::spawn_blocking(move || {
            mark.check_space(reserve)?;
            match keep {
                Keep::Resumable => mark.write(),
                Keep::Transient => Ok(()),
            }
        }));
        Ok(())
    }

    /// Waits for what is still running, so that nothing touches the upload afterwards.
    async fn settle(&mut self) {
        let written = self.ready().await.err();
        let flushed = self.flushed().await.err();
        tracing::debug!(?written, ?flushed, "upload ended by a disk error");
    }

    async fn flushed(&mut self) -> io::Result<()> {
        match self.flushing.take() {
            Some(flushing) => flushing.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}
