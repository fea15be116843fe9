//! Named points of an attempt, where tests make things go wrong.
//!
//! Owns: the points and what can happen at one.
//! Must not know: what the attempt does between them.
//! Invariant: in a release build nothing happens at any point.

use std::sync::Arc;

/// A point that every successful attempt passes, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The job is claimed, nothing is done yet.
    Claimed,
    /// The engine has made some of its bytes.
    Stage,
    /// The engine is done; its files are in scratch space.
    Made,
    /// Some of the files are in the blob store, none is referred to.
    Publish,
    /// All are, and the transaction has not begun.
    Stored,
    /// The transaction is committed.
    Finished,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Claimed,
        Self::Stage,
        Self::Made,
        Self::Publish,
        Self::Stored,
        Self::Finished,
    ];

    /// Its name in `MODELPRESS_PROBE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Stage => "stage",
            Self::Made => "made",
            Self::Publish => "publish",
            Self::Stored => "stored",
            Self::Finished => "finished",
        }
    }
}

/// Someone who is told of each point.
pub trait Probe: Send + Sync + std::fmt::Debug {
    /// The attempt is here. May panic or end the process.
    fn reach(&self, point: Point);
}

/// Lets everything pass.
#[derive(Debug)]
pub struct Silent;

impl Probe for Silent {
    fn reach(&self, _point: Point) {}
}

/// In a debug build, the probe that `MODELPRESS_PROBE` asks for: `publish:abort` kills the process at that point.
pub fn from_env() -> Arc<dyn Probe> {
    #[cfg(debug_assertions)]
    if let Some(probe) = Abort::from_env() {
        return Arc::new(probe);
    }
    Arc::new(Silent)
}

#[cfg(debug_assertions)]
#[derive(Debug)]
struct Abort(Point);

#[cfg(debug_assertions)]
impl Abort {
    fn from_env() -> Option<Self> {
        let asked = std::env::var("MODELPRESS_PROBE").ok()?;
        let name = asked.strip_suffix(":abort")?;
        Point::ALL
            .into_iter()
            .find(|point| point.as_str() == name)
            .map(Self)
    }
}

#[cfg(debug_assertions)]
impl Probe for Abort {
    fn reach(&self, point: Point) {
        if point == self.0 {
            // As hard as kill -9: no destructor, no flush.
            std::process::abort();
        }
    }
}
