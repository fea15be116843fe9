//! `POST /v1/plans`: what a recipe would do, without doing it.
//!
//! Owns: the request that plans and jobs share.
//! Must not know: how planning works.
//! Invariant: a plan has no effect; a job with the same body gets the same plan.

use std::collections::BTreeMap;

use axum::Json;
use modelpress_engine::recipe::strict;
use modelpress_engine::{Plan, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::ports::StoreError;
use crate::domain::{DatasetId, Document, FileRef, JobId, Model, ModelId, ModelState, NewJob};
use crate::http::auth::{Caller, May, ReadModels};
use crate::http::engine::{AskedRecipe, ReadRecipe, plan_recipe, read_recipe};
use crate::http::input::Input;
use crate::http::problem::{self, Problem, shorten};
use crate::http::refuse::about;

/// What to plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11", "recipe": "Q4_K_M", "formats": ["gguf"]}))]
pub struct PlanIn {
    /// A model that is ready.
    pub model: String,
    /// The name of a preset (`GET /v1/presets`) or a recipe object.
    #[schema(value_type = Object)]
    #[serde(deserialize_with = "strict")]
    pub recipe: Value,
    /// Output formats (`GET /v1/formats`, those that are `writable`); the preset's own unless given.
    pub formats: Option<Vec<String>>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanOut {
    /// Always `plan`.
    #[schema(example = "plan")]
    pub object: &'static str,
    /// The model.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub model: String,
    /// Stages, per-tensor targets, predicted bytes and bits per weight, peak memory.
    #[schema(value_type = Object)]
    pub plan: Plan,
}

/// Plan a recipe
///
/// Stages, the target type of every tensor, predicted bytes and bits per weight, peak memory. A recipe that
/// cannot work is refused here with every reason and a JSON pointer to each; the same happens in `POST /v1/jobs`.
#[utoipa::path(
    post, path = "/v1/plans", tag = "plans", operation_id = "createPlan",
    security(("key" = ["models:read"])),
    request_body = PlanIn,
    responses((status = 200, description = "The plan", body = PlanOut)),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "too_large", "unsupported_media_type",
        "fields_invalid", "recipe_refused", "not_ready", "conflict", "request_timeout"])))
)]
pub async fn create_plan(
    May(state, ..): May<ReadModels>,
    input: Input<PlanIn>,
) -> Result<Json<PlanOut>, Problem> {
    let PlanIn {
        model,
        recipe,
        formats,
    } = input.value;
    let Planned { model, plan, .. } = plan(&state, &model, AskedRecipe::new(recipe, formats)?).await?;
    Ok(Json(PlanOut {
        object: "plan",
        model: model.id.to_string(),
        plan,
    }))
}

/// What was planned, and with what.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) model: Model,
    pub(super) plan: Plan,
    /// Each once.
    pub(super) datasets: Vec<DatasetId>,
}

impl Planned {
    /// The job that does it, named as equal to others that do the same; the request's own wishes are for the caller to add.
    pub(super) fn job(self, recipe: Value, created_at: OffsetDateTime) -> Result<NewJob, Problem> {
        let Self {
            model,
            plan,
            datasets,
        } = self;
        Ok(NewJob {
            id: JobId::from_uuid(uuid::Uuid::now_v7()),
            model: model.id,
            recipe,
            need_memory_bytes: plan.peak_memory_bytes,
            techniques: plan.stages.iter().map(|stage| stage.technique.clone()).collect(),
            plan: Document::of(&plan).map_err(Problem::internal)?,
            datasets,
            metadata: BTreeMap::new(),
            priority: 0,
            dedupe_key: model
                .digest
                .map(|digest| format!("{digest}:{}:{}", plan.recipe_hash, plan.engine_version)),
            traceparent: None,
            idempotency: None,
            created_at,
        })
    }
}

/// Finds the model and the datasets, and plans the recipe on them.
pub(super) async fn plan(state: &Caller, model: &str, asked: AskedRecipe) -> Result<Planned, Problem> {
    let model = ready_model(state, model).await?;
    let recipe = read_recipe(asked).await?;
    planned(state, model, recipe).await
}

/// Finds the datasets, and plans the recipe on the model.
pub(super) async fn planned(state: &Caller, model: Model, recipe: ReadRecipe) -> Result<Planned, Problem> {
    let datasets = named_datasets(state, &recipe).await?;
    let ids = datasets.keys().copied().collect();
    let named: Vec<_> = datasets
        .into_iter()
        .map(|(id, files)| (id.to_string(), files))
        .collect();
    let plan = plan_recipe(state, &model.files, &named, recipe).await?;
    Ok(Planned {
        model,
        plan,
        datasets: ids,
    })
}

async fn ready_model(state: &Caller, model: &str) -> Result<Model, Problem> {
    let unknown = |id: &str| {
        Problem::field(
            "/model",
            "unknown_model",
            format!("no model has the id {}", shorten(id)),
        )
    };
    let id: ModelId = model.parse().map_err(|_e| unknown(model))?;
    let found = state.store.model(id).await.map_err(about("model", &id));
    let model = found.map_err(|p| {
        if p.code() == problem::NOT_FOUND.code {
            unknown(model)
        } else {
            p
        }
    })?;
    must_be_ready(&model)?;
    Ok(model)
}

/// Nothing is done with a draft.
pub(super) fn must_be_ready(model: &Model) -> Result<(), Problem> {
    if model.state == ModelState::Draft {
        let detail = format!("model {} is a draft; commit it first", model.id);
        return Err(Problem::new(problem::NOT_READY, detail).with_code("model_draft"));
    }
    Ok(())
}

/// The datasets that a recipe names, by id: every one that is not there is refused where it is named.
async fn named_datasets(
    state: &Caller,
    recipe: &ReadRecipe,
) -> Result<BTreeMap<DatasetId, Vec<FileRef>>, Problem> {
    let (mut found, mut refusals) = (BTreeMap::new(), Vec::new());
    for (name, pointer) in recipe.datasets() {
        let dataset = match name.parse::<DatasetId>() {
            Ok(id) => state.store.dataset(id).await,
            Err(_no_id) => Err(StoreError::NotFound),
        };
        match dataset {
            Ok(dataset) => {
                found.insert(dataset.id, dataset.files);
            }
            Err(StoreError::NotFound) => {
                let detail = format!(
                    "no dataset has the id {}: POST it to /v1/datasets first, or use \"builtin\"",
                    shorten(name)
                );
                refusals.push(Refusal::new(pointer, "unknown_dataset", detail));
            }
            Err(other) => return Err(other.into()),
        }
    }
    if refusals.is_empty() {
        Ok(found)
    } else {
        Err(recipe.refused(refusals))
    }
}
