//! Bitmasks.
//!
//! Owns: which values are kept, packing and unpacking them. Must not know: other layouts.
//! Invariant: bits behind a row's last column are 0; a mask that has others is refused.

use super::damaged;
use crate::error::{Error, Result};

/// Bytes of a row of a mask.
pub fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(8)
}

/// The mask of all values but +0.
pub fn nonzero(dense: &[u8], width: usize, cols: usize) -> Vec<u8> {
    match width {
        2 => of_rows::<2>(dense, cols),
        4 => of_rows::<4>(dense, cols),
        _ => of_any(dense, width, cols),
    }
}

fn of_rows<const WIDTH: usize>(dense: &[u8], cols: usize) -> Vec<u8> {
    let mut mask = Vec::with_capacity(dense.len() / (8 * WIDTH).max(1) + 1);
    for row in dense.as_chunks::<WIDTH>().0.chunks(cols.max(1)) {
        for eight in row.chunks(8) {
            let bits = eight.iter().enumerate();
            mask.push(bits.fold(0, |byte, (i, value)| byte | u8::from(*value != [0; WIDTH]) << i));
        }
    }
    mask
}

fn of_any(dense: &[u8], width: usize, cols: usize) -> Vec<u8> {
    let mut mask = Vec::new();
    for row in dense.chunks((cols * width).max(1)) {
        for eight in row.chunks((8 * width).max(1)) {
            let values = eight.chunks(width.max(1)).enumerate();
            mask.push(values.fold(0, |byte, (i, value)| {
                byte | u8::from(value.iter().any(|b| *b != 0)) << i
            }));
        }
    }
    mask
}

/// The mask of exactly `keep` values in every run of `of` columns, which divide the rows: those other than zero, then −0,
/// then the earliest. Refused where a run has more.
pub fn of_runs(dense: &[u8], width: usize, cols: usize, (keep, of): (usize, usize)) -> Result<Vec<u8>> {
    if width == 0 || of == 0 || keep > of || !cols.is_multiple_of(of) {
        return Err(Error::internal("runs that do not divide rows"));
    }
    let rows = dense.len() / (cols * width).max(1);
    let mut mask = vec![0; rows * row_bytes(cols)];
    let mut order: Vec<(u8, usize)> = Vec::with_capacity(of);
    for (at, run) in dense.chunks_exact(of * width).enumerate() {
        let (row, first) = (at * of / cols, at * of % cols);
        order.clear();
        order.extend(run.chunks_exact(width).map(rank).zip(0..));
        order.sort_unstable();
        if order.get(keep).is_some_and(|(rank, _)| *rank == 0) {
            return Err(Error::bad_input(
                "pattern_does_not_hold",
                format!(
                    "row {row}, columns {first} to {}: more than {keep} of {of} values are not zero",
                    first + of - 1
                ),
            ));
        }
        for (_, i) in &order[..keep] {
            let column = first + i;
            mask[row * row_bytes(cols) + column / 8] |= 1 << (column % 8);
        }
    }
    Ok(mask)
}

/// 0 for a value, 1 for −0, 2 for +0.
fn rank(value: &[u8]) -> u8 {
    match value.split_last() {
        Some((0, low)) if low.iter().all(|b| *b == 0) => 2,
        Some((0x80, low)) if low.iter().all(|b| *b == 0) => 1,
        _ => 0,
    }
}

/// How many values a mask keeps.
pub fn count(mask: &[u8]) -> usize {
    let (words, rest) = mask.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word).count_ones());
    let rest = rest.iter().map(|byte| byte.count_ones());
    words.chain(rest).map(|n| n as usize).sum()
}

/// Keeps zeros too, the earliest, until a mask keeps `total` values; false where it has no room for them or keeps more.
pub fn fill(mask: &mut [u8], cols: usize, total: usize) -> bool {
    let Some(mut missing) = total.checked_sub(count(mask)) else {
        return false;
    };
    for row in mask.chunks_mut(row_bytes(cols).max(1)) {
        for column in 0..cols {
            if missing == 0 {
                return true;
            }
            let (byte, bit) = (column / 8, 1u8 << (column % 8));
            if let Some(byte) = row.get_mut(byte).filter(|byte| **byte & bit == 0) {
                *byte |= bit;
                missing -= 1;
            }
        }
    }
    missing == 0
}

/// Where each row begins among the values.
pub fn row_offsets(mask: &[u8], cols: usize) -> Vec<u64> {
    let rows = mask.chunks(row_bytes(cols).max(1));
    let begins = rows.scan(0u64, |before, row| {
        let begin = *before;
        *before += count(row) as u64;
        Some(begin)
    });
    begins.collect()
}

/// The kept columns of a row.
pub(super) fn columns(row: &[u8]) -> impl Iterator<Item = usize> + '_ {
    row.iter().enumerate().flat_map(|(at, byte)| {
        let mut left = *byte;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (bit < 8).then_some(8 * at + bit)
        })
    })
}

/// The values that a mask keeps; there are as many rows of the mask as of values.
pub fn gather(dense: &[u8], width: usize, cols: usize, mask: &[u8]) -> Vec<u8> {
    let mut values = Vec::with_capacity(count(mask) * width);
    let rows = dense.chunks((cols * width).max(1));
    for (row, mask) in rows.zip(mask.chunks(row_bytes(cols).max(1))) {
        for column in columns(mask) {
            values.extend_from_slice(row.get(column * width..(column + 1) * width).unwrap_or_default());
        }
    }
    values
}

/// Puts values where a mask has them; `dense`, which is all zeros, has the shape.
pub fn scatter(values: &[u8], width: usize, cols: usize, mask: &[u8], dense: &mut [u8]) -> Result<()> {
    let row = cols.saturating_mul(width);
    let rows = dense.len().checked_div(row).unwrap_or(0);
    if rows * row != dense.len() || mask.len() != rows * row_bytes(cols) {
        return Err(damaged("its mask has another shape"));
    }
    if count(mask).checked_mul(width) != Some(values.len()) {
        return Err(damaged("its mask keeps another number of values than there are"));
    }
    let mut values = values.chunks_exact(width.max(1));
    let rows = dense.chunks_exact_mut(row.max(1));
    for (row, mask) in rows.zip(mask.chunks(row_bytes(cols).max(1))) {
        for column in columns(mask) {
            let place = row.get_mut(column * width..(column + 1) * width);
            let place = place.ok_or_else(|| damaged("its mask has bits behind a row"))?;
            if let Some(value) = values.next() {
                place.copy_from_slice(value);
            }
        }
    }
    Ok(())
}
