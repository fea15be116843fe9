//! What the weights of a model are, before anything is done to them: distribution, entropy, what theory says of them, and
//! what each preset would make of them.
//!
//! Owns: the figures of each tensor and of the model, the walk over the tensors.
//! Must not know: any technique, preset or format by name.
//! Invariant: one chunk or sample of a tensor a thread is in memory, and 16 KiB of each; the figures do not depend on the
//! number of threads.

mod bins;
mod compute;
mod duplicates;
mod gaussian;
mod layers;
mod moments;
mod plan;
mod presets;
mod sample;
mod sensitivity;
mod spectrum;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernels::symbols::Symbols;
use crate::observe::{Observer, Section};
use crate::tensor::{DType, TensorInfo, try_fold_chunks};
use bins::Bins;
use moments::Moments;
use rayon::prelude::*;

pub use compute::Compute;
pub use layers::NearPair;
pub use plan::AnalysisPlan;
pub use presets::{Arithmetic, PresetOutlook, PresetRefusal};
pub use sensitivity::{SchemeLoss, SchemeTotal, Sensitivity, UnitSensitivity};
pub use spectrum::{EnergyRank, Spectrum};

/// Rates at which the bound of the model is given, bits a weight.
const RATES: [f64; 10] = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
/// Standard deviations from the mean at which a weight counts as an outlier.
const OUTLIER: usize = 6;

/// What tells an analysis from a report.
const OBJECT: &str = "analysis";

/// A model's weights in figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Always `analysis`.
    pub object: String,
    /// Version of this structure: 1.
    pub version: u32,
    /// Engine.
    pub engine_version: String,
    /// Each tensor of floating-point numbers, in the order of the checkpoint.
    pub tensors: Vec<TensorAnalysis>,
    /// Of all of them.
    pub model: ModelAnalysis,
    /// Matrices of different blocks that are nearly the same, nearest first, at most a thousand pairs.
    pub near_layers: Vec<NearPair>,
    /// What each preset would make of the model, in the order of the catalogue.
    pub presets: Vec<PresetOutlook>,
    /// The presets that this model cannot have, and why.
    pub refused_presets: Vec<PresetRefusal>,
    /// What schemes would cost each tensor, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sensitivity: Option<Sensitivity>,
}

/// All tensors together. Tensors that are other tensors' duplicates count like any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAnalysis {
    /// Floating-point numbers.
    pub parameters: u64,
    /// Bytes they have in the checkpoint.
    pub bytes: u64,
    /// Bytes they would have in plain types.
    pub memory: Memory,
    /// What a token costs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compute: Option<Compute>,
    /// Bytes that a code for each number by itself needs at least, to give back every bit: entropy of the stored symbols.
    /// None if there are tensors of another type than f16 and bf16.
    pub lossless_bytes: Option<u64>,
    /// Bytes of tensors that are another tensor's duplicate.
    pub duplicate_bytes: u64,
    /// The rate–distortion bound of independent Gaussian numbers with the tensors' variances: no quantizer of such numbers
    /// does better.
    pub gaussian_bound: Vec<RatePoint>,
}

/// Bytes in plain types, without scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// 4 bytes a weight.
    pub fp32_bytes: u64,
    /// 2 bytes.
    pub fp16_bytes: u64,
    /// 1 byte.
    pub int8_bytes: u64,
    /// Half a byte.
    pub int4_bytes: u64,
}

impl Memory {
    /// Of so many weights.
    fn of(parameters: u64) -> Self {
        Self {
            fp32_bytes: 4 * parameters,
            fp16_bytes: 2 * parameters,
            int8_bytes: parameters,
            int4_bytes: parameters.div_ceil(2),
        }
    }
}

/// A point of a rate–distortion curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatePoint {
    /// Rate.
    pub bits_per_weight: f64,
    /// Distortion: mean square error.
    pub mse: f64,
    /// Variance over distortion, decibels.
    pub snr_db: f64,
}

/// The numbers of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorAnalysis {
    /// Name in the checkpoint.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Type in the checkpoint.
    pub dtype: String,
    /// How many numbers.
    pub parameters: u64,
    /// Bytes in the checkpoint.
    pub bytes: u64,
    /// NaN and infinities; they are in no other figure.
    pub not_finite: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Smallest and largest.
    pub range: Option<[f32; 2]>,
    /// Largest magnitude over the smallest that is not zero, decibels.
    pub dynamic_range_db: Option<f64>,
    /// Share of zeros, 0 to 1.
    pub sparsity: f64,
    /// 0 for a Gaussian, more with heavier tails.
    pub excess_kurtosis: Option<f64>,
    /// Numbers 6 or more standard deviations from the mean; a Gaussian has two in a billion.
    pub outliers: u64,
    /// Entropy of the stored 16-bit symbols, bits a number; for other types, of the numbers rounded to bfloat16.
    pub symbol_entropy_bits: f64,
    /// `½ log₂(2πe σ²)`: differential entropy of a Gaussian with this variance, bits.
    pub gaussian_entropy_bits: Option<f64>,
    /// How much less than that the numbers' own is, bits a number, estimated in the finest bins: what their shape is worth
    /// to an ideal code. Below 0 by what the estimate errs.
    pub non_gaussian_bits: Option<f64>,
    /// Entropy of the numbers in bins of several widths.
    pub bins: Vec<BinEntropy>,
    /// An earlier tensor with the same type, shape and bytes.
    pub duplicate_of: Option<String>,
    /// What its singular values say; none for vectors, and for matrices whose smaller side is longer than 2048.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spectrum: Option<Spectrum>,
}

/// Entropy in bins of one width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinEntropy {
    /// Of a bin.
    pub width: f64,
    /// The same in standard deviations.
    pub width_in_sigma: f64,
    /// Shannon entropy, bits a number.
    pub bits: f64,
}

/// Analyzes every tensor of floating-point numbers; quantized ones as what they decode to. Reads the weights twice, or
/// three times where two tensors look the same, and a sample of each for each preset.
///
/// # Errors
/// `cancelled` when the observer says so, `io` when a file cannot be read any more.
pub fn analyze(model: &Checkpoint, observer: &dyn Observer) -> Result<Analysis> {
    analyze_in(model, observer, SECTIONS)
}

/// Sections that every analysis has.
pub(crate) const SECTIONS: usize = 3;

/// The same as the first sections of `of`.
pub(crate) fn analyze_in(model: &Checkpoint, observer: &dyn Observer, of: usize) -> Result<Analysis> {
    let section = |at| Section {
        whole: observer,
        at,
        of,
    };
    let infos: Vec<&TensorInfo> = model
        .tensors
        .iter()
        .filter(|info| info.dtype.is_float())
        .collect();
    let total: u64 = infos.iter().map(|info| info.bytes).sum();
    let observer: &dyn Observer = &section(0);
    observer.stage("analyze", 0, 1);
    let (mut tensors, mut looks, mut done) = (Vec::with_capacity(infos.len()), Vec::new(), 0);
    for info in &infos {
        let moments = moments_of(model, info, observer)?;
        tensors.push(tensor(model, info, &moments, observer)?);
        looks.push((*info, moments));
        done += info.bytes;
        observer.advanced(done, total, &info.name);
    }
    for (of, original) in duplicates::find(model, &looks, observer)? {
        tensors[of].duplicate_of = Some(infos[original].name.clone());
    }
    let observer: &dyn Observer = &section(1);
    observer.stage("spectra", 0, 1);
    spectra(model, &infos, &mut tensors, observer)?;
    let near_layers = layers::near(model, &infos, observer)?;
    let sources = sources(&looks);
    let observer: &dyn Observer = &section(2);
    observer.stage("presets", 0, 1);
    let (presets, refused_presets) = presets::all(model, &sources, observer)?;
    Ok(Analysis {
        object: OBJECT.to_owned(),
        version: 1,
        engine_version: crate::VERSION.to_owned(),
        model: whole(model, &tensors, &looks, &sources),
        tensors,
        near_layers,
        presets,
        refused_presets,
        sensitivity: None,
    })
}

fn go_on(observer: &dyn Observer) -> Result<()> {
    if observer.should_stop() {
        return Err(Error::cancelled());
    }
    Ok(())
}

fn moments_of(model: &Checkpoint, info: &TensorInfo, observer: &dyn Observer) -> Result<Moments> {
    let parts = try_fold_chunks(&model.rows(info)?, |_, values| {
        go_on(observer)?;
        Ok(Moments::of(values))
    })?;
    Ok(parts.into_iter().fold(Moments::default(), Moments::merge))
}

fn tensor(
    model: &Checkpoint,
    info: &TensorInfo,
    moments: &Moments,
    observer: &dyn Observer,
) -> Result<TensorAnalysis> {
    let std = moments.variance().sqrt();
    let symbols = Symbols::new(info.dtype, info.elements());
    let bins = Bins::new(moments.mean, std);
    try_fold_chunks(&model.rows(info)?, |_, values| {
        go_on(observer)?;
        symbols.count(values);
        if let Some(bins) = &bins {
            bins.count(values);
        }
        Ok(())
    })?;
    let outliers = bins.as_ref().map_or(0, |bins| bins.beyond(OUTLIER));
    let bins = bins.map_or_else(Vec::new, Bins::entropies);
    let gaussian = gaussian::differential_entropy(moments.variance());
    let finest = bins.first().map(|finest| finest.bits + finest.width.log2());
    Ok(TensorAnalysis {
        name: info.name.clone(),
        shape: info.shape.clone(),
        dtype: info.dtype.name().to_owned(),
        parameters: info.elements() as u64,
        bytes: info.bytes,
        not_finite: moments.not_finite,
        mean: moments.mean,
        std,
        range: (moments.count > 0).then_some([moments.min, moments.max]),
        dynamic_range_db: dynamic_range_db(moments),
        sparsity: moments.zeros as f64 / moments.count.max(1) as f64,
        excess_kurtosis: moments.excess_kurtosis(),
        outliers,
        symbol_entropy_bits: symbols.entropy(),
        gaussian_entropy_bits: gaussian,
        non_gaussian_bits: gaussian.zip(finest).map(|(gaussian, own)| gaussian - own),
        bins,
        duplicate_of: None,
        spectrum: None,
    })
}

/// Matrices whose spectra are found at a time, whatever the number of threads: each holds a square of its smaller side.
const AT_A_TIME: usize = 4;

/// Fills in the spectra of matrices of finite numbers; a duplicate has its original's.
fn spectra(
    model: &Checkpoint,
    infos: &[&TensorInfo],
    tensors: &mut [TensorAnalysis],
    observer: &dyn Observer,
) -> Result<()> {
    let total: u64 = infos.iter().map(|info| info.bytes).sum();
    let mut done = 0;
    for (infos, tensors) in infos.chunks(AT_A_TIME).zip(tensors.chunks_mut(AT_A_TIME)) {
        let found: Vec<Option<Spectrum>> = infos
            .par_iter()
            .zip(&*tensors)
            .map(|(info, tensor)| {
                if info.shape.len() < 2 || tensor.not_finite > 0 || tensor.duplicate_of.is_some() {
                    return Ok(None);
                }
                let rows = model.rows(info)?;
                let (cols, go_on) = (info.cols(), || go_on(observer));
                spectrum::spectrum(&rows, info.elements() / cols.max(1), cols, &go_on)
            })
            .collect::<Result<_>>()?;
        for (tensor, spectrum) in tensors.iter_mut().zip(found) {
            tensor.spectrum = spectrum;
        }
        done += infos.iter().map(|info| info.bytes).sum::<u64>();
        observer.advanced(done, total, infos.last().map_or("", |info| &info.name));
    }
    for at in 0..tensors.len() {
        // An original stands before its duplicates.
        let (before, rest) = tensors.split_at_mut(at);
        if let Some(name) = rest[0].duplicate_of.as_ref() {
            let original = before.iter().find(|tensor| tensor.name == *name);
            rest[0].spectrum = original.and_then(|tensor| tensor.spectrum.clone());
        }
    }
    Ok(())
}

fn dynamic_range_db(moments: &Moments) -> Option<f64> {
    let (largest, smallest) = (f64::from(moments.largest()), f64::from(moments.smallest));
    (smallest.is_finite() && largest > 0.0).then(|| 20.0 * (largest / smallest).log10())
}

/// How many numbers each tensor has, and their variance.
fn sources(looks: &[(&TensorInfo, Moments)]) -> Vec<(u64, f64)> {
    let source = |(_, moments): &(&TensorInfo, Moments)| (moments.count, moments.variance());
    looks.iter().map(source).collect()
}

fn whole(
    model: &Checkpoint,
    tensors: &[TensorAnalysis],
    looks: &[(&TensorInfo, Moments)],
    sources: &[(u64, f64)],
) -> ModelAnalysis {
    let parameters: u64 = tensors.iter().map(|tensor| tensor.parameters).sum();
    let sixteen = |info: &TensorInfo| matches!(info.dtype, DType::F16 | DType::BF16);
    let lossless = looks.iter().all(|(info, _)| sixteen(info)).then(|| {
        let bits = |tensor: &TensorAnalysis| tensor.symbol_entropy_bits * tensor.parameters as f64;
        (tensors.iter().map(bits).sum::<f64>() / 8.0).ceil() as u64
    });
    ModelAnalysis {
        parameters,
        bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        memory: Memory::of(parameters),
        compute: Some(compute::Active::of(model).compute()),
        lossless_bytes: lossless,
        duplicate_bytes: tensors
            .iter()
            .filter(|tensor| tensor.duplicate_of.is_some())
            .map(|tensor| tensor.bytes)
            .sum(),
        gaussian_bound: gaussian::curve(sources, &RATES),
    }
}
