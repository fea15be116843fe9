//! Pruning with error compensation: `SparseGPT` (Frantar and Alistarh 2023), an optimal brain surgeon for whole layers.
//!
//! Owns: the solve for one matrix. Must not know: where its Hessian comes from.
//! Invariant: which weights go is decided block after block of columns, for all rows at once, and what the others make up
//! for row by row, so the bits do not depend on the number of threads.

use super::{Cut, count, cut};
use crate::error::{Error, Result};
use crate::kernels::gptq::Curvature;
use crate::kernels::linalg::{Into, View, product};
use crate::kernels::{check_finite, wide};
use crate::weight::Pattern;
use rayon::prelude::*;

/// Columns whose zeros are chosen together and whose errors are carried on together.
const BLOCK: usize = 128;
/// Rows that one task makes.
const ROWS: usize = 96;

/// How much goes.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where zeros may lie.
    pub pattern: Pattern,
    /// Share of the weights, 0 to 1; that of the pattern where it has one.
    pub share: f64,
}

/// A pruned matrix and what it costs.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The weights, row-major.
    pub values: Vec<f32>,
    /// Σ (w / `U_jj)²` / 2 over all that went: the predicted loss.
    pub loss: f64,
}

/// Prunes `w` of `[rows, n]`, row-major. Where the Hessian cannot be had, the smallest `|w|·‖x‖` of each row go instead.
pub fn solve(
    mut w: Vec<f32>,
    curvature: &Curvature,
    rule: Rule,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Pruned> {
    let n = curvature.n;
    check_finite(&w, 0)?;
    let Some(factor) = curvature.factor() else {
        by_inputs(&mut w, curvature, rule);
        return Ok(Pruned { values: w, loss: 0.0 });
    };
    // A weight on an input that never was anything else than 0 is worth nothing.
    for row in w.chunks_mut(n.max(1)) {
        let dead = row.iter_mut().zip(curvature.importance());
        dead.filter(|(_, x)| **x == 0.0).for_each(|(w, _)| *w = 0.0);
    }
    let rows = w.len() / n.max(1);
    let block = match rule.pattern {
        Pattern::Unstructured => BLOCK,
        Pattern::NOfM { of, .. } => (BLOCK / of).max(1) * of,
    };
    let (mut loss, mut gone) = (0f64, 0);
    for start in (0..n).step_by(block) {
        if stop() {
            return Err(Error::cancelled());
        }
        let end = (start + block).min(n);
        let taken = match rule.pattern {
            Pattern::Unstructured => {
                let due = count(rows * end, rule.share).saturating_sub(gone);
                gone += due;
                chosen(&w, factor, n, (start, end), due)
            }
            Pattern::NOfM { .. } => vec![0; rows * (end - start)],
        };
        let span = Span {
            factor,
            n,
            start,
            end,
            pattern: rule.pattern,
        };
        let tasks = w
            .par_chunks_mut(ROWS * n)
            .zip(taken.par_chunks(ROWS * (end - start)));
        let losses: Vec<f64> = tasks.map(|(w, taken)| span.prune(w, taken)).collect();
        loss += losses.iter().sum::<f64>();
    }
    Ok(Pruned { values: w, loss })
}

fn by_inputs(w: &mut [f32], curvature: &Curvature, rule: Rule) {
    let n = curvature.n;
    let score = |at: usize, w: f32| w.abs() * curvature.importance()[at % n].max(0.0).sqrt();
    match rule.pattern {
        Pattern::Unstructured => super::rows(w, n, count(n, rule.share), &score),
        Pattern::NOfM { keep, of } => super::n_of_m(w, n, (keep, of), &score),
    }
}

/// Marks the `due` weights of a block of columns that cost least, each by itself: `w² / U_jj²`.
fn chosen(w: &[f32], factor: &[f32], n: usize, (start, end): (usize, usize), due: usize) -> Vec<u8> {
    let (width, rows) = (end - start, w.len() / n);
    let diagonal: Vec<f32> = (start..end).map(|j| factor[j * n + j]).collect();
    let score = |at: usize| {
        let (row, j) = (at / width, at % width);
        let ratio = w[row * n + start + j] / diagonal[j];
        ratio * ratio
    };
    let mut taken = vec![0; rows * width];
    if due > 0 {
        let mut cut: Cut = cut(taken.len(), due, &score);
        for (at, taken) in taken.iter_mut().enumerate() {
            *taken = u8::from(cut.takes(score(at)));
        }
    }
    taken
}

/// Some columns.
struct Span<'a> {
    factor: &'a [f32],
    n: usize,
    start: usize,
    end: usize,
    pattern: Pattern,
}

impl Span<'_> {
    fn prune(&self, w: &mut [f32], taken: &[u8]) -> f64 {
        let (n, width) = (self.n, self.end - self.start);
        let rows = w.len() / n;
        let (mut errors, mut loss) = (vec![0f32; rows * width], 0f64);
        prune_block(self, w, taken, &mut errors, &mut loss);
        if self.end < n {
            let errors = View::rows(&errors, rows, width, width);
            let u = View::rows(&self.factor[self.start * n + self.end..], width, n - self.end, n);
            product(&mut w[self.end..], n, Into::Add, errors, u, -1.0);
        }
        loss
    }
}

/// Which of a run's weights go: those that cost least as they are now.
#[inline(always)]
fn choose_run(w: &[f32], span: &Span<'_>, j: usize, (keep, of): (usize, usize), taken: &mut [u8]) {
    let cost = |i: usize| {
        let ratio = w[j + i] / span.factor[(j + i) * span.n + j + i];
        ratio * ratio
    };
    for (i, taken) in taken.iter_mut().enumerate() {
        // Its place among the run, equals in order.
        let own = cost(i);
        let cheaper = (0..of)
            .filter(|k| cost(*k) < own || (cost(*k) == own && *k < i))
            .count();
        *taken = u8::from(cheaper < of - keep);
    }
}

wide! {
    /// Columns of a block: zeroes what goes, and carries its error on to those behind it in the block.
    fn prune_block(span: &Span<'_>, w: &mut [f32], taken: &[u8], errors: &mut [f32], loss: &mut f64) {
        let (n, start, end) = (span.n, span.start, span.end);
        let width = end - start;
        let mut own = vec![0u8; width];
        let rows = w.chunks_exact_mut(n).zip(taken.chunks_exact(width)).zip(errors.chunks_exact_mut(width));
        for ((row, taken), errors) in rows {
            own.copy_from_slice(taken);
            for j in start..end {
                if let Pattern::NOfM { keep, of } = span.pattern && (j - start) % of == 0 {
                    choose_run(row, span, j, (keep, of), &mut own[j - start..j - start + of]);
                }
                if own[j - start] == 0 {
                    continue;
                }
                let u = &span.factor[j * n..(j + 1) * n];
                let error = row[j] / u[j];
                *loss += f64::from(error) * f64::from(error) / 2.0;
                errors[j - start] = error;
                row[j] = 0.0;
                for (w, u) in row[j + 1..end].iter_mut().zip(&u[j + 1..end]) {
                    *w -= error * u;
                }
            }
        }
    }
}
