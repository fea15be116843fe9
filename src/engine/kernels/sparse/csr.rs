//! Compressed rows: a column for each value, and where rows begin.
//!
//! Owns: the widths of both numbers. Must not know: other layouts.
//! Invariant: numbers are as narrow as the matrix allows; columns of a row ascend.

use super::{damaged, mask};
use crate::error::Result;

/// A matrix in compressed rows; numbers are little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// Where each row begins among the values, and where the last one ends.
    pub row_offsets: Vec<u8>,
    /// The column of each value.
    pub columns: Vec<u8>,
    /// Values, row after row.
    pub values: Vec<u8>,
}

/// Bytes of a number up to `largest`: 1, 2, 4 or 8.
pub fn number_bytes(largest: usize) -> usize {
    match largest {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// Takes a matrix apart.
pub fn encode(dense: &[u8], width: usize, cols: usize) -> Csr {
    let mask = mask::nonzero(dense, width, cols);
    let (column, offset) = (
        number_bytes(cols.saturating_sub(1)),
        number_bytes(mask::count(&mask)),
    );
    let mut csr = Csr {
        row_offsets: vec![0; offset],
        columns: Vec::new(),
        values: mask::gather(dense, width, cols, &mask),
    };
    for row in mask.chunks(mask::row_bytes(cols).max(1)) {
        for at in mask::columns(row) {
            csr.columns
                .extend_from_slice(&(at as u64).to_le_bytes()[..column]);
        }
        let end = (csr.columns.len() / column) as u64;
        csr.row_offsets.extend_from_slice(&end.to_le_bytes()[..offset]);
    }
    csr
}

fn number(bytes: &[u8]) -> usize {
    let mut wide = [0; 8];
    wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = *byte);
    usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX)
}

/// Puts the values of a matrix into their columns; `dense`, which is all zeros, has the shape.
pub fn decode(csr: &Csr, width: usize, cols: usize, dense: &mut [u8]) -> Result<()> {
    let row = cols.saturating_mul(width);
    let rows = dense.len().checked_div(row).unwrap_or(0);
    let count = csr.values.len() / width.max(1);
    let (column, offset) = (number_bytes(cols.saturating_sub(1)), number_bytes(count));
    if rows * row != dense.len()
        || count * width != csr.values.len()
        || Some(csr.columns.len()) != count.checked_mul(column)
        || csr.row_offsets.len() != (rows + 1) * offset
    {
        return Err(damaged("its parts are not as long as its shape has them"));
    }
    let mut ends = csr.row_offsets.chunks_exact(offset).map(number);
    let mut begin = ends.next().unwrap_or(usize::MAX);
    if begin != 0 {
        return Err(damaged("its first row does not begin with the first value"));
    }
    for (end, dense) in ends.zip(dense.chunks_exact_mut(row.max(1))) {
        let values = csr
            .values
            .get(begin.saturating_mul(width)..end.saturating_mul(width));
        let columns = csr
            .columns
            .get(begin.saturating_mul(column)..end.saturating_mul(column));
        let (Some(values), Some(columns)) = (values, columns) else {
            return Err(damaged("a row ends before it begins, or behind the last value"));
        };
        let mut before = None;
        for (value, at) in values
            .chunks_exact(width.max(1))
            .zip(columns.chunks_exact(column))
        {
            let at = number(at);
            if at >= cols || before.is_some_and(|before| at <= before) {
                return Err(damaged("its columns do not ascend within a row"));
            }
            before = Some(at);
            dense[at * width..(at + 1) * width].copy_from_slice(value);
        }
        begin = end;
    }
    if begin == count {
        Ok(())
    } else {
        Err(damaged("its last row ends before the last value"))
    }
}
