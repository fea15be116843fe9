//! `GET /v1/jobs/{id}/events`: a page of history, or a stream of it.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::{EventOut, stream};
use crate::domain::JobId;
use crate::http::auth::{Caller, May, ReadJobs};
use crate::http::headers::{accepted, optional_number};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// From where on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsIn {
    /// Events a page, 1 to 100 (20 unless given); the stream has no pages.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// Only events after this `seq`.
    pub after: Option<u64>,
}

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";

/// List or follow a job's events
///
/// With `Accept: text/event-stream` the events arrive as they happen: `id` is the `seq`, `event` the type
/// (`progress` ticks have no id), a comment every 15 seconds keeps the connection open, and the stream ends after
/// the event that ends the job. Reconnect with `Last-Event-ID`; after the end that answers 204. Otherwise a page
/// of JSON, oldest first, whose `next_cursor` is the last `seq`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs", operation_id = "listJobEvents",
    security(("key" = ["jobs:read"])),
    params(("id" = String, Path, description = "The job", example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11"), EventsIn,
           ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this `seq`")),
    responses((status = 200, description = "Events", content((PageOut<EventOut> = "application/json"), (String = "text/event-stream"))),
              (status = 204, description = "The job is over and there is nothing after this event")),
    extensions(("x-problem-codes" = json!(["query_invalid", "header_invalid", "not_found", "not_acceptable", "overloaded"])))
)]
pub async fn list_events(
    May(state, ..): May<ReadJobs>,
    Id(id): Id<JobId>,
    headers: HeaderMap,
    Params(asked): Params<EventsIn>,
) -> Result<Response, Problem> {
    let seen = optional_number(&headers, "last-event-id")?;
    let after = seen.or(asked.after).unwrap_or(0);
    if accepted(&headers, &[JSON, STREAM])? == JSON {
        return json(&state, id, after, asked.limit).await;
    }
    let job = state.store.job(id).await.map_err(about("job", &id))?;
    if after > 0 && job.state.is_terminal() && state.store.list_events(id, after, 1).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    stream::follow(state, id, after)
}

async fn json(state: &Caller, id: JobId, after: u64, limit: Option<u32>) -> Result<Response, Problem> {
    let limit = page::limit(limit)?;
    state.store.job(id).await.map_err(about("job", &id))?;
    let events = state.store.list_events(id, after, limit + 1).await?;
    Ok(Json(PageOut::of(
        &events,
        limit,
        |row| EventOut::from(row),
        |last| last.seq.to_string(),
    ))
    .into_response())
}
