//! How engines keep keys and values.
//!
//! Owns: types of a cache's elements. Must not know: how their scale is found or stored.
//! Invariant: what computes keys or values says so in its plan; its weight stays what it is.

use serde::{Deserialize, Serialize};

/// Type of the elements of a key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheDtype {
    /// E4M3.
    Fp8,
    /// 8-bit integers.
    Int8,
}

/// How the engine keeps keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePlan {
    /// Index of the stage that finds their scale.
    pub stage: usize,
    /// Type of the elements.
    pub dtype: CacheDtype,
}
