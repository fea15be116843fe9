//! Named points of an attempt, where tests make things go wrong.
//!
//! Owns: the points and what can happen at one.
//! Must not know: what the attempt does between them.
//! Invariant: in a release build nothing happens at any point.

use std::sync::Arc;

/// A point of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The job is claimed, nothing is done yet.
    Claimed,
    /// What an earlier attempt left is where the engine looks for it.
    Restored,
    /// The engine has made some of its bytes.
    Stage,
    /// What there is so far is in the blob store, and the job refers to it.
    Checkpoint,
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
    /// All of them, in the order in which an attempt passes them. It passes [`Point::Checkpoint`] only where others could
    /// go on with the job.
    pub const ALL: [Self; 8] = [
        Self::Claimed,
        Self::Restored,
        Self::Stage,
        Self::Checkpoint,
        Self::Made,
        Self::Publish,
        Self::Stored,
        Self::Finished,
    ];

    /// Its name in `MODELPRESS_PROBE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Restored => "restored",
            Self::Stage => "stage",
            Self::Checkpoint => "checkpoint",
            Self::Made => "made",
            Self::Publish => "publish",
            Self::Stored => "stored",
            Self::Finished => "finished",
        }
    }
}

/// Something that went wrong on purpose.
#[derive(Debug, Clone, Copy)]
pub struct Mishap;

/// Someone who is told of each point.
pub trait Probe: Send + Sync + std::fmt::Debug {
    /// The attempt is here. May fail it, panic or end the process.
    fn reach(&self, point: Point) -> Result<(), Mishap>;
}

/// Lets everything pass.
#[derive(Debug)]
pub struct Silent;

impl Probe for Silent {
    fn reach(&self, _point: Point) -> Result<(), Mishap> {
        Ok(())
    }
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
    fn reach(&self, point: Point) -> Result<(), Mishap> {
        if point == self.0 {
            // As hard as kill -9: no destructor, no flush.
            std::process::abort();
        }
        Ok(())
    }
}
