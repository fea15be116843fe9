//! An observer that wants nothing done.

use modelpress_engine::observe::Level;
use modelpress_engine::{Observer, Usage};
use serde_json::Value;

/// An observer that asks to stop at once.
pub struct Stopping;

impl Observer for Stopping {
    fn stage(&self, _name: &str, _index: usize, _of: usize) {}
    fn advanced(&self, _bytes_done: u64, _bytes_total: u64, _detail: &str) {}
    fn event(&self, _level: Level, _message: &str, _data: Value) {}
    fn should_stop(&self) -> bool {
        true
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}
