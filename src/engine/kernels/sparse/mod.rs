//! Matrices with many zeros: the values that are there, and where they are.
//!
//! Owns: bitmasks, runs of n:m, compressed rows (CSR), the exact size of each. Must not know: tensors' names, files, how
//! bytes are coded. Shared by siblings: `mask`.
//! Invariant: what is decoded is what was encoded; what comes from elsewhere is decoded or refused, and takes no more
//! memory than the matrix that the caller gives.
//!
//! A value is a float of `width` bytes, little-endian, its sign in the highest bit. In a bitmask and in CSR only +0 is
//! left out, so that every bit comes back. n:m has no room for more than n values of m: there −0 is left out, too, where
//! others need its place, and comes back as +0.
//!
//! - **Bitmask**: bit `c mod 8` of byte `⌊c / 8⌋` of a row says that column `c` has a value; rows begin with a byte. The
//!   values follow each other, row after row. These are the masks of compressed-tensors (`pack_bitmasks`).
//! - **n:m**: of every m columns exactly n are stored, and the index of each among the m, ascending, in ⌈log₂ m⌉ bits, the
//!   lowest first; rows begin with a byte. For 2:4 these are the two indices of two bits that sparse tensor cores take
//!   (Mishra et al. 2021), before a kernel reorders them.
//! - **CSR**: a column for each value, and where each row begins among them; both numbers are as wide as they must be.

pub mod csr;
pub mod mask;
pub mod runs;
mod size;
#[cfg(test)]
mod tests;

pub use size::{Layout, Matrix, smallest};

use crate::error::Error;

fn damaged(what: &str) -> Error {
    Error::bad_input(
        "invalid_sparse_matrix",
        format!("a sparse matrix is damaged: {what}"),
    )
}
