//! Matrix products on the units of a CPU that multiply bf16 and add up in f32: tiles (Intel AMX), or vectors of pairs
//! (AVX-512 BF16).
//!
//! Owns: how products and Gram matrices are cut for these units. Must not know: what the matrices mean.
//! Invariant: pieces are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads.
//!
//! A float is rounded to the bf16 nearest to it, or split into that one and the bf16 nearest to what is left, 16 bits of
//! mantissa in all; then of the four products of parts the three larger are added up: the scheme that oneMKL calls
//! `bf16x3`. The error of a sum is about 5·10⁻⁶ of the root of the sum of its squared terms, where it is 2·10⁻⁷ in f32 and
//! 3·10⁻³ with one part. Denormals count as 0; an infinite factor gives NaN where floats are split.

mod block;
mod pack;
mod pairs;
mod tiles;

use super::linalg::View;
use block::{Block, SIDE};
use pack::{Buffer, Line, Order, pack};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use tiles::Tiles;

/// Into how many bf16 a float is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// The nearest.
    One,
    /// And the one nearest to what is left.
    Two,
}

impl Parts {
    /// Lines of a panel of that depth.
    fn lines(self, depth: &Range<usize>) -> usize {
        depth.len().div_ceil(SIDE) * self.step()
    }

    /// Lines of one of its steps.
    fn step(self) -> usize {
        match self {
            Self::One => SIDE,
            Self::Two => 2 * SIDE,
        }
    }
}

/// Whether this CPU has units that make products of such parts faster than f32's.
pub(super) fn available(parts: Parts) -> bool {
    tiles::available() || parts == Parts::One && pairs::pay()
}

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
pub(super) fn pays(m: usize, n: usize, k: usize, parts: Parts) -> bool {
    m >= 64 && n >= 64 && k >= 64 && available(parts)
}

/// Pieces of at most `most`, all of one size but the last, and that a multiple of the side of a block.
fn pieces(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let size = length
        .div_ceil(length.div_ceil(most).max(1))
        .next_multiple_of(SIDE);
    (0..length)
        .step_by(size.max(1))
        .map(move |from| from..(from + size).min(length))
}

/// `out = a · b`; out `[m, n]`, every element of which is written, a `[m, k]`, b `[k, n]`.
pub(super) fn fill(a: View<'_>, b: View<'_>, out: &mut [MaybeUninit<f32>], parts: Parts) {
    let (n, b) = (b.cols, b.t());
    let mut packed = Buffer::lent();
    for cols in pieces(n, COLS) {
        for depth in pieces(a.cols, DEPTH) {
            pack_all(&b, cols.clone(), (&depth, parts), &mut packed);
            out.par_chunks_mut(ROWS * n).enumerate().for_each(|(task, out)| {
                let rows = task * ROWS..task * ROWS + out.len() / n;
                let left = Left::pack(&a, rows, (&depth, parts));
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
        pack_all(&x, 0..x.rows, (&depth, Parts::Two), &mut packed);
        strips
            .par_iter_mut()
            .with_max_len(1)
            .for_each(|(row, cols, values)| {
                let left = Left::pack(&x, *row..*cols, (&depth, Parts::Two));
                left.times(&packed, *cols, |i, j, block| {
                    block.add(&mut values[i * *cols + j..], *cols, *cols - j);
                });
            });
    }
}

/// Packs rows `outer` of a matrix as the right side of products, panel by panel.
fn pack_all(from: &View<'_>, outer: Range<usize>, (depth, parts): (&Range<usize>, Parts), into: &mut Buffer) {
    let lines = parts.lines(depth);
    let into = into.sized(outer.len().div_ceil(SIDE) * lines);
    into.par_chunks_mut(PANELS * lines)
        .enumerate()
        .for_each(|(task, into)| {
            for (i, into) in into.chunks_mut(lines).enumerate() {
                let first = outer.start + (task * PANELS + i) * SIDE;
                let columns = first..(first + SIDE).min(outer.end);
                pack(from, columns, (depth, parts), Order::Right, into);
            }
        });
}

/// Some rows of the left side, packed.
struct Left {
    packed: Buffer,
    rows: usize,
    parts: Parts,
    /// Lines of a panel.
    lines: usize,
}

impl Left {
    fn pack(from: &View<'_>, rows: Range<usize>, (depth, parts): (&Range<usize>, Parts)) -> Self {
        let lines = parts.lines(depth);
        let mut packed = Buffer::lent();
        let into = packed.sized(rows.len().div_ceil(SIDE) * lines);
        for (i, into) in into.chunks_mut(lines).enumerate() {
            let first = rows.start + i * SIDE;
            let rows = first..(first + SIDE).min(rows.end);
            pack(from, rows, (depth, parts), Order::Left, into);
        }
        Self {
            packed,
            rows: rows.len(),
            parts,
            lines,
        }
    }

    /// Multiplies with the first `cols` columns of the right side; `put` gets the row and column of each block.
    fn times(&self, right: &Buffer, cols: usize, mut put: impl FnMut(usize, usize, &Block)) {
        let unit = Unit::ready();
        let mut block = Block::default();
        for (j, right) in right
            .lines()
            .chunks(self.lines)
            .take(cols.div_ceil(SIDE))
            .enumerate()
        {
            for (i, left) in self.packed.lines().chunks(self.lines).enumerate() {
                unit.multiply(self.parts, left, right, &mut block);
                block.rows = (self.rows - i * SIDE).min(SIDE);
                put(i * SIDE, j * SIDE, &block);
            }
        }
    }
}

/// What makes blocks.
enum Unit {
    Tiles(Tiles),
    Pairs,
}

impl Unit {
    /// This CPU's best, ready on this thread.
    fn ready() -> Self {
        if tiles::available() {
            Self::Tiles(Tiles::configure())
        } else {
            Self::Pairs
        }
    }

    /// The product of two panels of those parts.
    fn multiply(&self, parts: Parts, left: &[Line], right: &[Line], block: &mut Block) {
        match (self, parts) {
            (Self::Tiles(tiles), Parts::One) => tiles.multiply(left, right, block),
            (Self::Tiles(tiles), Parts::Two) => tiles.multiply_split(left, right, block),
            (Self::Pairs, Parts::One) => pairs::multiply(left, right, block),
            (Self::Pairs, Parts::Two) => unreachable!("no product of two parts pays here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the CPU's best units hide from other tests: the vectors' products, in any unit's order of adding up.
    #[test]
    fn both_units_make_the_same_products() {
        if !tiles::available() || !pairs::available() {
            return;
        }
        let values = |n: usize, seed: u64| -> Vec<f32> {
            let mut random = crate::kernels::random::Random::new(seed);
            (0..n)
                .map(|_| random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0)
                .collect()
        };
        for (rows, cols, k) in [(32, 32, 64), (5, 32, 70), (32, 17, 33)] {
            let (x, w) = (values(rows * k, 1), values(cols * k, 2));
            let depth = (&(0..k), Parts::One);
            let mut panels = [Buffer::lent(), Buffer::lent()];
            let lines = Parts::One.lines(depth.0);
            pack(
                &View::rows(&x, rows, k, k),
                0..rows,
                depth,
                Order::Left,
                panels[0].sized(lines),
            );
            pack(
                &View::rows(&w, cols, k, k),
                0..cols,
                depth,
                Order::Right,
                panels[1].sized(lines),
            );
            let (mut by_tiles, mut by_pairs) = (Block::default(), Block::default());
            Tiles::configure().multiply(panels[0].lines(), panels[1].lines(), &mut by_tiles);
            pairs::multiply(panels[0].lines(), panels[1].lines(), &mut by_pairs);
            for (a, b) in by_tiles.values.iter().zip(&by_pairs.values) {
                assert!(
                    (a - b).abs() < 1e-5 * (k as f32).sqrt(),
                    "{rows} {cols} {k}: {a} {b}"
                );
            }
            assert!(by_pairs.values.iter().any(|v| v.abs() > 0.5));
        }
    }
}
