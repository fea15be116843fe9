//! Matrix products on the CPU's tile units (Intel AMX), which multiply bf16 and add up in f32.
//!
//! Owns: how products and Gram matrices are cut for these units. Must not know: what the matrices mean.
//! Invariant: pieces are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads.
//!
//! Each float is split into the bf16 nearest to it and the bf16 nearest to what is left, 16 bits of mantissa in all, and
//! of the four products of parts the three larger are added up: the scheme that oneMKL calls `bf16x3`. The error of a
//! sum is then about 5·10⁻⁶ of the root of the sum of its squared terms, where it is 2·10⁻⁷ in f32 and 3·10⁻³ in bf16.
//! Denormals count as 0; an infinite factor gives NaN.

mod pack;
mod tiles;

use super::linalg::View;
use pack::{Buffer, Order, pack};
use rayon::prelude::*;
use std::mem::MaybeUninit;
pub(super) use tiles::available;
use tiles::{Block, LINES, SIDE, Tiles};

/// Most of the inner dimension that is packed at a time.
const DEPTH: usize = 768;
/// The same for Gram matrices, whose inner dimension is long, and how many values they pack of all their columns.
const GRAM_DEPTH: std::ops::RangeInclusive<usize> = 256..=1024;
const GRAM_PACKED: usize = 2 << 20;
/// Rows of a task.
const ROWS: usize = 128;
/// Most columns that are packed at a time.
const COLS: usize = 2048;
/// Panels that one task packs.
const PANELS: usize = 4;

/// Whether a product of these sides is worth packing for.
pub(super) fn pays(m: usize, n: usize, k: usize) -> bool {
    m >= 64 && n >= 64 && k >= 64 && available()
}

/// Pieces of at most `most`, all of one size but the last, and that a multiple of the side of a block.
fn pieces(length: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = length
        .div_ceil(length.div_ceil(most).max(1))
        .next_multiple_of(SIDE);
    (0..length)
        .step_by(size.max(1))
        .map(move |from| from..(from + size).min(length))
}

/// `out = a · b`; out `[m, n]`, every element of which is written, a `[m, k]`, b `[k, n]`.
pub(super) fn fill(a: View<'_>, b: View<'_>, out: &mut [MaybeUninit<f32>]) {
    let (n, b) = (b.cols, b.t());
    let mut packed = Buffer::lent();
    for cols in pieces(n, COLS) {
        for depth in pieces(a.cols, DEPTH) {
            pack_all(&b, cols.clone(), &depth, &mut packed);
            out.par_chunks_mut(ROWS * n).enumerate().for_each(|(task, out)| {
                let rows = task * ROWS..task * ROWS + out.len() / n;
                let left = Left::pack(&a, rows, &depth);
                left.times(&packed, cols.len(), |i, j, block| {
                    let (out, left) = (&mut out[i * n + cols.start + j..], cols.len() - j);
                    if depth.start == 0 {
                        block.write(out, n, left);
                    } else {
                        block.add_again(out, n, left);
                    }
                });
            });
        }
    }
}

/// Adds the lower triangle of xᵀx to its strips; x `[m, k]`. A strip has its first row, the end of its columns and its
/// values, row-major.
pub(super) fn add_gram<'a>(
    x: View<'_>,
    strips: impl IndexedParallelIterator<Item = (usize, usize, &'a mut Vec<f32>)>,
) {
    let x = x.t();
    let (mut strips, mut packed) = (strips.collect::<Vec<_>>(), Buffer::lent());
    let most = (GRAM_PACKED / x.rows.max(1)).clamp(*GRAM_DEPTH.start(), *GRAM_DEPTH.end());
    for depth in pieces(x.cols, most) {
        pack_all(&x, 0..x.rows, &depth, &mut packed);
        strips
            .par_iter_mut()
            .with_max_len(1)
            .for_each(|(row, cols, values)| {
                let left = Left::pack(&x, *row..*cols, &depth);
                left.times(&packed, *cols, |i, j, block| {
                    block.add(&mut values[i * *cols + j..], *cols, *cols - j);
                });
            });
    }
}

/// Packs rows `outer` of a matrix as the right side of products, panel by panel.
fn pack_all(
    from: &View<'_>,
    outer: std::ops::Range<usize>,
    depth: &std::ops::Range<usize>,
    into: &mut Buffer,
) {
    let lines = depth.len().div_ceil(SIDE) * LINES;
    let into = into.sized(outer.len().div_ceil(SIDE) * lines);
    into.par_chunks_mut(PANELS * lines)
        .enumerate()
        .for_each(|(task, into)| {
            for (i, into) in into.chunks_mut(lines).enumerate() {
                let first = outer.start + (task * PANELS + i) * SIDE;
                pack(
                    from,
                    first..(first + SIDE).min(outer.end),
                    depth,
                    Order::Right,
                    into,
                );
            }
        });
}

/// Some rows of the left side, packed.
struct Left {
    packed: Buffer,
    rows: usize,
    /// Lines of a panel.
    lines: usize,
}

impl Left {
    fn pack(from: &View<'_>, rows: std::ops::Range<usize>, depth: &std::ops::Range<usize>) -> Self {
        let lines = depth.len().div_ceil(SIDE) * LINES;
        let mut packed = Buffer::lent();
        let into = packed.sized(rows.len().div_ceil(SIDE) * lines);
        for (i, into) in into.chunks_mut(lines).enumerate() {
            let first = rows.start + i * SIDE;
            pack(
                from,
                first..(first + SIDE).min(rows.end),
                depth,
                Order::Left,
                into,
            );
        }
        Self {
            packed,
            rows: rows.len(),
            lines,
        }
    }

    /// Multiplies with the first `cols` columns of the right side; `put` gets the row and column of each block.
    fn times(&self, right: &Buffer, cols: usize, mut put: impl FnMut(usize, usize, &Block)) {
        let tiles = Tiles::configure();
        let mut block = Block::default();
        for (j, right) in right
            .lines()
            .chunks(self.lines)
            .take(cols.div_ceil(SIDE))
            .enumerate()
        {
            for (i, left) in self.packed.lines().chunks(self.lines).enumerate() {
                tiles.multiply(left, right, &mut block);
                block.rows = (self.rows - i * SIDE).min(SIDE);
                put(i * SIDE, j * SIDE, &block);
            }
        }
    }
}
