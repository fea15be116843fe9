//! `modelpress analyze`.
//!
//! Owns: the table of an analysis: which figures people see first.
//! Must not know: how any of them is found.
//! Invariant: the JSON has every figure; the table says what its columns are.

use std::fmt::Write as _;
use std::path::PathBuf;

use modelpress_engine::analyze::{Analysis, ModelAnalysis, PresetOutlook, Sensitivity, TensorAnalysis};
use modelpress_engine::{AnalysisPlan, Datasets, ModelSummary, Site, execute_analysis};

use super::compress::{failed, stop_on_signal};
use super::datasets::DatasetArgs;
use super::progress::Progress;
use super::summary::{grouped, size};
use super::{FAILED, Failure, recipe, say};

/// What the table's columns are, below the help.
pub(super) const COLUMNS: &str = "\
Columns:
  std        standard deviation
  largest/σ  largest distance from the mean, in standard deviations
  kurtosis   excess kurtosis: 0 for a Gaussian, more with heavier tails
  outliers   weights 6 or more standard deviations from the mean
  entropy    of the stored 16-bit symbols, bits a weight: what a lossless code needs
  to Gauss   bits a weight that the distribution is easier to code than a Gaussian of its variance
  rank       effective rank (exponential of the entropy of the singular values) of the full one
  a = b      the bytes of a are those of b

  bits       stored bits a weight, scales included
  SNR        power of the weights over that of their error, dB, from samples; - if calibrated
  to bound   dB that are missing to the Gaussian bound at that rate

Gaussian bound: the best signal-to-noise ratio that any code can reach at a rate, if the weights were independent Gaussians.";

/// Pairs of near layers that the table shows.
const NEAR: usize = 8;

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct AnalyzeArgs {
    /// A checkpoint folder or a single model file
    model: PathBuf,
    /// Also say what each scheme of a recipe's technique would cost each tensor, by the gradients on its calibration
    /// data: a preset's name, a .yaml or .json file, or JSON; budget.candidates names the schemes. Takes minutes
    #[arg(long, value_name = "RECIPE")]
    sensitivity: Option<String>,
    #[command(flatten)]
    datasets: DatasetArgs,
    /// Print every figure as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// A folder for what running the model leaves, where it is run; gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("modelpress-analyze-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Most analyses make none; what stays behind is in the system's own folder for such things.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn run(args: &AnalyzeArgs) -> Result<(), Failure> {
    let model = recipe::open_model(&args.model)?;
    let mut plan = AnalysisPlan::of(&model);
    let mut datasets = Datasets::new();
    if let Some(recipe) = &args.sensitivity {
        let asked = recipe::Asked {
            recipe,
            formats: &[],
            datasets: &args.datasets,
        };
        let recipe = recipe::read(asked)?.to_weigh();
        datasets = args.datasets.open(&recipe)?;
        let weighed = modelpress_engine::plan(&recipe, &model, &datasets);
        plan = plan.with_sensitivity(weighed.map_err(|refusals| asked.refused(&refusals))?);
    }
    let scratch = Scratch::new();
    let progress = Progress::new(args.json, stop_on_signal()?);
    let site = Site::on_cpu(&scratch.0, &scratch.0);
    let analysis = execute_analysis(&plan, &model, &datasets, &site, &progress);
    progress.finish();
    let analysis = analysis.map_err(|error| failed(&error))?;
    if args.json {
        say(serde_json::to_string(&analysis).map_err(|error| Failure::new(FAILED, error))?);
    } else {
        say(table(&model.summary(), &analysis));
    }
    Ok(())
}

fn table(summary: &ModelSummary, analysis: &Analysis) -> String {
    let mut text = String::new();
    for tensor in &analysis.tensors {
        if text.is_empty() {
            let _infallible = writeln!(
                text,
                "{:>12} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}  tensor",
                "weights", "std", "largest/σ", "kurtosis", "outliers", "entropy", "to Gauss", "rank"
            );
        }
        let _infallible = writeln!(text, "{}", line(tensor));
    }
    let _infallible = writeln!(text, "{}", totals(summary, &analysis.model));
    for pair in analysis.near_layers.iter().take(NEAR) {
        let (distance, a, b) = (pair.relative_distance, &pair.tensor, &pair.like);
        let _infallible = writeln!(text, "near layers      {distance:.3} apart: {a}, {b}");
    }
    text.push_str(&outlooks(&analysis.presets));
    if let Some(sensitivity) = &analysis.sensitivity {
        text.push_str(&schemes(sensitivity));
    }
    if !analysis.refused_presets.is_empty() {
        let names = analysis
            .refused_presets
            .iter()
            .map(|refusal| refusal.preset.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let _infallible = writeln!(text, "\nnot for this model: {names}");
    }
    text.trim_end().to_owned()
}

/// Presets, the largest first.
fn outlooks(presets: &[PresetOutlook]) -> String {
    let mut text = String::new();
    if !presets.is_empty() {
        text = format!(
            "\n{:>15} {:>7} {:>7} {:>7} {:>9}  preset\n",
            "bytes", "bits", "ratio", "SNR", "to bound"
        );
    }
    let mut presets: Vec<&PresetOutlook> = presets.iter().collect();
    presets.sort_by_key(|preset| std::cmp::Reverse(preset.bytes));
    for told in presets {
        let decibels =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let _infallible = writeln!(
            text,
            "{:>15} {:>7.3} {:>7.3} {:>7} {:>9}  {}",
            grouped(told.bytes),
            told.bits_per_weight,
            told.compression_ratio,
            decibels(told.snr_db),
            decibels(told.gap_db),
            told.preset,
        );
    }
    text
}

/// What each scheme would cost in all, and the tensors that mind most.
fn schemes(sensitivity: &Sensitivity) -> String {
    let mut text = format!(
        "\nschemes by the gradients on {} tokens of {}\n{:>15} {:>15} {:>7} {:>12}  scheme, of all tensors that can have \
         it\n",
        grouped(sensitivity.tokens as u64),
        sensitivity.dataset,
        "weights",
        "bytes",
        "bits",
        "nats a token"
    );
    for total in sensitivity.totals() {
        let _infallible = writeln!(
            text,
            "{:>15} {:>15} {:>7.3} {:>12.4e}  {}",
            grouped(total.parameters),
            grouped(total.bytes),
            total.bits_per_weight(),
            total.predicted_kl,
            total.scheme
        );
    }
    let _infallible = writeln!(
        text,
        "\n{:>12} {:>12}  most sensitive, a million weights",
        "nats", "scheme"
    );
    for (unit, scheme) in sensitivity.most_sensitive().into_iter().take(NEAR) {
        let a_million = scheme.predicted_kl * 1e6 / unit.parameters.max(1) as f64;
        let _infallible = writeln!(
            text,
            "{a_million:>12.3e} {:>12}  {}",
            scheme.scheme,
            unit.tensors.join(", ")
        );
    }
    text
}

/// Largest: in standard deviations from the mean. Entropy: of the stored symbols. To Gauss: bits a weight.
fn line(tensor: &TensorAnalysis) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let largest = tensor.range.filter(|_| tensor.std > 0.0).map(|[min, max]| {
        let away = |value: f32| (f64::from(value) - tensor.mean).abs();
        away(min).max(away(max)) / tensor.std
    });
    let same = tensor.duplicate_of.as_ref();
    format!(
        "{:>12} {:>10.3e} {:>9} {:>8} {:>8} {:>8.3} {:>8} {:>9}  {}{}",
        grouped(tensor.parameters),
        tensor.std,
        figure(largest),
        figure(tensor.excess_kurtosis),
        tensor.outliers,
        tensor.symbol_entropy_bits,
        figure(tensor.non_gaussian_bits),
        tensor.spectrum.as_ref().map_or_else(
            || "-".to_owned(),
            |found| format!("{:.0}/{}", found.effective_rank, found.full_rank)
        ),
        tensor.name,
        same.map_or_else(String::new, |of| format!(" = {of}")),
    )
}

fn totals(summary: &ModelSummary, model: &ModelAnalysis) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<16} {value}");
    };
    let architecture = summary.architecture.as_deref().unwrap_or("unknown architecture");
    line(
        "model",
        format!("{architecture}, {} weights", grouped(model.parameters)),
    );
    line("stored", size(model.bytes));
    if let Some(compute) = &model.compute {
        let (flops, read) = (compute.flops_per_token, &compute.bytes_per_token);
        let read = format!(
            "{} as fp16, {} as int4",
            size(read.fp16_bytes),
            size(read.int4_bytes)
        );
        line(
            "a token",
            format!("{:.3} GFLOP without attention; reads {read}", flops as f64 / 1e9),
        );
    }
    let memory = &model.memory;
    for (name, bytes) in [
        ("as fp32", memory.fp32_bytes),
        ("as fp16", memory.fp16_bytes),
        ("as int8", memory.int8_bytes),
        ("as int4", memory.int4_bytes),
    ] {
        line(name, size(bytes));
    }
    if let Some(bytes) = model.lossless_bytes {
        line("lossless bound", size(bytes));
    }
    if model.duplicate_bytes > 0 {
        line("duplicates", size(model.duplicate_bytes));
    }
    let points: Vec<String> = model
        .gaussian_bound
        .iter()
        .map(|point| format!("{} bits {:.1} dB", point.bits_per_weight, point.snr_db))
        .collect();
    line("Gaussian bound", points.join(", "));
    text.trim_end().to_owned()
}
