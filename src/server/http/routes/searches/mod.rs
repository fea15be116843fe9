//! `/v1/searches`: several recipes on one model, and which of them are worth having.
//!
//! Owns: the search's wire form, read from its jobs and their reports.
//! Must not know: the queue; how anything was measured.
//! Invariant: a number is one that a report has; a point without a result says why.

mod asked;
pub mod cancel;
pub mod create;
pub mod get;
pub mod known;
pub mod list;
pub mod report;

use std::collections::BTreeMap;

use modelpress_engine::search::{BestFor, Outcome, best_for, front};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::jobs::JobErrorOut;
use crate::domain::ports::StoreError;
use crate::domain::search::{Point, standing};
use crate::domain::{Job, JobState, Search};
use crate::http::auth::Caller;
use crate::http::problem::Problem;

/// A search among others.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchEntryOut {
    /// Identifier.
    #[schema(example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `search`.
    #[schema(example = "search")]
    pub object: &'static str,
    /// The model.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub model: String,
    /// How many recipes it has.
    #[schema(example = 6)]
    pub recipes: usize,
    /// Your own pairs.
    pub metadata: BTreeMap<String, String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When you ended it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancelled_at: Option<OffsetDateTime>,
}

impl From<&Search> for SearchEntryOut {
    fn from(search: &Search) -> Self {
        Self {
            id: search.id.to_string(),
            object: "search",
            model: search.model.to_string(),
            recipes: search.points.len(),
            metadata: search.metadata.clone(),
            created_at: search.created_at,
            cancelled_at: search.cancelled_at,
        }
    }
}

/// A search.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchOut {
    /// Identifier.
    #[schema(example = "srch_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `search`.
    #[schema(example = "search")]
    pub object: &'static str,
    /// `queued`, `running`, `succeeded` (a recipe did, whatever became of the others), `failed` or `cancelled`.
    #[schema(example = "running")]
    pub status: &'static str,
    /// The model.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub model: String,
    /// What was asked.
    #[schema(value_type = Object)]
    pub asked: Value,
    /// What losses are of: `kl`, `accuracy`, `perplexity`, `top1_agreement`, `cosine` or `retrieval`; null until a recipe is done.
    #[schema(example = "kl")]
    pub loss_metric: Option<String>,
    /// Every recipe, in the order in which they were asked for.
    pub points: Vec<PointOut>,
    /// Names of those that no other beats in size, loss and, where all were timed, decoding speed; from the smallest to the
    /// largest.
    pub front: Vec<String>,
    /// Your own pairs.
    pub metadata: BTreeMap<String, String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When you ended it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cancelled_at: Option<OffsetDateTime>,
}

/// A recipe of a search.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointOut {
    /// What it is called.
    #[schema(example = "Q4_K_M")]
    pub name: String,
    /// The recipe.
    #[schema(value_type = Object)]
    pub recipe: Value,
    /// `refused`, `forgotten` (its job was deleted as old), or its job's status.
    #[schema(example = "succeeded")]
    pub status: &'static str,
    /// Its job; null if it was refused.
    #[schema(example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub job: Option<String>,
    /// Why there is no result.
    pub error: Option<JobErrorOut>,
    /// What came out; null until it is done.
    pub result: Option<ResultOut>,
    /// Whether no other recipe beats it in size, loss and, where all were timed, decoding speed.
    #[schema(example = true)]
    pub on_front: bool,
    /// `size`, `quality`, `speed` or `balance`, for the one that is best for it.
    #[schema(example = "balance")]
    pub best_for: Option<&'static str>,
}

/// What came of a recipe.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ResultOut {
    /// Bytes of all files of its first format.
    #[schema(example = 105_453_824)]
    pub bytes: u64,
    /// `8 · weight bytes / parameters`.
    #[schema(example = 6.165)]
    pub bits_per_weight: f64,
    /// Bytes of the source's tensors by those of the result.
    #[schema(example = 2.55)]
    pub compression_ratio: f64,
    /// What is lost: nats (`kl`), the share by which perplexity grew, or the share of answers (`accuracy`, agreements).
    #[schema(example = 0.0274)]
    pub loss: Option<f64>,
    /// What was measured, as in the job's report.
    #[schema(value_type = Vec<Object>)]
    pub measures: Value,
    /// Tokens a second that an engine decodes with its first format; null where nobody measures it (`decode_command`).
    #[schema(example = 41.7)]
    pub decode_tokens_per_second: Option<f64>,
    /// Wall-clock seconds of its stages.
    #[schema(example = 151.2)]
    pub seconds: f64,
    /// Highest resident memory of its process.
    #[schema(example = 599_785_472)]
    pub peak_memory_bytes: u64,
}

impl SearchOut {
    /// Reads the jobs and their reports.
    pub async fn read(search: &Search, state: &Caller) -> Result<Self, Problem> {
        let (mut points, mut states) = (Vec::new(), Vec::new());
        for point in &search.points {
            let (out, job) = PointOut::read(point, state).await?;
            points.push(out);
            states.push(job);
        }
        let metric = points
            .iter()
            .filter_map(|point| point.result.as_ref())
            .find_map(metric_of);
        let on_front = mark(&mut points, metric);
        Ok(Self {
            id: search.id.to_string(),
            object: "search",
            status: standing(&states, search.cancelled_at.is_some()).as_str(),
            model: search.model.to_string(),
            asked: search.asked.clone(),
            loss_metric: metric.map(str::to_owned),
            front: on_front.into_iter().map(|at| points[at].name.clone()).collect(),
            points,
            metadata: search.metadata.clone(),
            created_at: search.created_at,
            cancelled_at: search.cancelled_at,
        })
    }
}

impl PointOut {
    async fn read(point: &Point, state: &Caller) -> Result<(Self, Option<JobState>), Problem> {
        let found = match point.job {
            None => None,
            Some(id) => match state.store.job(id).await {
                Ok(job) => Some(job),
                Err(StoreError::NotFound) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let result = match &found {
            Some(job) if job.state.is_terminal() => result_of(job, state).await?,
            _ => None,
        };
        let status = match (&found, point.job) {
            (Some(job), _) => job.state.as_str(),
            (None, Some(_)) => "forgotten",
            (None, None) => "refused",
        };
        let failure = found
            .as_ref()
            .and_then(|job| job.failure.clone())
            .or_else(|| point.refusal.clone());
        let out = Self {
            name: point.name.clone(),
            recipe: point.recipe.clone(),
            status,
            job: point.job.map(|id| id.to_string()),
            error: failure.map(|failure| JobErrorOut {
                code: failure.code,
                message: failure.message,
            }),
            result,
            on_front: false,
            best_for: None,
        };
        Ok((out, found.map(|job| job.state)))
    }
}

/// What a job's report says; none where there is no report.
async fn result_of(job: &Job, state: &Caller) -> Result<Option<ResultOut>, Problem> {
    if let Some(known) = state.known.get(job.id) {
        return Ok(Some(known));
    }
    let report: Value = match state.store.report(job.id).await {
        Ok(report) => report.read().map_err(Problem::internal)?,
        Err(StoreError::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let format = &report["formats"][0];
    let stages = || report["stages"].as_array().into_iter().flatten();
    let result = ResultOut {
        bytes: format["bytes"].as_u64().unwrap_or_default(),
        bits_per_weight: format["bits_per_weight"].as_f64().unwrap_or_default(),
        compression_ratio: format["compression_ratio"].as_f64().unwrap_or_default(),
        loss: None,
        decode_tokens_per_second: decode_of(&report),
        measures: report["quality"]["measures"].clone(),
        seconds: stages().filter_map(|stage| stage["seconds"].as_f64()).sum(),
        peak_memory_bytes: stages()
            .filter_map(|stage| stage["peak_rss_bytes"].as_u64())
            .max()
            .unwrap_or_default(),
    };
    state.known.put(job.id, &result);
    Ok(Some(result))
}

/// How fast the first format decodes.
fn decode_of(report: &Value) -> Option<f64> {
    let timed = report["decode"].as_array()?;
    let own = timed
        .iter()
        .find(|timed| timed["format"] == report["formats"][0]["format"])?;
    own["tokens_per_second"].as_f64()
}

/// Metrics that a loss can be of, the one that tells most first.
const METRICS: [&str; 6] = [
    "kl",
    "accuracy",
    "perplexity",
    "top1_agreement",
    "cosine",
    "retrieval",
];

fn measure<'a>(result: &'a ResultOut, metric: &str) -> Option<&'a Value> {
    let measures = result.measures.as_array()?;
    measures.iter().find(|measure| measure["metric"] == metric)
}

fn metric_of(result: &ResultOut) -> Option<&'static str> {
    METRICS
        .into_iter()
        .find(|metric| measure(result, metric).is_some())
}

/// What is lost by a metric: 0 where nothing is.
fn loss_of(result: &ResultOut, metric: &str) -> Option<f64> {
    let measure = measure(result, metric)?;
    match metric {
        "kl" => measure["after"].as_f64(),
        "perplexity" => measure["change"].as_f64(),
        "accuracy" => measure["change"].as_f64().map(|change| -change),
        _ => measure["after"].as_f64().map(|after| 1.0 - after),
    }
}

/// Fills in losses, marks the front and answers it.
fn mark(points: &mut [PointOut], metric: Option<&str>) -> Vec<usize> {
    let (mut places, mut outcomes) = (Vec::new(), Vec::new());
    for (at, point) in points.iter_mut().enumerate() {
        let Some(result) = &mut point.result else { continue };
        result.loss = metric.and_then(|metric| loss_of(result, metric));
        // What missed a gate or its budget is not worth having.
        if let Some(loss) = result
            .loss
            .filter(|_| point.status == JobState::Succeeded.as_str())
        {
            places.push(at);
            outcomes.push(Outcome {
                bytes: result.bytes,
                loss,
                seconds: result.decode_tokens_per_second.map(f64::recip),
            });
        }
    }
    if outcomes.iter().any(|outcome| outcome.seconds.is_none()) {
        // Of some only: then speed compares nothing.
        for outcome in &mut outcomes {
            outcome.seconds = None;
        }
    }
    let front = front(&outcomes);
    for at in &front {
        points[places[*at]].on_front = true;
    }
    for (at, what) in best_for(&outcomes, &front) {
        points[places[at]].best_for = Some(match what {
            BestFor::Size => "size",
            BestFor::Quality => "quality",
            BestFor::Speed => "speed",
            BestFor::Balance => "balance",
        });
    }
    front.into_iter().map(|at| places[at]).collect()
}
