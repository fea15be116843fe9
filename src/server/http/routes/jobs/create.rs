//! `POST /v1/jobs`.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use modelpress_engine::recipe::strict;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::JobOut;
use crate::domain::NewJob;
use crate::domain::ports::{Enqueued, Room};
use crate::http::auth::{Caller, May, WriteJobs};
use crate::http::engine::{AskedRecipe, check_metadata};
use crate::http::headers::{idempotency_key, traceparent};
use crate::http::input::Input;
use crate::http::problem::Problem;
use crate::http::routes::plans;

const PRIORITIES: std::ops::RangeInclusive<i16> = -100..=100;

/// What to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11", "recipe": "Q4_K_M", "formats": ["gguf"]}))]
pub struct JobIn {
    /// A model that is ready.
    pub model: String,
    /// The name of a preset (`GET /v1/presets`) or a recipe object.
    #[schema(value_type = Object)]
    #[serde(deserialize_with = "strict")]
    pub recipe: Value,
    /// Output formats (`GET /v1/formats`, those that are `writable`); the preset's own unless given.
    pub formats: Option<Vec<String>>,
    /// Up to 16 pairs of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// −100 to 100; higher goes first.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100, default = 0)]
    pub priority: i16,
    /// Answer 200 with the job that is already waiting or running for the same model bytes and recipe, if any.
    #[serde(default)]
    pub deduplicate: bool,
}

/// Create a job
///
/// The recipe is planned first: one that cannot work is refused here, never after the job started. With an
/// `Idempotency-Key` a repeated request answers the job that the first one made (kept 24 hours).
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", operation_id = "createJob",
    security(("key" = ["jobs:write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A key of your own, quoted or bare")),
    request_body = JobIn,
    responses((status = 200, description = "The same work is waiting or running already (`deduplicate`)", body = JobOut),
              (status = 202, description = "The job waits", body = JobOut,
               headers(("Location" = String, description = "Where the job is"),
                       ("Idempotent-Replayed" = Option<String>, description = "`true` if an earlier request made it")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "header_invalid", "body_truncated", "too_large",
        "unsupported_media_type", "fields_invalid", "recipe_refused", "not_ready", "conflict", "idempotency_running",
        "idempotency_mismatch", "quota_exceeded", "overloaded", "request_timeout"])))
)]
pub async fn create_job(
    May(state, ..): May<WriteJobs>,
    headers: HeaderMap,
    input: Input<JobIn>,
) -> Result<Response, Problem> {
    state.ask_for_a_job()?;
    let key = idempotency_key(&headers)?;
    let job = new_job(&state, key, traceparent(&headers), input).await?;
    enqueue(&state, &job).await
}

/// Queues a job and answers with it.
pub(in crate::http::routes) async fn enqueue(state: &Caller, job: &NewJob) -> Result<Response, Problem> {
    let (status, replayed, job) = match state.store.enqueue(job, room(state)).await? {
        Enqueued::New(job) => (StatusCode::ACCEPTED, false, job),
        Enqueued::Replayed(job) => (StatusCode::ACCEPTED, true, job),
        Enqueued::Duplicate(job) => (StatusCode::OK, false, job),
    };
    state.wake.notify_waiters();
    let location = format!("/v1/jobs/{}", job.id);
    Ok(made(status, location, replayed, JobOut::new(&job, state)))
}

/// How many jobs may wait.
pub(in crate::http::routes) fn room(state: &Caller) -> Room {
    Room {
        all: state.limits.queued_jobs,
        tenant: state.limits.tenant.queued_jobs,
    }
}

/// What was made, where it is, and whether an earlier request made it.
pub(in crate::http::routes) fn made(
    status: StatusCode,
    location: String,
    replayed: bool,
    body: impl Serialize,
) -> Response {
    let mut response = (status, [(header::LOCATION, location)], Json(body)).into_response();
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("true"));
    }
    response
}

async fn new_job(
    state: &Caller,
    key: Option<String>,
    traceparent: Option<String>,
    input: Input<JobIn>,
) -> Result<NewJob, Problem> {
    let Input {
        value: asked,
        fingerprint,
    } = input;
    check_metadata(&asked.metadata)?;
    check_priority(asked.priority)?;
    let recipe = AskedRecipe::new(asked.recipe, asked.formats)?;
    let spelled = recipe.value.clone();
    let planned = plans::plan(state, &asked.model, recipe).await?;
    let job = planned.job(spelled, state.clock.now())?;
    Ok(NewJob {
        metadata: asked.metadata,
        priority: asked.priority,
        dedupe_key: job.dedupe_key.filter(|_| asked.deduplicate),
        traceparent,
        idempotency: key.map(|key| (key, fingerprint)),
        ..job
    })
}

/// Checks the field `priority`.
pub(in crate::http::routes) fn check_priority(priority: i16) -> Result<(), Problem> {
    if PRIORITIES.contains(&priority) {
        return Ok(());
    }
    let detail = "priority is -100 to 100";
    Err(Problem::field("/priority", "out_of_range", detail))
}
