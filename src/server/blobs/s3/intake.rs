//! Moving a request's body into segments.
//!
//! Owns: the size limit, when a newer call ends this one.
//! Must not know: what becomes of the segments.
//! Invariant: no byte past the limit is written.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use super::pen::Pen;
use super::uploads::Standing;
use crate::blobs::intake::Cut;
use crate::blobs::local::refusal;
use crate::blobs::pace::Pace;
use crate::domain::ports::{BlobError, Bounds};

/// Refuses before the first byte what is too large.
pub(super) fn admit(offset: u64, bounds: &Bounds) -> Result<(), BlobError> {
    if offset.saturating_add(bounds.announced.unwrap_or(0)) > bounds.max_bytes {
        return Err(BlobError::TooLarge {
            max_bytes: bounds.max_bytes,
        });
    }
    Ok(())
}

/// Takes the body in and, in a resumable upload, notes each segment. Inside is how the body ended; an error outside is the
/// store's.
pub(super) async fn take<S>(
    pen: &mut Pen,
    mut body: S,
    bounds: Bounds,
    stop: &CancellationToken,
    mut noted: Option<&mut Standing>,
) -> Result<Result<(), BlobError>, BlobError>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin + Send,
{
    let mut pace = Pace::new(&bounds);
    let cut = loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break Cut::Superseded,
            next = pace.next(&mut body) => next,
        };
        match next {
            Err(cut) => break cut,
            Ok(None) => return Ok(Ok(())),
            Ok(Some(chunk)) => {
                if pen.offset + chunk.len() as u64 > bounds.max_bytes {
                    break Cut::TooLarge;
                }
                let is_durable = pen.write(&chunk).await?;
                if let Some(standing) = noted.as_mut().filter(|_| is_durable) {
                    standing.keep(&pen.segments, pen.sealed()).await?;
                }
            }
        }
    };
    Ok(Err(refusal(cut, &bounds)))
}
