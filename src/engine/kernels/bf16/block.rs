//! Blocks: what a unit makes at a time.
//!
//! Owns: their side, and how they are written to a matrix. Must not know: units.
//! Invariant: a block lies on a boundary of 64 bytes, row by row.

use super::Parts;
use super::pack::Line;
use crate::kernels::wide;
use std::mem::MaybeUninit;

/// Rows and columns of a block, and how much of the inner dimension one step takes.
pub(super) const SIDE: usize = 32;

/// Steps of two panels.
///
/// # Panics
/// Where they are not of one depth, or have none.
pub(super) fn steps(left: &[Line], right: &[Line], parts: Parts) -> usize {
    let steps = left.len() / parts.step();
    assert!(
        steps > 0 && left.len() == steps * parts.step() && right.len() == left.len(),
        "depth of panels"
    );
    steps
}

/// 32 by 32 results, of which `rows` are wanted.
#[repr(C, align(64))]
pub(super) struct Block {
    pub(super) values: [f32; SIDE * SIDE],
    pub(super) rows: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            values: [0.0; SIDE * SIDE],
            rows: SIDE,
        }
    }
}

impl Block {
    /// Adds it to `out`, whose rows lie `stride` apart and of which `cols` columns are left.
    pub(super) fn add(&self, out: &mut [f32], stride: usize, cols: usize) {
        add_rows(&self.values, self.rows, out, stride, cols.min(SIDE));
    }

    /// Adds it to what [`Block::write`] has written there.
    pub(super) fn add_again(&self, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        add_again(&self.values, self.rows, out, stride, cols.min(SIDE));
    }

    /// Writes it there.
    pub(super) fn write(&self, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        write_rows(&self.values, self.rows, out, stride, cols.min(SIDE));
    }
}

wide! {
    fn write_rows(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                to.write(*from);
            }
        }
    }
}

wide! {
    fn add_rows(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [f32], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                *to += from;
            }
        }
    }
}

wide! {
    /// The same where numbers were written before, but not in all of `out`.
    fn add_again(values: &[f32; SIDE * SIDE], rows: usize, out: &mut [MaybeUninit<f32>], stride: usize, cols: usize) {
        for (to, from) in out.chunks_mut(stride).zip(values.chunks_exact(SIDE)).take(rows) {
            for (to, from) in to[..cols].iter_mut().zip(from) {
                #[expect(unsafe_code, reason = "numbers that were written through the same slice")]
                // SAFETY: who calls has written this rectangle.
                let before = unsafe { to.assume_init() };
                to.write(before + from);
            }
        }
    }
}
