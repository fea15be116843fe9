//! Choosing: one of several schemes for each tensor so that a limit holds (Lagrangian rate–distortion), and those of several
//! results that are worth having (Pareto).
//!
//! Owns: the trade of bytes against loss. Must not know: tensors, schemes, how a loss was found.
//! Invariant: what is chosen keeps the limit, and is the same for the same numbers.

mod allocate;
mod calibration;
mod front;

pub use allocate::{Point, Unit, largest, loss_of, smallest, within_bytes, within_loss};
pub use calibration::{Forecast, Sample};
pub use front::{BestFor, Outcome, best_for, front};
