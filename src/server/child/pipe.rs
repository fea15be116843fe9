//! What the two processes say to each other: one JSON value a line.
//!
//! Owns: the words.
//! Must not know: pipes, processes.
//! Invariant: the first line to the child is an [`Order`] and its last line is a [`Word::Answer`] or
//! [`Word::Panicked`]; whatever comes in between is progress.

use std::path::PathBuf;

use modelpress_engine::{Artifact, Class, Error, Recipe, Refusal, SourceFile};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::model::TensorRow;

/// What a child shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Say what a model is.
    Inspect {
        /// Its files.
        files: Vec<SourceFile>,
    },
    /// Read every record of a dataset.
    ReadDataset {
        /// Its files.
        files: Vec<SourceFile>,
    },
    /// Say what a recipe does to a model.
    Plan {
        /// The recipe.
        recipe: Box<Recipe>,
        /// The model's files.
        files: Vec<SourceFile>,
        /// The files of each dataset, under the name that the recipe uses.
        datasets: Vec<(String, Vec<SourceFile>)>,
    },
    /// Say what an analysis of a model takes.
    PlanAnalysis {
        /// The model's files.
        files: Vec<SourceFile>,
    },
    /// Carry a plan out.
    Execute(Execution),
}

impl Order {
    /// What a child is about that gives no answer to it.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Inspect { .. } | Self::Plan { .. } | Self::PlanAnalysis { .. } => Subject::Model,
            Self::ReadDataset { .. } => Subject::Dataset,
            Self::Execute(_) => Subject::Work,
        }
    }
}

/// A plan to carry out, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Execution {
    /// The stored plan, of a recipe or of an analysis, as JSON text.
    pub plan: String,
    /// The model's files.
    pub files: Vec<SourceFile>,
    /// The files of each dataset, under the name that the recipe uses.
    pub datasets: Vec<(String, Vec<SourceFile>)>,
    /// Where the job's attempts leave what the next one goes on with; made when it is needed.
    pub kept: PathBuf,
    /// Where what calibration finds is kept for other jobs on this model, if anywhere.
    #[serde(default)]
    pub statistics: Option<PathBuf>,
    /// An empty folder for the outcome.
    pub out: PathBuf,
    /// Compute threads.
    pub threads: usize,
    /// What models run on, as the engine names it.
    pub device: String,
}

/// A line from the child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// A stage begins.
    Stage {
        /// Its name.
        name: String,
        /// Its place, from 0.
        index: usize,
        /// How many there are.
        of: usize,
    },
    /// So much is done.
    Advanced {
        /// Bytes worked through.
        done: u64,
        /// Bytes to work through.
        total: u64,
    },
    /// A line for the job's history.
    Event {
        /// Whether the user should worry.
        warning: bool,
        /// For people.
        message: String,
        /// For programs.
        data: Value,
    },
    /// It is done, well or not.
    Answer(Result<Answer, Wrong>),
    /// A bug of ours ended it; the text is for the log.
    Panicked(String),
}

/// What came of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of [`Order::Inspect`].
    Inspected(Inspected),
    /// Of [`Order::ReadDataset`]: the engine's summary.
    Dataset(Value),
    /// Of [`Order::Plan`] and [`Order::PlanAnalysis`]: the engine's plan.
    Plan(Value),
    /// Of [`Order::Plan`]: why there is none.
    Refused(Vec<Objection>),
    /// Of [`Order::Execute`].
    Made(Made),
}

/// What an inspection finds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inspected {
    /// The engine's summary as JSON.
    pub summary: Value,
    /// Every tensor, in file order.
    pub tensors: Vec<TensorRow>,
}

/// What was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    /// One for each format; none if a quality gate was missed and the recipe does not keep them.
    pub artifacts: Vec<Artifact>,
    /// The report as JSON text.
    pub report: String,
    /// Original minus compressed bytes, over all artifacts.
    pub saved_bytes: u64,
    /// Which quality gate was missed; none if there was none or all were kept.
    pub gate: Option<String>,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The files of the model.
    Model,
    /// The files of a dataset.
    Dataset,
    /// The work itself.
    Work,
}

/// The engine's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// What it is about.
    pub subject: Subject,
    /// Who can mend it.
    pub class: Class,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl Wrong {
    /// The error, said of something.
    pub fn of(subject: Subject, error: Error) -> Self {
        Self {
            subject,
            class: error.class,
            code: error.code.to_owned(),
            message: error.message,
        }
    }
}

/// The engine's refusal of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objection {
    /// JSON pointer into the recipe.
    pub pointer: String,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
}

impl From<Refusal> for Objection {
    fn from(refusal: Refusal) -> Self {
        Self {
            pointer: refusal.pointer,
            code: refusal.code.to_owned(),
            detail: refusal.detail,
        }
    }
}
