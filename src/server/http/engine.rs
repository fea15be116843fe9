//! Asking the engine from a request: in a child process, with blobs as its files.
//!
//! Owns: the hop there, and what a child's end means for the request.
//! Must not know: routes, rows.
//! Invariant: this process never reads a model's or dataset's bytes; a request that is given up ends its child.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modelpress_engine::dataset::BUILTIN;
use modelpress_engine::plan::named_datasets;
use modelpress_engine::{AnalysisPlan, Plan, Recipe, Refusal, SourceFile};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::refuse::{RecipePlace, refused_recipe, rejected, unread};
use super::state::Parts;
use crate::child::{self, Answer, Ear, End, Inspected, Objection, Order, Word};
use crate::domain::FileRef;
use crate::domain::ports::{Blobs, LocalFile};
use crate::telemetry::usage::Used;

/// Memory that a child may write to while it reads files for a request.
const MEMORY: u64 = 2 << 30;
/// What takes longer hangs: reading a dataset of a hundred gigabytes through takes a quarter of it.
const LONGEST: Duration = Duration::from_hours(1);

/// Inspects a set of files.
pub async fn inspect_files(state: &Parts, files: &[FileRef]) -> Result<Inspected, Problem> {
    let mut held = Vec::new();
    let files = sources(state.blobs.as_ref(), files, &mut held).await?;
    match ask(state, Order::Inspect { files }, held).await? {
        Answer::Inspected(found) => Ok(found),
        _ => Err(other_answer()),
    }
}

/// A recipe as a request spells it.
#[derive(Debug)]
pub struct AskedRecipe {
    /// The recipe, with the formats laid into it.
    pub value: Value,
    place: RecipePlace,
}

impl AskedRecipe {
    /// Lays `formats`, which a request may give beside the recipe, into it.
    pub fn new(recipe: Value, formats: Option<Vec<String>>) -> Result<Self, Problem> {
        let place = RecipePlace {
            field: "/recipe",
            is_name: recipe.is_string(),
            formats_beside: formats.is_some(),
        };
        let value = match (recipe, formats) {
            (Value::String(preset), Some(formats)) => json!({"preset": preset, "formats": formats}),
            (Value::Object(fields), Some(_)) if fields.contains_key("formats") => {
                let detail = "formats are given twice: here and inside the recipe";
                return Err(Problem::field("/formats", "duplicate_field", detail));
            }
            (Value::Object(mut fields), Some(formats)) => {
                fields.insert("formats".to_owned(), json!(formats));
                Value::Object(fields)
            }
            (other, _) => other,
        };
        Ok(Self { value, place })
    }

    /// The same in another field of the request.
    #[must_use]
    pub fn at(mut self, field: &'static str) -> Self {
        self.place.field = field;
        self
    }
}

/// A recipe that says something, and how the request spells it.
#[derive(Debug)]
pub struct ReadRecipe {
    recipe: Recipe,
    place: RecipePlace,
}

impl ReadRecipe {
    /// The same, to weigh its schemes.
    #[must_use]
    pub fn to_weigh(self) -> Self {
        Self {
            recipe: self.recipe.to_weigh(),
            ..self
        }
    }

    /// The datasets that it names, `builtin` left out, each with the pointer to its name in the recipe.
    pub fn datasets(&self) -> Vec<(&str, String)> {
        let mut named = named_datasets(&self.recipe);
        named.retain(|(name, _)| *name != BUILTIN);
        named
    }

    /// The refusal of a recipe that names things which are not there.
    pub fn refused(&self, refusals: Vec<Refusal>) -> Problem {
        objected(refusals, self.place)
    }
}

/// Reads a recipe; what it says about a model is not looked at yet.
pub async fn read_recipe(asked: AskedRecipe) -> Result<ReadRecipe, Problem> {
    blocking(move || {
        let AskedRecipe { value, place } = asked;
        let recipe = Recipe::from_value(&value).map_err(|refusals| objected(refusals, place))?;
        Ok(ReadRecipe { recipe, place })
    })
    .await
}

fn objected(refusals: Vec<Refusal>, place: RecipePlace) -> Problem {
    let objections: Vec<Objection> = refusals.into_iter().map(Into::into).collect();
    refused_recipe(&objections, place)
}

/// Reads every record of a dataset; answers the engine's summary as JSON.
pub async fn read_dataset(state: &Parts, files: &[FileRef]) -> Result<Value, Problem> {
    let mut held = Vec::new();
    let files = sources(state.blobs.as_ref(), files, &mut held).await?;
    match ask(state, Order::ReadDataset { files }, held).await? {
        Answer::Dataset(summary) => Ok(summary),
        _ => Err(other_answer()),
    }
}

/// Plans a recipe on a model's files, with the datasets under the names that the recipe uses. A plan that asks for
/// more memory than any worker has is refused.
pub async fn plan_recipe(
    state: &Parts,
    files: &[FileRef],
    datasets: &[(String, Vec<FileRef>)],
    asked: ReadRecipe,
) -> Result<Plan, Problem> {
    let blobs = state.blobs.as_ref();
    let mut held = Vec::new();
    let files = sources(blobs, files, &mut held).await?;
    let mut named = Vec::with_capacity(datasets.len());
    for (name, files) in datasets {
        named.push((name.clone(), sources(blobs, files, &mut held).await?));
    }
    let ReadRecipe { recipe, place } = asked;
    let order = Order::Plan {
        recipe: Box::new(recipe),
        files,
        datasets: named,
    };
    let plan: Plan = match ask(state, order, held).await? {
        Answer::Plan(plan) => serde_json::from_value(plan).map_err(Problem::internal)?,
        Answer::Refused(objections) => return Err(refused_recipe(&objections, place)),
        _ => return Err(other_answer()),
    };
    fits(&plan, state.limits.plan_memory_bytes).map_err(|refusal| objected(vec![refusal], place))?;
    Ok(plan)
}

/// Plans an analysis of a model's files.
pub async fn plan_analysis(state: &Parts, files: &[FileRef]) -> Result<AnalysisPlan, Problem> {
    let mut held = Vec::new();
    let files = sources(state.blobs.as_ref(), files, &mut held).await?;
    let plan: AnalysisPlan = match ask(state, Order::PlanAnalysis { files }, held).await? {
        Answer::Plan(plan) => serde_json::from_value(plan).map_err(Problem::internal)?,
        _ => return Err(other_answer()),
    };
    let need = plan.peak_memory_bytes;
    match state.limits.plan_memory_bytes {
        Some(allowed) if need > allowed => {
            let detail = format!(
                "the analysis needs up to {need} bytes of memory, and workers may use {allowed}: set \
                 worker_memory_bytes to {need} or more on a machine that has them"
            );
            Err(Problem::field("", "exceeds_worker_memory", detail))
        }
        _ => Ok(plan),
    }
}

/// A request that waits for a child.
struct Waiting {
    given_up: Arc<AtomicBool>,
    begun: Instant,
}

impl Ear for Waiting {
    fn hear(&self, _word: Word) {}

    fn used(&self, _used: Used) {}

    fn patience(&self) -> Option<Duration> {
        let is_over = self.given_up.load(Ordering::Relaxed) || self.begun.elapsed() > LONGEST;
        is_over.then_some(Duration::ZERO)
    }
}

/// Tells the child, when the request is dropped, that nobody waits for it.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives a child an order and waits for its answer; the files stay here until then.
async fn ask(state: &Parts, order: Order, held: Vec<LocalFile>) -> Result<Answer, Problem> {
    let given_up = GivenUp(Arc::default());
    let ear = Waiting {
        given_up: given_up.0.clone(),
        begun: Instant::now(),
    };
    let host = state.children.clone();
    blocking(move || {
        let _held = held;
        let job = child::Job {
            order: &order,
            memory_bytes: MEMORY,
        };
        match host.run(&job, &ear) {
            End::Answer(Ok(answer)) => Ok(answer),
            End::Answer(Err(wrong)) => Err(rejected(&wrong)),
            End::Panicked(text) => Err(Problem::internal(format!("the engine panicked: {text}"))),
            End::Died(death) => Err(unread(order.subject(), &death, MEMORY)),
            End::NotStarted(error) => Err(Problem::internal(error)),
        }
    })
    .await
}

fn other_answer() -> Problem {
    Problem::internal("a child answered what it was not asked")
}

/// What no worker may claim would wait for ever.
fn fits(plan: &Plan, memory_bytes: Option<u64>) -> Result<(), Refusal> {
    let need = plan.peak_memory_bytes;
    let Some(allowed) = memory_bytes.filter(|allowed| need > *allowed) else {
        return Ok(());
    };
    let largest = plan.tensors.iter().max_by_key(|tensor| tensor.source_bytes);
    let largest = largest.map_or_else(String::new, |tensor| {
        format!(
            " (its largest tensor, {}, has {})",
            tensor.name, tensor.source_bytes
        )
    });
    let detail = format!(
        "the job needs up to {need} bytes of memory{largest}, and workers may use {allowed}: set worker_memory_bytes \
         to {need} or more on a machine that has them, or compress a model with smaller tensors"
    );
    Err(Refusal::new("", "exceeds_worker_memory", detail))
}

async fn sources(
    blobs: &dyn Blobs,
    files: &[FileRef],
    held: &mut Vec<LocalFile>,
) -> Result<Vec<SourceFile>, Problem> {
    let mut sources = Vec::with_capacity(files.len());
    for file in files {
        let path = blobs.path(&file.digest).await.map_err(|error| {
            let problem = Problem::from(error);
            // The row says it is there: that the bytes are not is our fault.
            if problem.code() == super::problem::NOT_FOUND.code {
                Problem::internal(format!("blob {} of file {} is missing", file.digest, file.name))
            } else {
                problem
            }
        })?;
        sources.push(SourceFile::new(file.name.clone(), path.to_path_buf()));
        held.push(path);
    }
    Ok(sources)
}

/// Engine work at once: each may hold the headers and the plan of a model of very many tensors.
static SLOTS: Semaphore = Semaphore::const_new(4);

/// Runs engine work where it may block. A panic there is one request's failure. A request that has given up keeps its
/// slot until the work ends, so that impatient clients cannot pile work up.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let slot = SLOTS.acquire().await.map_err(Problem::internal)?;
    let work = move || {
        let _slot = slot;
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Problem::internal)?
}

/// Checks the user's own pairs: at most 16, short.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Problem> {
    const PAIRS: usize = 16;
    const KEY: usize = 64;
    const VALUE: usize = 512;
    if metadata.len() > PAIRS {
        return Err(Problem::field(
            "/metadata",
            "too_many",
            format!("at most {PAIRS} pairs are kept"),
        ));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.len() > KEY || value.len() > VALUE {
            let pointer = format!("/metadata/{}", key.replace('~', "~0").replace('/', "~1"));
            let detail = format!("keys have 1 to {KEY} bytes, values at most {VALUE}");
            return Err(Problem::field(pointer, "too_long", detail));
        }
        if key.chars().any(char::is_control) || value.contains('\0') {
            let pointer = format!("/metadata/{}", key.replace('~', "~0").replace('/', "~1"));
            let detail = "keys hold no control characters, values no NUL";
            return Err(Problem::field(pointer, "invalid_value", detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_few_short_and_printable() {
        let check = |key: &str, value: &str| {
            let pairs = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            check_metadata(&pairs).map_err(|problem| problem.errors()[0].pointer.clone())
        };
        assert_eq!(check("team", "two\nlines"), Ok(()));
        for (key, value, at) in [
            ("", "v", "/metadata/"),
            ("a\0", "v", "/metadata/a\0"),
            ("a\nb", "v", "/metadata/a\nb"),
            ("a/b", "\0", "/metadata/a~1b"),
            ("k", &"v".repeat(513), "/metadata/k"),
        ] {
            assert_eq!(check(key, value), Err(at.to_owned()), "{key:?}");
        }
    }
}
