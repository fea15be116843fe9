//! Rotary position embedding (Su et al. 2021), halves rotated against each other as in the Hugging Face models.
//!
//! Owns: the rotation and its tables. Must not know: how frequencies are scaled.
//! Invariant: a row's position is its place within its own sequence.

use super::task_rows;
use crate::kernels::wide;
use rayon::prelude::*;

/// Cosines and sines, `[positions, rotated / 2]`.
#[derive(Clone, Debug)]
pub struct Table {
    /// `rotated / 2`.
    pub half: usize,
    /// Row-major cosines.
    pub cos: Vec<f32>,
    /// Row-major sines.
    pub sin: Vec<f32>,
}

impl Table {
    /// Angles `position · frequency`, both functions scaled by `factor`.
    pub fn new(frequencies: &[f64], factor: f64, positions: usize) -> Self {
        let angle = |i: usize| {
            let (position, k) = (i / frequencies.len(), i % frequencies.len());
            // Frameworks hold frequency and angle in f32; long positions would differ otherwise.
            f64::from(position as f32 * frequencies[k] as f32)
        };
        let n = positions * frequencies.len();
        Self {
            half: frequencies.len(),
            cos: (0..n).map(|i| (angle(i).cos() * factor) as f32).collect(),
            sin: (0..n).map(|i| (angle(i).sin() * factor) as f32).collect(),
        }
    }
}

/// Rotates rows of `heads` heads of `head_dim`; `positions[r]` is the position of row r. Only the first
/// `2 · table.half` elements of a head are rotated.
pub fn rotate(x: &mut [f32], heads: usize, head_dim: usize, positions: &[u32], table: &Table) {
    turn(x, heads * head_dim, head_dim, positions, table, 1.0);
}

/// The transpose of [`rotate`]: gradients of what was rotated become gradients of what it was before.
pub fn rotate_back(x: &mut [f32], heads: usize, head_dim: usize, positions: &[u32], table: &Table) {
    turn(x, heads * head_dim, head_dim, positions, table, -1.0);
}

fn turn(x: &mut [f32], cols: usize, head_dim: usize, positions: &[u32], table: &Table, sense: f32) {
    let step = task_rows(cols);
    x.par_chunks_mut(step * cols)
        .zip(positions.par_chunks(step))
        .for_each(|(x, positions)| rotate_rows(x, head_dim, cols, positions, table, sense));
}

wide! {
    fn rotate_rows(x: &mut [f32], head_dim: usize, cols: usize, positions: &[u32], table: &Table, sense: f32) {
        let half = table.half;
        for (row, position) in x.chunks_mut(cols).zip(positions) {
            let at = *position as usize * half;
            let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
            for head in row.chunks_mut(head_dim) {
                let (a, rest) = head.split_at_mut(half);
                for (((a, b), c), s) in a.iter_mut().zip(rest).zip(cos).zip(sin) {
                    let (x, y, s) = (*a, *b, s * sense);
                    *a = x * c - y * s;
                    *b = y * c + x * s;
                }
            }
        }
    }
}
