//! `POST /v1/models/{id}/analysis`: a job that looks at a model's weights and changes nothing.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::response::Response;
use modelpress_engine::AnalysisPlan;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::domain::job::ANALYZE;
use crate::domain::{DatasetId, Document, JobId, Model, ModelId, NewJob};
use crate::http::auth::{Caller, May, WriteJobs};
use crate::http::engine::{AskedRecipe, check_metadata, plan_analysis, read_recipe};
use crate::http::headers::{idempotency_key, traceparent};
use crate::http::input::{Input, Perhaps};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;
use crate::http::routes::jobs::JobOut;
use crate::http::routes::jobs::create::{check_priority, enqueue};
use crate::http::routes::plans::{must_be_ready, planned};

/// How an analysis is queued. Everything may be left out, and the body with it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"priority": 10}))]
pub struct AnalysisIn {
    /// Up to 16 pairs of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// −100 to 100; higher goes first.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100, default = 0)]
    pub priority: i16,
    /// Answer 200 with the analysis of the same model bytes that is already waiting or running, if any.
    #[serde(default)]
    pub deduplicate: bool,
    /// A recipe with calibration, or a preset's name: what each scheme that its technique has would cost each tensor, by
    /// the gradients of the loss on the calibration data. `budget.candidates` names the schemes.
    #[schema(value_type = Option<Object>, example = json!("Q4_K_M"))]
    pub sensitivity: Option<Value>,
}

/// Analyze a model
///
/// A job like any other, without artifacts. Its report says of each tensor how its weights are distributed, what entropy
/// they have and how far they are from a Gaussian; of the model what a lossless code and the rate–distortion bound allow,
/// and which tensors are the same or nearly so; and of every preset how many bytes it would write, exactly, and, where it
/// needs no data, how near it comes to the bound.
#[utoipa::path(
    post, path = "/v1/models/{id}/analysis", tag = "models", operation_id = "analyzeModel",
    security(("key" = ["jobs:write"])),
    params(("id" = String, Path, description = "The model", example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11"),
           ("Idempotency-Key" = Option<String>, Header, description = "A key of your own, quoted or bare")),
    request_body = Option<AnalysisIn>,
    responses((status = 200, description = "The same work is waiting or running already (`deduplicate`)", body = JobOut),
              (status = 202, description = "The job waits", body = JobOut,
               headers(("Location" = String, description = "Where the job is"),
                       ("Idempotent-Replayed" = Option<String>, description = "`true` if an earlier request made it")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "header_invalid", "body_truncated", "too_large",
        "unsupported_media_type", "fields_invalid", "recipe_refused", "not_found", "not_ready", "conflict", "idempotency_running",
        "idempotency_mismatch", "quota_exceeded", "overloaded", "request_timeout"])))
)]
pub async fn analyze_model(
    May(state, ..): May<WriteJobs>,
    Id(id): Id<ModelId>,
    headers: HeaderMap,
    Perhaps(input): Perhaps<AnalysisIn>,
) -> Result<Response, Problem> {
    state.ask_for_a_job()?;
    let key = idempotency_key(&headers)?;
    let Input {
        value: asked,
        fingerprint,
    } = input;
    check_metadata(&asked.metadata)?;
    check_priority(asked.priority)?;
    let model = state.store.model(id).await.map_err(about("model", &id))?;
    must_be_ready(&model)?;
    let plan = plan_analysis(&state, &model.files).await?;
    let Weighed {
        spelled,
        techniques,
        datasets,
        work,
        plan,
    } = weighed(&state, &model, plan, asked.sensitivity).await?;
    // The model is in the path, and part of what was asked.
    let asked_of = Sha256::new_with_prefix(id.to_string()).chain_update(fingerprint);
    let same_work = model.digest.map(|digest| format!("{digest}:{work}"));
    let job = NewJob {
        id: JobId::from_uuid(uuid::Uuid::now_v7()),
        model: id,
        recipe: json!({"analysis": spelled}),
        need_memory_bytes: plan.peak_memory_bytes,
        techniques,
        plan: Document::of(&plan).map_err(Problem::internal)?,
        datasets,
        metadata: asked.metadata,
        priority: asked.priority,
        dedupe_key: same_work.filter(|_| asked.deduplicate),
        traceparent: traceparent(&headers),
        idempotency: key.map(|key| (key, asked_of.finalize().into())),
        created_at: state.clock.now(),
    };
    enqueue(&state, &job).await
}

/// What becomes of an analysis that weighs schemes too, or does not.
struct Weighed {
    /// As it was asked.
    spelled: Value,
    techniques: Vec<String>,
    datasets: Vec<DatasetId>,
    /// Names equal work.
    work: String,
    plan: AnalysisPlan,
}

async fn weighed(
    state: &Caller,
    model: &Model,
    plan: AnalysisPlan,
    sensitivity: Option<Value>,
) -> Result<Weighed, Problem> {
    let mut techniques = vec![ANALYZE.to_owned()];
    let Some(recipe) = sensitivity else {
        return Ok(Weighed {
            spelled: json!({}),
            techniques,
            datasets: Vec::new(),
            work: ANALYZE.to_owned(),
            plan,
        });
    };
    let asked = AskedRecipe::new(recipe.clone(), None)?.at("/sensitivity");
    let read = read_recipe(asked).await?.to_weigh();
    let planned = planned(state, model.clone(), read).await?;
    techniques.extend(planned.plan.stages.iter().map(|stage| stage.technique.clone()));
    Ok(Weighed {
        spelled: json!({"sensitivity": recipe}),
        techniques,
        datasets: planned.datasets,
        work: format!("{ANALYZE}:{}", planned.plan.recipe_hash),
        plan: plan.with_sensitivity(planned.plan),
    })
}
