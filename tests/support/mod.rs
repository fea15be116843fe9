//! What tests share: a real server on a free port over a temporary folder, and small models.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

mod advance;
pub mod app;
pub mod hooks;
pub mod memory;
pub mod models;
pub mod stopping;
mod sums;
