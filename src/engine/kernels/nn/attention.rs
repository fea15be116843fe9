//! Scaled dot-product attention in tiles with a running softmax.
//!
//! Owns: the algorithm of `FlashAttention` (Dao et al. 2022; online softmax by Milakov and Gimelshein 2018) on the CPU.
//! Must not know: models. Invariant: memory is linear in the sequence's length; tiles are fixed, so the bits do not
//! depend on the number of threads.

use super::elementwise::{exp, exp_sum, row_max};
use crate::kernels::linalg::{Into, View, product};
use crate::kernels::wide;
use rayon::prelude::*;
use std::cell::RefCell;

/// Queries of one tile.
pub(super) const QUERIES: usize = 64;
/// Keys of one tile.
const KEYS: usize = 128;

/// Shape of the heads and who may look at whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the scores, usually 1/√`head_dim`.
    pub scale: f32,
    /// A token sees itself and what came before it.
    pub causal: bool,
    /// With `causal`: it sees only so many tokens, itself included.
    pub window: Option<usize>,
}

impl Heads {
    /// The keys that queries `first .. last` of a sequence of `length` see at most.
    pub(super) fn keys(&self, first: usize, last: usize, length: usize) -> std::ops::Range<usize> {
        if !self.causal {
            return 0..length;
        }
        let low = self.window.map_or(0, |w| (first + 1).saturating_sub(w));
        low..last
    }

    /// Hides what query `q` must not see in scores of keys `first ..`.
    pub(super) fn mask(&self, q: usize, first: usize, scores: &mut [f32]) {
        if !self.causal {
            return;
        }
        let seen = (q + 1).saturating_sub(first).min(scores.len());
        scores[seen..].fill(f32::NEG_INFINITY);
        if let Some(window) = self.window {
            let hidden = (q + 1)
                .saturating_sub(window)
                .saturating_sub(first)
                .min(scores.len());
            scores[..hidden].fill(f32::NEG_INFINITY);
        }
    }
}

/// What one task needs: query heads that share keys and values lie one after another, so that a tile of keys is read
/// once for all of them.
#[derive(Default)]
struct Buffers {
    /// `[heads that share · queries, head_dim]`, then what comes out for them.
    queries: Vec<f32>,
    out: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    maxima: Vec<f32>,
}

impl Buffers {
    fn reset(&mut self, rows: usize, dim: usize) {
        self.queries.clear();
        self.out.clear();
        self.out.resize(rows * dim, 0.0);
        self.scores.resize(rows * KEYS, 0.0);
        self.sums.clear();
        self.sums.resize(rows, 0.0);
        self.maxima.clear();
        self.maxima.resize(rows, f32::NEG_INFINITY);
    }
}

thread_local!(static BUFFERS: RefCell<Buffers> = RefCell::default());

/// One tile of queries: the rows of `out` it fills, its sequence's first row and length, its first query.
struct Task<'a> {
    out: &'a mut [f32],
    start: usize,
    length: usize,
    first: usize,
}

/// `out = softmax(q kᵀ · scale) v` for sequences that lie one after another: `lengths` of them. q and out are
/// `[tokens, heads · head_dim]`, k and v `[tokens, kv_heads · head_dim]`.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], lengths: &[usize], heads: &Heads, out: &mut [f32]) {
    let cols = heads.heads * heads.head_dim;
    let mut tasks = Vec::new();
    let (mut rest, mut start) = (out, 0);
    for length in lengths.iter().copied() {
        for first in (0..length).step_by(QUERIES) {
            let rows = QUERIES.min(length - first);
            let (tile, more) = rest.split_at_mut(rows * cols);
            rest = more;
            tasks.push(Task {
                out: tile,
                start,
                length,
                first,
            });
        }
        start += length;
    }
    tasks.par_iter_mut().for_each(|task| {
        BUFFERS.with_borrow_mut(|buffers| run(task, q, k, v, heads, buffers));
    });
}

fn run(task: &mut Task<'_>, q: &[f32], k: &[f32], v: &[f32], heads: &Heads, buffers: &mut Buffers) {
    let (dim, cols, kv_cols) = (
        heads.head_dim,
        heads.heads * heads.head_dim,
        heads.kv_heads * heads.head_dim,
    );
    let queries = task.out.len() / cols;
    let keys = heads.keys(task.first, task.first + queries, task.length);
    let shared = heads.heads / heads.kv_heads;
    let rows = shared * queries;
    for group in 0..heads.kv_heads {
        // Row s · queries + r is query r of the group's head s.
        let place = |row: usize| (row % queries, (group * shared + row / queries) * dim);
        buffers.reset(rows, dim);
        for row in 0..rows {
            let (query, col) = place(row);
            let at = (task.start + task.first + query) * cols + col;
            buffers.queries.extend_from_slice(&q[at..at + dim]);
        }
        for key in keys.clone().step_by(KEYS) {
            let n = KEYS.min(keys.end - key);
            let at = (task.start + key) * kv_cols + group * dim;
            let k = View::rows(&k[at..], n, dim, kv_cols);
            let v = View::rows(&v[at..], n, dim, kv_cols);
            let scores = &mut buffers.scores[..rows * n];
            let q = View::rows(&buffers.queries, rows, dim, dim);
            product(scores, n, Into::Replace, q, k.t(), heads.scale);
            for (row, scores) in scores.chunks_mut(n).enumerate() {
                heads.mask(task.first + row % queries, key, scores);
                let out = &mut buffers.out[row * dim..][..dim];
                fold(scores, &mut buffers.maxima[row], &mut buffers.sums[row], out);
            }
            let p = View::rows(scores, rows, n, n);
            product(&mut buffers.out, dim, Into::Add, p, v, 1.0);
        }
        for (row, sum) in buffers.sums.iter().enumerate() {
            let (query, col) = place(row);
            let out = &mut buffers.out[row * dim..][..dim];
            scale_row(out, 1.0 / sum);
            task.out[query * cols + col..][..dim].copy_from_slice(out);
        }
    }
}

/// Turns a row of scores into weights relative to the largest score so far, and rescales what was summed before.
fn fold(scores: &mut [f32], max: &mut f32, sum: &mut f32, out: &mut [f32]) {
    let mut highest = 0.0;
    row_max(scores, &mut highest);
    if highest > *max {
        let shrink = exp(*max - highest);
        *sum *= shrink;
        scale_row(out, shrink);
        *max = highest;
    }
    if *max == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    let mut more = 0.0;
    exp_sum(scores, *max, &mut more);
    *sum += more;
}

wide! {
    fn scale_row(row: &mut [f32], factor: f32) {
        for v in row {
            *v *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| (((i + seed) * 7919 % 1009) as f32 - 500.0) / 250.0)
            .collect()
    }

    /// Attention as it is written in papers: the whole matrix of scores, one head at a time, f64.
    fn naive(q: &[f32], k: &[f32], v: &[f32], lengths: &[usize], h: &Heads) -> Vec<f64> {
        let (cols, kv_cols) = (h.heads * h.head_dim, h.kv_heads * h.head_dim);
        let mut out = vec![0.0; q.len()];
        let mut start = 0;
        for length in lengths {
            for (head, i) in (0..h.heads).flat_map(|head| (0..*length).map(move |i| (head, i))) {
                let kv = head / (h.heads / h.kv_heads);
                let sees = |j: usize| !h.causal || (j <= i && h.window.is_none_or(|w| j + w > i));
                let dot = |j: usize| -> f64 {
                    (0..h.head_dim)
                        .map(|d| {
                            let a = q[(start + i) * cols + head * h.head_dim + d];
                            f64::from(a) * f64::from(k[(start + j) * kv_cols + kv * h.head_dim + d])
                        })
                        .sum::<f64>()
                        * f64::from(h.scale)
                };
                let seen: Vec<(usize, f64)> =
                    (0..*length).filter(|j| sees(*j)).map(|j| (j, dot(j))).collect();
                let max = seen.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = seen.iter().map(|s| (s.1 - max).exp()).sum();
                for (j, score) in &seen {
                    let p = (score - max).exp() / total;
                    for d in 0..h.head_dim {
                        let value = v[(start + j) * kv_cols + kv * h.head_dim + d];
                        out[(start + i) * cols + head * h.head_dim + d] += p * f64::from(value);
                    }
                }
            }
            start += length;
        }
        out
    }

    #[test]
    fn tiles_agree_with_the_whole_matrix() {
        for (heads, kv_heads, causal, window) in [
            (4, 2, true, None),
            (3, 3, false, None),
            (4, 1, true, Some(5)),
            (2, 2, true, Some(150)),
        ] {
            let h = Heads {
                heads,
                kv_heads,
                head_dim: 16,
                scale: 0.25,
                causal,
                window,
            };
            let lengths = [1, 300, 65, 7];
            let tokens: usize = lengths.iter().sum();
            let q = pattern(tokens * heads * 16, 1);
            let (k, v) = (
                pattern(tokens * kv_heads * 16, 5),
                pattern(tokens * kv_heads * 16, 77),
            );
            let mut out = vec![f32::NAN; q.len()];
            attention(&q, &k, &v, &lengths, &h, &mut out);
            let wanted = naive(&q, &k, &v, &lengths, &h);
            let worst = out
                .iter()
                .zip(&wanted)
                .map(|(a, b)| (f64::from(*a) - b).abs())
                .fold(0.0, f64::max);
            assert!(worst < 1e-5, "{h:?}: {worst}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let h = Heads {
            heads: 3,
            kv_heads: 1,
            head_dim: 32,
            scale: 0.2,
            causal: true,
            window: None,
        };
        let (q, k, v) = (pattern(200 * 96, 1), pattern(200 * 32, 2), pattern(200 * 32, 3));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut out = vec![0.0; q.len()];
            pool.install(|| attention(&q, &k, &v, &[150, 50], &h, &mut out));
            out
        };
        assert_eq!(run(1), run(3));
    }
}
