//! What a forward pass is made of, on slices of f32: element-wise functions, norms, rotary positions, attention.
//!
//! Owns: the arithmetic. Must not know: tensors of a framework, models.
//! Invariant: the same bits for any number of threads: work is split into pieces fixed by the shapes.

pub mod attention;
pub mod attention_back;
pub mod elementwise;
pub mod norm;
pub mod rope;

use rayon::prelude::*;

/// Elements that one task of an element-wise walk handles.
const TASK: usize = 32 * 1024;

/// Rows of `cols` elements that one task handles.
fn task_rows(cols: usize) -> usize {
    (TASK / cols.max(1)).max(1)
}

/// Applies `f` to rows of `out` and the same rows of `x`, in parallel.
fn each_rows(x: &[f32], out: &mut [f32], cols: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) {
    let step = task_rows(cols) * cols.max(1);
    out.par_chunks_mut(step)
        .zip(x.par_chunks(step))
        .for_each(|(out, x)| f(x, out));
}
