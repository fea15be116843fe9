//! Gradients of attention.
//!
//! Owns: the backward pass of `FlashAttention` (Dao et al. 2022), which makes the weights again instead of keeping them.
//! Must not know: models. Invariant: one task makes all gradients of a key/value head of a sequence, in a fixed order, so
//! the bits do not depend on the number of threads.

use super::attention::{Heads, QUERIES};
use super::elementwise::{exp_sum, row_max};
use crate::kernels::linalg::{Into, View, product};
use crate::kernels::wide;
use rayon::prelude::*;
use std::cell::RefCell;

/// What the forward pass read and made, and the gradient by what it made.
#[derive(Clone, Copy, Debug)]
pub struct Passed<'a> {
    /// Queries, `[tokens, heads · head_dim]`.
    pub q: &'a [f32],
    /// Keys, `[tokens, kv_heads · head_dim]`.
    pub k: &'a [f32],
    /// Values, the same.
    pub v: &'a [f32],
    /// The result.
    pub out: &'a [f32],
    /// The gradient by it.
    pub by_out: &'a [f32],
}

/// Gradients by queries, keys and values.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By q.
    pub q: Vec<f32>,
    /// By k.
    pub k: Vec<f32>,
    /// By v.
    pub v: Vec<f32>,
}

impl Gradients {
    fn zeros(rows: usize, q: usize, kv: usize) -> Self {
        Self {
            q: vec![0.0; rows * q],
            k: vec![0.0; rows * kv],
            v: vec![0.0; rows * kv],
        }
    }
}

/// Scores and their gradients, of one tile of queries and all keys.
#[derive(Default)]
struct Buffers {
    shares: Vec<f32>,
    slopes: Vec<f32>,
}

thread_local!(static BUFFERS: RefCell<Buffers> = RefCell::default());

/// The gradients of [`super::attention::attention`].
pub fn attention_back(passed: &Passed<'_>, lengths: &[usize], heads: &Heads) -> Gradients {
    let dim = heads.head_dim;
    let tokens: usize = lengths.iter().sum();
    let mut tasks = Vec::new();
    let mut start = 0;
    for length in lengths.iter().copied() {
        tasks.extend((0..heads.kv_heads).map(|kv| (start, length, kv)));
        start += length;
    }
    let parts: Vec<Gradients> = tasks
        .par_iter()
        .map(|(start, length, kv)| {
            BUFFERS.with_borrow_mut(|buffers| {
                Task {
                    passed,
                    heads,
                    start: *start,
                    length: *length,
                    kv: *kv,
                }
                .run(buffers)
            })
        })
        .collect();
    let shared = heads.heads / heads.kv_heads * dim;
    let mut all = Gradients::zeros(tokens, heads.heads * dim, heads.kv_heads * dim);
    for ((start, _, kv), part) in tasks.iter().zip(&parts) {
        put(
            &part.q,
            shared,
            &mut all.q,
            heads.heads * dim,
            *start,
            kv * shared,
        );
        put(&part.k, dim, &mut all.k, heads.kv_heads * dim, *start, kv * dim);
        put(&part.v, dim, &mut all.v, heads.kv_heads * dim, *start, kv * dim);
    }
    all
}

/// Copies rows of `width` into columns `col ..` of rows `row ..` of `cols`.
fn put(from: &[f32], width: usize, to: &mut [f32], cols: usize, row: usize, col: usize) {
    for (from, to) in from.chunks(width).zip(to.chunks_mut(cols).skip(row)) {
        to[col..col + width].copy_from_slice(from);
    }
}

/// One key/value head of one sequence.
struct Task<'a> {
    passed: &'a Passed<'a>,
    heads: &'a Heads,
    start: usize,
    length: usize,
    kv: usize,
}

impl Task<'_> {
    fn run(&self, buffers: &mut Buffers) -> Gradients {
        let shared = self.heads.heads / self.heads.kv_heads;
        let dim = self.heads.head_dim;
        let mut made = Gradients::zeros(self.length, shared * dim, dim);
        for first in (0..self.length).step_by(QUERIES) {
            for head in 0..shared {
                self.tile(first, head, buffers, &mut made);
            }
        }
        made
    }

    fn tile(&self, first: usize, head: usize, buffers: &mut Buffers, made: &mut Gradients) {
        let (heads, dim) = (self.heads, self.heads.head_dim);
        let (cols, kv_cols) = (heads.heads * dim, heads.kv_heads * dim);
        let shared = heads.heads / heads.kv_heads;
        let rows = QUERIES.min(self.length - first);
        let keys = heads.keys(first, first + rows, self.length);
        let n = keys.len();
        let at = (self.start + first) * cols + (self.kv * shared + head) * dim;
        let kv_at = (self.start + keys.start) * kv_cols + self.kv * dim;
        let q = View::rows(&self.passed.q[at..], rows, dim, cols);
        let by_out = View::rows(&self.passed.by_out[at..], rows, dim, cols);
        let k = View::rows(&self.passed.k[kv_at..], n, dim, kv_cols);
        let v = View::rows(&self.passed.v[kv_at..], n, dim, kv_cols);
        buffers.shares.resize(rows * n, 0.0);
        buffers.slopes.resize(rows * n, 0.0);
        let (shares, slopes) = (&mut buffers.shares[..rows * n], &mut buffers.slopes[..rows * n]);
        product(shares, n, Into::Replace, q, k.t(), heads.scale);
        for (r, row) in shares.chunks_mut(n).enumerate() {
            heads.mask(first + r, keys.start, row);
            softmax(row);
        }
        product(slopes, n, Into::Replace, by_out, v.t(), 1.0);
        for (r, (shares, slopes)) in shares.chunks(n).zip(slopes.chunks_mut(n)).enumerate() {
            let row = at + r * cols;
            let out = &self.passed.out[row..row + dim];
            let by_out = &self.passed.by_out[row..row + dim];
            let level = out.iter().zip(by_out).map(|(a, b)| a * b).sum();
            score_slopes(shares, level, heads.scale, slopes);
        }
        let shares = View::rows(shares, rows, n, n);
        let slopes = View::rows(slopes, rows, n, n);
        let (mine, wide) = (&mut made.q[first * shared * dim + head * dim..], shared * dim);
        product(mine, wide, Into::Replace, slopes, k, 1.0);
        product(
            &mut made.k[keys.start * dim..],
            dim,
            Into::Add,
            slopes.t(),
            q,
            1.0,
        );
        product(
            &mut made.v[keys.start * dim..],
            dim,
            Into::Add,
            shares.t(),
            by_out,
            1.0,
        );
    }
}

fn softmax(row: &mut [f32]) {
    let (mut highest, mut sum) = (0.0, 0.0);
    row_max(row, &mut highest);
    if highest == f32::NEG_INFINITY {
        row.fill(0.0);
        return;
    }
    exp_sum(row, highest, &mut sum);
    let factor = 1.0 / sum;
    for v in row {
        *v *= factor;
    }
}

wide! {
    /// Gradients by scores out of those by their shares.
    fn score_slopes(shares: &[f32], level: f32, scale: f32, slopes: &mut [f32]) {
        for (slope, share) in slopes.iter_mut().zip(shares) {
            *slope = share * (*slope - level) * scale;
        }
    }
}
