//! Attempts: claimed jobs become artifacts.
//!
//! Owns: scratch space, the way from the engine's outcome to published bytes.
//! Must not know: HTTP, SQL; what a technique does.
//! Invariant: an attempt publishes everything in one fenced transaction or nothing, whenever the process dies.

mod attempt;
mod checkpoint;
mod decode;
pub mod engine;
mod kit;
mod pool;
pub mod probe;
mod publish;
mod scratch;
mod tidy;
mod watch;

pub use kit::{Kit, Settings};
pub use pool::{Pool, PoolError};
pub use watch::Watch;

#[cfg(test)]
mod tests;
