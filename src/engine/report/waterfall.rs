//! How the bytes fall, stage by stage.
//!
//! Owns: [`SizeStep`] and its drawing. Must not know: formats' layouts.
//! Invariant: the first step is the original, the last ones are what was written.

use super::html::{bytes, escape, grouped};
use super::{FormatReport, Report};
use crate::plan::{Plan, TensorPlan};
use crate::weight::Kind;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Bytes of the tensors at some point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeStep {
    /// `original`, the technique of a stage, or a format.
    pub name: String,
    /// Bytes: behind a stage those of codes, scales and zeros, in a format those that were written.
    pub bytes: u64,
}

/// The original, what each stage leaves of it, each format.
pub(super) fn steps(plan: &Plan, formats: &[FormatReport]) -> Vec<SizeStep> {
    let step = |name: &str, bytes: u64| SizeStep {
        name: name.to_owned(),
        bytes,
    };
    let original = std::iter::once(step("original", plan.source_bytes));
    let plans = plan.all().into_iter();
    let stages = plans.flat_map(|plan| {
        plan.stages.iter().enumerate().map(move |(index, stage)| {
            let sum = match &stage.outline {
                Some(outline) => outline.bytes(),
                None => plan.tensors.iter().map(|tensor| behind(tensor, index)).sum(),
            };
            step(&stage.technique, sum)
        })
    });
    let written = formats
        .iter()
        .map(|format| step(&format.format, format.weight_bytes));
    original.chain(stages).chain(written).collect()
}

/// What a tensor takes behind a stage. Plain numbers between stages are kept wide; they count in the model's own type.
fn behind(tensor: &TensorPlan, stage: usize) -> u64 {
    let last = tensor.steps.iter().rfind(|step| step.stage <= stage);
    match last.map(|step| step.kind) {
        None | Some(Kind::Dense { dtype: _ }) => tensor.source_bytes,
        Some(kind) => kind.payload_bytes(tensor.rows(), tensor.cols()),
    }
}

/// The original and each format.
fn ends(report: &Report) -> Vec<SizeStep> {
    let original = ("original", report.totals.source_bytes);
    let formats = report.formats.iter().map(|f| (f.format.as_str(), f.weight_bytes));
    let step = |(name, bytes): (&str, u64)| SizeStep {
        name: name.to_owned(),
        bytes,
    };
    std::iter::once(original).chain(formats).map(step).collect()
}

/// Bars from the original to what was written.
pub(super) fn drawing(out: &mut String, report: &Report) {
    let steps = match report.sizes.as_slice() {
        // Of a version that did not say.
        [] => &ends(report),
        steps => steps,
    };
    let widest = steps.iter().map(|step| step.bytes).max().unwrap_or(1).max(1) as f64;
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 900 {}\" role=\"img\" aria-label=\"bytes stage by stage\">",
        steps.len() * 30 + 6
    );
    let first = steps.first().map_or(1, |step| step.bytes).max(1) as f64;
    for (i, step) in steps.iter().enumerate() {
        let (y, width) = (i * 30 + 4, (step.bytes as f64 / widest * 520.0).max(1.0));
        let colour = if i == 0 { "--two" } else { "--bar" };
        let share = 100.0 * step.bytes as f64 / first;
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\">{}</text><rect x=\"150\" y=\"{y}\" width=\"{width:.1}\" height=\"22\" rx=\"3\" \
             fill=\"var({colour})\"><title>{}: {} bytes</title></rect><text x=\"{:.1}\" y=\"{}\">{}, {share:.1} %</text>",
            y + 15,
            escape(&step.name),
            escape(&step.name),
            grouped(step.bytes),
            width + 158.0,
            y + 15,
            bytes(step.bytes)
        );
    }
    out.push_str("</svg></div>");
}
