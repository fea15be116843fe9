//! Where there are no units that multiply bf16.
//!
//! Owns: the answer that there are none. Must not know: anything else.
//! Invariant: no product is ever asked of them.

use super::linalg::View;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Into how many bf16 a float is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    One,
    Two,
}

pub(super) fn available(_parts: Parts) -> bool {
    false
}

pub(super) fn pays(_m: usize, _n: usize, _k: usize, _parts: Parts) -> bool {
    false
}

pub(super) fn fill(_a: View<'_>, _b: View<'_>, _out: &mut [MaybeUninit<f32>], _parts: Parts) {
    unreachable!("no product pays here");
}

pub(super) fn add_gram<'a>(
    _x: View<'_>,
    _strips: impl IndexedParallelIterator<Item = (usize, usize, &'a mut Vec<f32>)>,
) {
    unreachable!("no product pays here");
}
