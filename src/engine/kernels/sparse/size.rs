//! What a matrix takes in each layout.
//!
//! Owns: this reckoning, the choice of the smallest. Must not know: how anything is packed beyond its size.
//! Invariant: sizes are those that encoding gives, to the byte.

use super::{csr, mask, runs};

/// Bytes of where a row of a bitmask begins, as compressed-tensors stores it.
const OFFSET_BYTES: usize = 8;

/// A matrix with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Values other than zero.
    pub nonzero: usize,
    /// Bytes of a value.
    pub width: usize,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All values.
    Dense,
    /// Of every `of` columns `keep` values, and their indices.
    Runs {
        /// Values of a run.
        keep: usize,
        /// Columns of a run.
        of: usize,
    },
    /// A bit for each value, the values other than zero, and where rows begin.
    Bitmask,
    /// A column for each value other than zero, and where rows begin.
    Csr,
}

impl Layout {
    /// Bytes of a matrix; none where the layout cannot hold it.
    pub fn bytes(self, matrix: &Matrix) -> Option<u64> {
        let Matrix {
            rows,
            cols,
            nonzero,
            width,
        } = *matrix;
        let bytes = match self {
            Self::Dense => rows * cols * width,
            Self::Runs { keep, of } => {
                if of == 0 || keep > of || !cols.is_multiple_of(of) || nonzero > rows * (cols / of) * keep {
                    return None;
                }
                rows * (cols / of * keep * width + runs::row_bytes(cols, (keep, of)))
            }
            Self::Bitmask => rows * (mask::row_bytes(cols) + OFFSET_BYTES) + nonzero * width,
            Self::Csr => {
                let column = csr::number_bytes(cols.saturating_sub(1));
                nonzero * (width + column) + (rows + 1) * csr::number_bytes(nonzero)
            }
        };
        Some(bytes as u64)
    }
}

/// The smallest layout of a matrix, which keeps a pattern or none, and its bytes; the plainest of equals.
pub fn smallest(matrix: &Matrix, pattern: Option<(usize, usize)>) -> (Layout, u64) {
    let runs = pattern.map(|(keep, of)| Layout::Runs { keep, of });
    let layouts = [
        Some(Layout::Dense),
        runs,
        Some(Layout::Bitmask),
        Some(Layout::Csr),
    ];
    let sizes = layouts
        .into_iter()
        .flatten()
        .filter_map(|layout| Some((layout, layout.bytes(matrix)?)));
    sizes
        .min_by_key(|(_, bytes)| *bytes)
        .unwrap_or((Layout::Dense, 0))
}
