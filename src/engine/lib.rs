//! The numbers of modelpress: open a model, plan a recipe on it, execute the plan, report what it cost.
//!
//! Owns: tensors, weight kinds, techniques, formats, datasets, recipes, plans, reports.
//! Must not know: HTTP, SQL, async, the clock, the network, the environment. Its only way out while it works
//! is an [`Observer`].
//! Invariant: the same model bytes, recipe, seed and engine version give the same output bytes, whatever the
//! number of threads.

pub mod analyze;
pub mod calibrate;
pub mod catalog;
pub mod checkpoint;
pub mod dataset;
pub mod digest;
pub mod error;
pub mod evaluate;
pub mod execute;
pub mod formats;
pub mod kernels;
pub mod models;
pub mod network;
pub mod observe;
pub mod plan;
pub mod presets;
pub mod recipe;
pub mod report;
pub mod search;
pub mod techniques;
pub mod tensor;
pub mod weight;

pub use analyze::{Analysis, AnalysisPlan, analyze};
pub use checkpoint::{Checkpoint, ModelSummary, SourceFile, inspect};
pub use dataset::{Dataset, DatasetSummary, Datasets};
pub use error::{Class, Error};
pub use execute::{
    Artifact, ArtifactFile, MANIFEST, Outcome, SIGNATURE, Site, execute, execute_analysis, kept_files,
};
pub use network::{Compute, DeviceName};
pub use observe::{Level, Observer, Usage};
pub use plan::{Plan, plan};
pub use recipe::{Recipe, Refusal};
pub use report::Report;

/// Version of the engine, stored with every plan and artifact: bytes are promised equal only within one version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
