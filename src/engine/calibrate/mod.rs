//! Running a model over data, block by block.
//!
//! Owns: token sequences, the walk through the blocks, what waits between them. Must not know: techniques, formats.
//! Invariant: one block's weights are in memory at a time; what waits between blocks stays within its budget and goes
//! to scratch beyond it.

mod chat;
mod fisher;
mod sequences;
mod squares;
mod stash;
mod tokens;
mod walk;

pub use fisher::Descent;
pub(crate) use fisher::LABEL_ROWS;
pub use sequences::{Choice, Sequences, sequences};
pub use squares::{BYTES_A_COLUMN, ColumnSquares, SquareSums};
pub use stash::Stash;
pub use tokens::Tokens;
pub use walk::{Here, Pace, Source, Visitor, Walk, batch_tokens};
