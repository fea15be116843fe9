//! Following a job by server-sent events.
//!
//! Owns: replay, waiting, progress ticks, the end of the stream.
//! Must not know: who wakes it.
//! Invariant: events arrive in order without gaps, and the stream ends after the one that ends the job, or with the key.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use serde::Serialize;

use super::{EventOut, JobOut};
use crate::domain::ports::StoreError;
use crate::domain::{Job, JobId};
use crate::http::auth::Caller;
use crate::http::problem::{self, Problem};

/// How often the rows are read when nothing wakes the stream; the rows are the truth.
const POLL: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(2);
const BATCH: u32 = 100;

/// The stream of a job's events after a number.
pub(super) fn follow(state: Caller, id: JobId, after: u64) -> Result<Response, Problem> {
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        let detail = "too many event streams are open; poll the JSON list instead";
        return Err(Problem::new(problem::OVERLOADED, detail));
    };
    let open = Open::new(state.metrics.event_streams.clone(), permit);
    let keep_alive = KeepAlive::new().interval(PING).text("ping");
    let mut response = Sse::new(events(state, id, after, open))
        .keep_alive(keep_alive)
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// An open stream, for the cap and the metric.
struct Open(
    prometheus::IntGauge,
    #[expect(dead_code, reason = "held for its drop")] tokio::sync::OwnedSemaphorePermit,
);

impl Open {
    fn new(gauge: prometheus::IntGauge, permit: tokio::sync::OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self(gauge, permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn events(state: Caller, id: JobId, after: u64, open: Open) -> impl Stream<Item = Result<Sent, Infallible>> {
    async_stream::stream! {
        let _open = open;
        let mut seen = after;
        let mut ticked = None;
        yield Ok(Sent::default().retry(RETRY).comment("hello"));
        loop {
            // Listen first, then look: a wake between the two is not lost.
            let woken = state.wake.notified();
            if !state.is_still_let_in().await {
                break;
            }
            let (job, batch) = match look(&state, id, seen).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, job = %id, "event stream ended early");
                    break;
                }
            };
            for event in &batch {
                seen = event.seq;
                yield Ok(sent(&event.kind, Some(event.seq), event));
            }
            if batch.len() == BATCH as usize {
                continue;
            }
            if job.state.is_terminal() {
                break;
            }
            if ticked.as_ref() != Some(&job.progress) {
                yield Ok(sent("progress", None, &JobOut::new(&job, &state)));
                ticked = Some(job.progress);
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(POLL) => {}
                () = state.drain.cancelled() => break,
            }
        }
    }
}

/// The job before its events: if it is over by then, its last event is among them.
async fn look(state: &Caller, id: JobId, seen: u64) -> Result<(Job, Vec<EventOut>), StoreError> {
    let job = state.store.job(id).await?;
    let events = state.store.list_events(id, seen, BATCH).await?;
    Ok((job, events.iter().map(EventOut::from).collect()))
}

fn sent(kind: &str, seq: Option<u64>, data: &impl Serialize) -> Sent {
    // Plain data; JSON text holds no line break, which is all an event stream forbids.
    let data = serde_json::to_string(data).unwrap_or_default();
    let event = Sent::default().event(kind).data(data);
    match seq {
        Some(seq) => event.id(seq.to_string()),
        None => event,
    }
}
