//! Weights as products of smaller weights: low-rank matrices, convolutions in stages, fewer heads.
//!
//! Owns: the truncated decompositions, what they lose at every rank, and how a budget of parameters is shared between
//! them. Must not know: checkpoints, recipes, which layers are worth it.
//! Invariant: everything is computed in f64 and stored in f32; pieces of parallel work are cut by the shapes alone and
//! faer runs each on one thread, so the bits do not depend on the number of threads.
//!
//! Matrices are row-major `[rows, cols]`: a linear layer's `[out, in]`. Convolution kernels are `[O, I, kh, kw]`.

pub mod allocate;
pub mod cp;
mod dense;
pub mod heads;
pub mod kernel;
mod randomized;
pub mod residual;
pub mod separable;
pub mod spatial;
pub mod svd;
pub mod tensor_train;
mod truncation;
pub mod tucker;
pub mod whitened;

pub use truncation::{Factors, Truncation, rank_for_energy, rank_for_ratio};

/// Asked between steps of long computations; once it says so they end with [`crate::error::Error::cancelled`].
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// An error once `stop` says so.
fn go_on(stop: Stop<'_>) -> crate::error::Result<()> {
    if stop() {
        return Err(crate::error::Error::cancelled());
    }
    Ok(())
}

#[cfg(test)]
mod samples;
