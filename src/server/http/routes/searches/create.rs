//! `POST /v1/searches`.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use modelpress_engine::recipe::strict;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::SearchOut;
use super::asked::{self, Asked, Shared};
use crate::domain::job::Failure;
use crate::domain::ports::Sought;
use crate::domain::search::{NewSearch, Point};
use crate::domain::{NewJob, Search, SearchId};
use crate::http::auth::{Caller, May, WriteJobs};
use crate::http::engine::{AskedRecipe, check_metadata};
use crate::http::headers::{idempotency_key, traceparent};
use crate::http::input::Input;
use crate::http::problem::{self, Problem};
use crate::http::routes::jobs::create::{check_priority, made, room};
use crate::http::routes::plans;

/// Recipes that are planned at a time.
const AT_ONCE: usize = 4;

/// What to search.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11", "recipes": ["Q8_0", "Q5_K_M"],
    "grid": {"recipe": "Q4_K_M", "vary": {"/budget/target_bits_per_weight": [4.5, 5.5]}}}))]
pub struct SearchIn {
    /// A model that is ready.
    pub model: String,
    /// Names of presets or recipe objects, at most 64 with those of the grid.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, deserialize_with = "strict")]
    pub recipes: Value,
    /// A `recipe`, and in `vary` lists of values for JSON pointers into it: every combination is tried.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "strict")]
    pub grid: Value,
    /// Calibration of the recipes that have none of their own. What calibration finds is shared between jobs on one
    /// machine.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "strict")]
    pub calibration: Value,
    /// Evaluation of the recipes that have none of their own; `true` unless given.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "strict")]
    pub evaluation: Value,
    /// Up to 16 pairs of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// −100 to 100; higher goes first.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100, default = 0)]
    pub priority: i16,
}

/// Create a search
///
/// Every recipe becomes a job; equal work that waits or runs already is not done again. A recipe that cannot work on
/// this model is a point with its reason, and the others go on; if none can, the request is refused. With an
/// `Idempotency-Key` a repeated request answers the search that the first one made.
#[utoipa::path(
    post, path = "/v1/searches", tag = "searches", operation_id = "createSearch",
    security(("key" = ["jobs:write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A key of your own, quoted or bare")),
    request_body = SearchIn,
    responses((status = 202, description = "The search's jobs wait", body = SearchOut,
               headers(("Location" = String, description = "Where the search is"),
                       ("Idempotent-Replayed" = Option<String>, description = "`true` if an earlier request made it")))),
    extensions(("x-problem-codes" = json!(["json_invalid", "header_invalid", "body_truncated", "too_large",
        "unsupported_media_type", "fields_invalid", "recipe_refused", "not_ready", "conflict",
        "idempotency_mismatch", "quota_exceeded", "overloaded", "request_timeout"])))
)]
pub async fn create_search(
    May(state, ..): May<WriteJobs>,
    headers: HeaderMap,
    input: Input<SearchIn>,
) -> Result<Response, Problem> {
    state.ask_for_a_job()?;
    let key = idempotency_key(&headers)?;
    let Input {
        value: asked,
        fingerprint,
    } = input;
    check_metadata(&asked.metadata)?;
    check_priority(asked.priority)?;
    let shared = Shared {
        calibration: Some(&asked.calibration).filter(|value| !value.is_null()),
        evaluation: Some(&asked.evaluation).filter(|value| !value.is_null()),
    };
    let recipes = asked::all(&asked.recipes, &asked.grid, &shared)?;
    let mut new = planned(&state, &asked, recipes, traceparent(&headers)).await?;
    new.idempotency = key.map(|key| (key, fingerprint));
    let (replayed, search) = match state.store.add_search(&new, room(&state)).await? {
        Sought::New(search) => (false, search),
        Sought::Replayed(search) => (true, search),
    };
    state.wake.notify_waiters();
    let location = format!("/v1/searches/{}", search.id);
    let body = SearchOut::read(&search, &state).await?;
    Ok(made(StatusCode::ACCEPTED, location, replayed, body))
}

/// Plans every recipe. What is wrong with the model is wrong with all of them; a recipe's own fault is its alone.
async fn planned(
    state: &Caller,
    asked: &SearchIn,
    recipes: Vec<Asked>,
    traceparent: Option<String>,
) -> Result<NewSearch, Problem> {
    let mut plans = Vec::new();
    for one in &recipes {
        plans.push(plan(state, &asked.model, one.recipe.clone()));
    }
    let plans: Vec<_> = stream::iter(plans).buffered(AT_ONCE).collect().await;
    let (mut points, mut jobs, mut model, mut first) = (Vec::new(), Vec::new(), None, None);
    let now = state.clock.now();
    for (at, (one, planned)) in recipes.into_iter().zip(plans).enumerate() {
        let refusal = match planned {
            Ok(planned) => {
                model = Some(planned.model.id);
                let job = NewJob {
                    metadata: asked.metadata.clone(),
                    priority: asked.priority,
                    traceparent: traceparent.clone(),
                    ..planned.job(one.recipe.clone(), now)?
                };
                jobs.push((at, job));
                None
            }
            Err(problem) if problem.is(problem::RECIPE_REFUSED) => {
                let refusal = refusal(&problem);
                first.get_or_insert((one.pointer.clone(), problem));
                Some(refusal)
            }
            Err(problem) => return Err(problem),
        };
        points.push(Point {
            name: one.name,
            recipe: one.recipe,
            job: None,
            refusal,
        });
    }
    let Some(model) = model else {
        return Err(match first {
            Some((pointer, problem)) => moved(&problem, &pointer),
            None => Problem::internal("a search without a recipe"),
        });
    };
    Ok(NewSearch {
        search: Search {
            id: SearchId::from_uuid(uuid::Uuid::now_v7()),
            model,
            asked: json!({"recipes": asked.recipes, "grid": asked.grid, "calibration": asked.calibration,
                "evaluation": asked.evaluation, "priority": asked.priority}),
            points,
            metadata: asked.metadata.clone(),
            created_at: now,
            cancelled_at: None,
        },
        jobs,
        idempotency: None,
    })
}

async fn plan(state: &Caller, model: &str, recipe: Value) -> Result<plans::Planned, Problem> {
    plans::plan(state, model, AskedRecipe::new(recipe, None)?).await
}

fn refusal(problem: &Problem) -> Failure {
    let errors = problem.errors().iter().take(4);
    let details: Vec<String> = errors.map(|error| error.detail.clone()).collect();
    let first = problem.errors().first();
    Failure {
        code: first.map_or_else(|| problem.code().to_owned(), |error| error.code.clone()),
        message: if details.is_empty() {
            problem.detail().to_owned()
        } else {
            details.join("; ")
        },
    }
}

/// The same problem, at the recipe's place in this request.
fn moved(problem: &Problem, pointer: &str) -> Problem {
    let mut moved = Problem::new(problem::RECIPE_REFUSED, problem.detail());
    for error in problem.errors() {
        let own = error.pointer.strip_prefix("/recipe").unwrap_or(&error.pointer);
        moved = moved.with_error(format!("{pointer}{own}"), &error.code, error.detail.clone());
    }
    moved
}
