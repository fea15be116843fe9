//! Engine work in a process of its own: what reads uploaded bytes may crash, grow or hang there, and only there.
//!
//! Owns: starting it, its limits, the lines that go between the two, what its end means.
//! Must not know: queues, requests, rows.
//! Invariant: a child never outlives the process that asked for it: it ends when its standard input does. It is told
//! no secret: its environment is a short list.

mod death;
mod host;
mod inside;
mod limits;
mod mishap;
mod observer;
mod pipe;
mod stash;

pub use death::{Cause, Death};
pub use host::{Ear, End, Host, Job};
pub use inside::run;
pub use pipe::{Answer, Execution, Inspected, Made, Objection, Order, Subject, Word, Wrong};
pub use stash::Kept;
