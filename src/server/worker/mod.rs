//! Attempts: claimed jobs become artifacts.
//!
//! Owns: compute threads, scratch space, the way from the engine's outcome to published bytes.
//! Must not know: HTTP, SQL; what a technique does.
//! Invariant: an attempt publishes everything in one fenced transaction or nothing, whenever the process dies.

mod attempt;
pub mod engine;
mod pool;
pub mod probe;
mod publish;
mod scratch;
mod watch;

pub use pool::{Kit, Pool, PoolError, Settings};
pub use watch::Watch;

#[cfg(test)]
mod tests;
