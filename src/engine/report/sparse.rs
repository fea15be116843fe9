//! What pruned weights take as a kernel for sparse matrices stores them.
//!
//! Owns: [`SparseSizes`] and its table. Must not know: formats, which files were written.
//! Invariant: plain tensors that a stage pruned are counted, with the zeros that were measured, and nothing else.

use super::html::{escape, grouped, percent};
use super::{Report, TensorReport};
use crate::kernels::sparse::{Layout, Matrix, smallest};
use crate::plan::{Plan, TensorPlan};
use crate::weight::{Kind, Pattern};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Bytes of the pruned plain tensors in each layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseSizes {
    /// How many tensors they are.
    pub tensors: usize,
    /// Their weights.
    pub parameters: u64,
    /// Weights that are not zero.
    pub nonzero: u64,
    /// Bytes with all zeros, as formats of plain numbers store them and engines hold them.
    pub dense_bytes: u64,
    /// The pattern that all of them have, such as `2:4`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pattern: Option<String>,
    /// Bytes of the pattern's values and their indices, two bits each for 2:4.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pattern_bytes: Option<u64>,
    /// Bytes of a bit for each weight, the values, and where rows begin.
    pub bitmask_bytes: u64,
    /// Bytes of compressed rows: a column for each value, as wide as it must be, and where rows begin.
    pub csr_bytes: u64,
    /// Bytes where each tensor has the layout that is smallest for it.
    pub smallest_bytes: u64,
}

/// Sizes of what a plan pruned; nothing where it pruned nothing that stayed plain.
pub(super) fn sizes(plan: &Plan, tensors: &[TensorReport]) -> Option<SparseSizes> {
    let pruned = plan
        .tensors
        .iter()
        .zip(tensors)
        .filter_map(|(planned, measured)| {
            let pattern = planned.sparsity_before(usize::MAX)?.pattern;
            let matrix = matrix(planned, measured)?;
            (planned.name == measured.name).then_some((pattern, matrix))
        });
    let pruned: Vec<(Pattern, Matrix)> = pruned.collect();
    let (first, _) = *pruned.first()?;
    let pattern = Some(first).filter(|first| {
        matches!(first, Pattern::NOfM { .. }) && pruned.iter().all(|(pattern, _)| pattern == first)
    });
    let mut sizes = SparseSizes {
        tensors: pruned.len(),
        pattern: pattern.map(|pattern| pattern.to_string()),
        pattern_bytes: pattern.map(|_| 0),
        ..SparseSizes::default()
    };
    for (pattern, matrix) in &pruned {
        let runs = match pattern {
            Pattern::NOfM { keep, of } => Some((*keep, *of)),
            Pattern::Unstructured => None,
        };
        let bytes = |layout: Layout| layout.bytes(matrix).unwrap_or_default();
        sizes.parameters += (matrix.rows * matrix.cols) as u64;
        sizes.nonzero += matrix.nonzero as u64;
        sizes.dense_bytes += bytes(Layout::Dense);
        sizes.bitmask_bytes += bytes(Layout::Bitmask);
        sizes.csr_bytes += bytes(Layout::Csr);
        sizes.smallest_bytes += smallest(matrix, runs).1;
        let runs = runs.and_then(|(keep, of)| Layout::Runs { keep, of }.bytes(matrix));
        sizes.pattern_bytes = sizes.pattern_bytes.zip(runs).map(|(sum, bytes)| sum + bytes);
    }
    Some(sizes)
}

/// A tensor that stayed plain, with the zeros that it was measured to have.
fn matrix(planned: &TensorPlan, measured: &TensorReport) -> Option<Matrix> {
    let Kind::Dense { dtype } = planned.kind else {
        return None;
    };
    let zeros = (measured.zero_ratio * measured.parameters as f64).round() as usize;
    Some(Matrix {
        rows: planned.rows(),
        cols: planned.cols(),
        nonzero: planned.elements().saturating_sub(zeros),
        width: dtype.bytes(1, 1)?,
    })
}

/// The table.
pub(super) fn section(out: &mut String, report: &Report) {
    let Some(sizes) = &report.sparse else { return };
    let _ = write!(
        out,
        "<h2>Sparse storage</h2><p>What {} pruned tensors of {} weights, {} zeros, take as matrices of a sparse kernel, before \
         entropy coding. Engines hold them dense, unless they have such a kernel.</p><div class=scroll><table>\
         <tr><th>layout<th>bytes<th>of dense</tr>",
        sizes.tensors,
        grouped(sizes.parameters),
        percent(1.0 - sizes.nonzero as f64 / sizes.parameters.max(1) as f64),
    );
    let mut row = |name: &str, bytes: u64| {
        let share = bytes as f64 / sizes.dense_bytes.max(1) as f64;
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}</tr>",
            escape(name),
            grouped(bytes),
            percent(share)
        );
    };
    row("dense, with its zeros", sizes.dense_bytes);
    if let (Some(pattern), Some(bytes)) = (&sizes.pattern, sizes.pattern_bytes) {
        row(&format!("{pattern}, values and indices"), bytes);
    }
    row("bitmask, values and row offsets", sizes.bitmask_bytes);
    row("compressed rows (CSR)", sizes.csr_bytes);
    row("the smallest of these for each tensor", sizes.smallest_bytes);
    out.push_str("</table></div>");
}
