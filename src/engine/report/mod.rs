//! What a job changed and what it cost: plain data, versioned, and its HTML page.
//!
//! Owns: [`Report`] and the measurements that fill it. Must not know: clocks, storage.
//! Invariant: every number is measured on the bytes that were written, except those named `predicted_*`.

mod allocation;
mod analysis;
mod card;
mod choice;
mod faint;
mod html;
mod map;
mod measure;
mod pareto;
mod plots;
mod quality;
mod sparse;
mod suspect;
mod waterfall;

pub use allocation::{Allocation, ClassLoss, CurvePoint, Round, TensorScheme};
pub use analysis::analysis_html;
pub use card::Origin;
pub(crate) use card::{Card, card};
pub use html::html;
pub use measure::measure;
pub use pareto::{ParetoPoint, pareto_html, pareto_plot};
pub use plots::{Plot, analysis_plots, plots};
pub use sparse::SparseSizes;
pub use waterfall::SizeStep;

use crate::checkpoint::{Checkpoint, ModelSummary};
use crate::evaluate::Quality;
use crate::plan::{FormatPlan, Plan};
use crate::recipe::Recipe;
use serde::{Deserialize, Serialize};

/// One tensor before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// Name in the source.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub parameters: u64,
    /// Stored type in the source.
    pub source_dtype: String,
    /// What it became, e.g. `int4 g64`, `Q4_K`.
    pub kind: String,
    /// True where it was quantized or pruned.
    pub compressed: bool,
    /// Empirical entropy of the source's symbols, bits a weight; 16-bit floats by their bits, wider ones by the
    /// bits of their bfloat16 rounding. A zero-order lossless coder cannot do better.
    pub source_entropy_bits: f64,
    /// Empirical entropy of the integer codes, bits a weight; 0 for plain numbers.
    pub code_entropy_bits: f64,
    /// Bits a weight of codes, scales and zeros, before a format pads them; 0 in reports of versions that did not say.
    #[serde(default)]
    pub stored_bits_per_weight: f64,
    /// Mean squared error.
    pub mse: f64,
    /// Mean s²/12 over the weights, s the local step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predicted_mse: Option<f64>,
    /// Signal to noise in decibels; absent where the error is zero.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snr_db: Option<f64>,
    /// Largest absolute error.
    pub max_abs_error: f64,
    /// Mean square of the source.
    pub mean_square: f64,
    /// Share of the weights that are exactly zero in what it became, 0 to 1; 0 in reports of versions that did not say.
    #[serde(default)]
    pub zero_ratio: f64,
}

/// One format's sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatReport {
    /// Format.
    pub format: String,
    /// Bytes of all files that hold the model: `README.md`, `modelpress.json` and its signature come on top.
    pub bytes: u64,
    /// Bytes of the tensors.
    pub weight_bytes: u64,
    /// Bytes of weights that an engine holds once it has loaded the artifact: those of the tensors as they are stored, or,
    /// of a format that is unpacked or made dense first, those of dense ones; 0 in reports of versions that did not say.
    #[serde(default)]
    pub memory_bytes: u64,
    /// |M| / |`M_c`| over tensor bytes.
    pub compression_ratio: f64,
    /// `8 · weight_bytes / parameters`.
    pub bits_per_weight: f64,
}

impl FormatReport {
    pub(crate) fn of(plan: &FormatPlan) -> Self {
        Self {
            format: plan.format.clone(),
            bytes: plan.bytes,
            weight_bytes: plan.weight_bytes,
            memory_bytes: plan.memory_bytes,
            compression_ratio: plan.compression_ratio,
            bits_per_weight: plan.bits_per_weight,
        }
    }

    /// The same with the bytes that were written, of all files and of tensors, where a plan could only bound them.
    pub(crate) fn written(self, bytes: u64, weight_bytes: u64, plan: &Plan) -> Self {
        if bytes == self.bytes {
            return self;
        }
        Self {
            bytes,
            weight_bytes,
            compression_ratio: plan.source_bytes as f64 / weight_bytes.max(1) as f64,
            bits_per_weight: weight_bytes as f64 * 8.0 / plan.parameter_count.max(1) as f64,
            ..self
        }
    }
}

/// One stage's cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Stage.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds of the process.
    pub cpu_seconds: f64,
    /// Highest resident set of the process up to the end of the stage.
    pub peak_rss_bytes: u64,
}

/// How fast an engine decodes with an artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeReport {
    /// The artifact's format.
    pub format: String,
    /// Tokens a second, one sequence at a time.
    pub tokens_per_second: f64,
    /// By which engine, on what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<String>,
}

/// Sums over all tensors, weighted by their number of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the source's tensors.
    pub source_bytes: u64,
    /// Source bits a weight as stored.
    pub source_bits_per_weight: f64,
    /// H(W) of the source, bits a weight.
    pub source_entropy_bits: f64,
    /// Entropy of the codes, bits a weight, over quantized tensors.
    pub code_entropy_bits: f64,
    /// Mean squared error over quantized tensors.
    pub mse: f64,
    /// Mean s²/12 over quantized tensors.
    pub predicted_mse: f64,
    /// Signal to noise over quantized tensors, decibels; absent where nothing changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snr_db: Option<f64>,
    /// Share of the weights that were quantized or pruned, 0 to 1.
    pub compressed_ratio: f64,
    /// Share of those that are exactly zero afterwards, 0 to 1.
    #[serde(default)]
    pub zero_ratio: f64,
}

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this structure: 1.
    pub version: u32,
    /// Engine.
    pub engine_version: String,
    /// The source.
    pub model: ModelSummary,
    /// What was asked.
    pub recipe: Recipe,
    /// Hash of the recipe.
    pub recipe_hash: String,
    /// Sums.
    pub totals: Totals,
    /// Sizes of each format.
    pub formats: Vec<FormatReport>,
    /// How the bytes fall: the original, behind each stage, in each format.
    #[serde(default)]
    pub sizes: Vec<SizeStep>,
    /// What the pruned tensors that stayed plain take in layouts of sparse kernels, where there are some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sparse: Option<SparseSizes>,
    /// Cost of each stage.
    pub stages: Vec<StageReport>,
    /// Quality against the original, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quality: Option<Quality>,
    /// What a budget chose, where there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allocation: Option<Allocation>,
    /// How fast engines decode, where somebody measures it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub decode: Vec<DecodeReport>,
    /// Memory the plan promised to stay under.
    pub planned_peak_memory_bytes: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Every tensor, in file order.
    pub tensors: Vec<TensorReport>,
}

impl Report {
    pub(crate) fn build(
        plan: &Plan,
        model: &Checkpoint,
        tensors: Vec<TensorReport>,
        formats: Vec<FormatReport>,
        stages: Vec<StageReport>,
        quality: Option<Quality>,
    ) -> Self {
        Self {
            version: 1,
            engine_version: plan.engine_version.clone(),
            model: model.summary(),
            recipe: plan.recipe.clone(),
            recipe_hash: plan.recipe_hash.clone(),
            totals: totals(plan, model, &tensors),
            sizes: waterfall::steps(plan, &formats),
            sparse: sparse::sizes(plan, &tensors),
            formats,
            stages,
            quality,
            allocation: None,
            decode: Vec::new(),
            planned_peak_memory_bytes: plan.peak_memory_bytes,
            warnings: plan
                .warnings
                .iter()
                .cloned()
                .chain(faint::warning(&tensors))
                .collect(),
            tensors,
        }
    }
}

fn totals(plan: &Plan, model: &Checkpoint, tensors: &[TensorReport]) -> Totals {
    let stored = model.tensors.iter().map(|t| t.elements() as u64).sum::<u64>();
    let parameters = tensors.iter().map(|t| t.parameters).sum::<u64>();
    let changed = || tensors.iter().filter(|t| t.compressed);
    let count = changed().map(|t| t.parameters).sum::<u64>();
    let over_all = |f: &dyn Fn(&TensorReport) -> f64| {
        tensors.iter().map(|t| f(t) * t.parameters as f64).sum::<f64>() / parameters.max(1) as f64
    };
    let over_changed = |f: &dyn Fn(&TensorReport) -> f64| {
        changed().map(|t| f(t) * t.parameters as f64).sum::<f64>() / count.max(1) as f64
    };
    let (mse, signal) = (over_changed(&|t| t.mse), over_changed(&|t| t.mean_square));
    Totals {
        parameters,
        source_bytes: plan.source_bytes,
        source_bits_per_weight: plan.source_bytes as f64 * 8.0 / stored.max(1) as f64,
        source_entropy_bits: over_all(&|t| t.source_entropy_bits),
        code_entropy_bits: over_changed(&|t| t.code_entropy_bits),
        mse,
        predicted_mse: over_changed(&|t| t.predicted_mse.unwrap_or(0.0)),
        snr_db: (mse > 0.0).then(|| 10.0 * (signal / mse).log10()),
        compressed_ratio: count as f64 / parameters.max(1) as f64,
        zero_ratio: over_changed(&|t| t.zero_ratio),
    }
}
