//! n:m: of every m columns n values, and which they are.
//!
//! Owns: their indices. Must not know: which weights were pruned.
//! Invariant: a run's indices ascend, so each matrix has one encoding.

use super::{damaged, mask};
use crate::error::{Error, Result};

/// A matrix of which every run of `of` columns has `keep` values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Values, row after row.
    pub values: Vec<u8>,
    /// Their indices within their runs.
    pub indices: Vec<u8>,
}

/// Bits of an index among `of`.
pub fn index_bits(of: usize) -> usize {
    of.saturating_sub(1)
        .checked_ilog2()
        .map_or(0, |log| log as usize + 1)
}

/// Bytes of a row's indices.
pub fn row_bytes(cols: usize, (keep, of): (usize, usize)) -> usize {
    (cols / of.max(1) * keep * index_bits(of)).div_ceil(8)
}

/// Takes a matrix apart; refused where a run has more values than it may keep.
pub fn encode(dense: &[u8], width: usize, cols: usize, pattern: (usize, usize)) -> Result<Runs> {
    let (_, of) = pattern;
    let mask = mask::of_runs(dense, width, cols, pattern)?;
    let (bits, row) = (index_bits(of), row_bytes(cols, pattern));
    let mut indices = Vec::with_capacity(dense.len() / (cols * width).max(1) * row);
    for mask in mask.chunks(mask::row_bytes(cols).max(1)) {
        let first = indices.len();
        indices.resize(first + row, 0u8);
        let packed = &mut indices[first..];
        for (at, column) in mask::columns(mask).enumerate() {
            for bit in (0..bits).filter(|bit| (column % of) >> bit & 1 == 1) {
                packed[(at * bits + bit) / 8] |= 1 << ((at * bits + bit) % 8);
            }
        }
    }
    Ok(Runs {
        values: mask::gather(dense, width, cols, &mask),
        indices,
    })
}

/// Puts the values of a matrix where its indices say; `dense`, which is all zeros, has the shape.
pub fn decode(
    runs: &Runs,
    width: usize,
    cols: usize,
    (keep, of): (usize, usize),
    dense: &mut [u8],
) -> Result<()> {
    if width == 0 || of == 0 || keep == 0 || keep > of || !cols.is_multiple_of(of) {
        return Err(Error::internal("runs that do not divide rows"));
    }
    let rows = dense.len() / (cols * width).max(1);
    let (bits, row) = (index_bits(of), row_bytes(cols, (keep, of)));
    let kept = cols / of * keep;
    if rows * cols * width != dense.len()
        || runs.indices.len() != rows * row
        || runs.values.len() != rows * kept * width
    {
        return Err(damaged("its values or indices are not as many as its shape has"));
    }
    let values = runs.values.chunks_exact((kept * width).max(1));
    let places = dense.chunks_exact_mut((cols * width).max(1));
    for ((indices, values), dense) in runs.indices.chunks(row.max(1)).zip(values).zip(places) {
        let mut before = None;
        for (at, value) in values.chunks_exact(width).enumerate() {
            let bit = |bit: usize| {
                usize::from(indices[(at * bits + bit) / 8] >> ((at * bits + bit) % 8) & 1) << bit
            };
            let index: usize = (0..bits).map(bit).sum();
            let column = at / keep * of + index;
            if index >= of || before.is_some_and(|before| column <= before) {
                return Err(damaged("its indices do not ascend"));
            }
            before = Some(column);
            dense[column * width..(column + 1) * width].copy_from_slice(value);
        }
    }
    Ok(())
}
