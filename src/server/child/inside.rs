//! The child's side: read the order, carry it out, answer.
//!
//! Owns: which engine call an order is.
//! Must not know: who gave it.
//! Invariant: a panic is answered like everything else; when standard input ends, so does the process, at once.

use std::io::{BufRead as _, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use modelpress_engine::{
    AnalysisPlan, Checkpoint, Class, Compute, Dataset, Datasets, Error, Outcome, Plan, Site, SourceFile,
    execute, execute_analysis, inspect, plan,
};

use super::observer::Line;
use super::pipe::{Answer, Execution, Inspected, Made, Order, Subject, Word, Wrong};
use super::stash::Kept;
use super::{host, limits};
use crate::domain::model::TensorRow;
use crate::telemetry::panic_text;

/// A parent that is gone is no reason to say anything.
const ORPHANED: i32 = 3;

type Reply = Result<Answer, Wrong>;

/// The whole life of a child.
pub fn run(memory_bytes: Option<u64>) -> ExitCode {
    limits::set(memory_bytes);
    let mut first = String::new();
    let read = std::io::stdin()
        .lock()
        .take(host::LONGEST_LINE)
        .read_line(&mut first);
    let order: Order = match read
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_str(&first).map_err(|e| e.to_string()))
    {
        Ok(order) => order,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "no order that can be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    drop(first);
    let line = Arc::new(Line::new());
    let listener = line.clone();
    let listening = std::thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || listen(&listener));
    if let Err(error) = listening {
        let _closed = writeln!(std::io::stderr(), "no thread that listens: {error}");
        return ExitCode::FAILURE;
    }
    let done = catch_unwind(AssertUnwindSafe(|| carry_out(order, &line)));
    line.say(&match done {
        Ok(reply) => Word::Answer(reply),
        Err(panic) => Word::Panicked(panic_text(panic.as_ref()).to_owned()),
    });
    ExitCode::SUCCESS
}

/// A line asks to stop; the end of all lines says that nobody waits for the outcome.
fn listen(line: &Line) {
    let mut asked = String::new();
    loop {
        asked.clear();
        match std::io::stdin().lock().take(64).read_line(&mut asked) {
            Ok(0) | Err(_) => std::process::exit(ORPHANED),
            Ok(_) => line.stop(),
        }
    }
}

fn carry_out(order: Order, line: &Line) -> Reply {
    match order {
        Order::Inspect { files } => inspected(&files),
        Order::ReadDataset { files } => {
            let about = |error| Wrong::of(Subject::Dataset, error);
            let summary = Dataset::open(&files).and_then(|dataset| dataset.summary());
            json(&summary.map_err(about)?).map(Answer::Dataset)
        }
        Order::Plan {
            recipe,
            files,
            datasets,
        } => {
            let datasets = open_datasets(datasets)?;
            match plan(&recipe, &open_model(&files)?, &datasets) {
                Ok(plan) => json(&plan).map(Answer::Plan),
                Err(refusals) => Ok(Answer::Refused(refusals.into_iter().map(Into::into).collect())),
            }
        }
        Order::PlanAnalysis { files } => json(&AnalysisPlan::of(&open_model(&files)?)).map(Answer::Plan),
        Order::Execute(order) => match AnalysisPlan::read(&order.plan) {
            Some(plan) => analyzed(&plan, order, line),
            None => executed(order, line),
        },
    }
}

fn open_model(files: &[SourceFile]) -> Result<Checkpoint, Wrong> {
    inspect(files).map_err(|error| Wrong::of(Subject::Model, error))
}

fn open_datasets(named: Vec<(String, Vec<SourceFile>)>) -> Result<Datasets, Wrong> {
    let mut datasets = Datasets::new();
    for (name, files) in named {
        let dataset = Dataset::open(&files).map_err(|error| Wrong::of(Subject::Dataset, error))?;
        datasets.insert(name, dataset);
    }
    Ok(datasets)
}

fn inspected(files: &[SourceFile]) -> Reply {
    let model = open_model(files)?;
    let tensors = model.tensor_summaries().into_iter().map(|tensor| TensorRow {
        name: tensor.name,
        dtype: tensor.dtype,
        shape: tensor.shape.into_iter().map(|n| n as u64).collect(),
        bytes: tensor.bytes,
    });
    Ok(Answer::Inspected(Inspected {
        tensors: tensors.collect(),
        summary: json(&model.summary())?,
    }))
}

fn executed(order: Execution, line: &Line) -> Reply {
    let wrong = |error| Wrong::of(Subject::Work, error);
    let plan: Plan = serde_json::from_str(&order.plan).map_err(|error| {
        let message =
            format!("the stored plan cannot be read by this version: {error}; submit the job again");
        wrong(Error::new(Class::Unsupported, "plan_unreadable", message))
    })?;
    let place = Place::of(&order)?;
    let model = open_model(&order.files)?;
    let datasets = open_datasets(order.datasets)?;
    let site = place.site(&order.out, &order.kept, order.statistics.as_deref());
    let outcome = execute(&plan, &model, &datasets, &site, line).map_err(wrong)?;
    let keep_if_missed = plan.recipe.gates.as_ref().is_none_or(|gates| gates.keep_artifact);
    made(outcome, keep_if_missed).map(Answer::Made)
}

/// Where an order is carried out.
struct Place {
    compute: Compute,
    /// Held until this process ends, which may be a moment after its parent did.
    kept: Option<Kept>,
    /// Instead of what is kept, where somebody else holds that.
    own: PathBuf,
}

impl Place {
    fn of(order: &Execution) -> Result<Self, Wrong> {
        let wrong = |error| Wrong::of(Subject::Work, error);
        let device = order
            .device
            .parse()
            .map_err(|e: String| wrong(Error::internal(e)))?;
        let compute = Compute::open(device).map_err(wrong)?;
        threads(order.threads)?;
        Ok(Self {
            compute,
            kept: Kept::lock(&order.kept).map_err(|e| wrong(Error::io("scratch space", &e)))?,
            own: order.out.join(".scratch"),
        })
    }

    fn site<'a>(&'a self, out: &'a Path, kept: &'a Path, statistics: Option<&'a Path>) -> Site<'a> {
        Site {
            out,
            scratch: if self.kept.is_some() { kept } else { &self.own },
            statistics,
            compute: self.compute.clone(),
        }
    }
}

fn threads(count: usize) -> Result<(), Wrong> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    built.map_err(|error| {
        let message = format!("compute threads: {error}");
        Wrong::of(Subject::Work, Error::new(Class::Resources, "no_threads", message))
    })
}

/// An analysis is a report and nothing else.
fn analyzed(plan: &AnalysisPlan, order: Execution, line: &Line) -> Reply {
    let place = Place::of(&order)?;
    let model = open_model(&order.files)?;
    let datasets = open_datasets(order.datasets)?;
    let site = place.site(&order.out, &order.kept, order.statistics.as_deref());
    let analysis = execute_analysis(plan, &model, &datasets, &site, line);
    let analysis = analysis.map_err(|error| Wrong::of(Subject::Work, error))?;
    Ok(Answer::Made(Made {
        artifacts: Vec::new(),
        report: serde_json::to_string(&analysis).map_err(|e| unwritable(&e))?,
        saved_bytes: 0,
        gate: None,
    }))
}

fn made(outcome: Outcome, keep_if_missed: bool) -> Result<Made, Wrong> {
    let source = outcome.report.totals.source_bytes;
    let report = serde_json::to_string(&outcome.report).map_err(|e| unwritable(&e))?;
    let is_kept = outcome.gate.is_none() || keep_if_missed;
    let formats = outcome.report.formats.iter().filter(|_| is_kept);
    Ok(Made {
        saved_bytes: formats
            .map(|format| source.saturating_sub(format.weight_bytes))
            .sum(),
        report,
        artifacts: if is_kept { outcome.artifacts } else { Vec::new() },
        gate: outcome.gate,
    })
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value, Wrong> {
    serde_json::to_value(value).map_err(|e| unwritable(&e))
}

fn unwritable(error: &serde_json::Error) -> Wrong {
    Wrong::of(
        Subject::Work,
        Error::internal(format!("an answer cannot be written: {error}")),
    )
}
