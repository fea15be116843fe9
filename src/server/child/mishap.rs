//! In a debug build, what goes wrong inside a child on purpose: `MODELPRESS_PROBE=inside:panic` and its like.
//!
//! Owns: the mishaps.
//! Must not know: who tests what with them.
//! Invariant: in a release build there is none.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// A panic.
    Panic,
    /// An abort, as a failed assertion of a library in C would be.
    Abort,
    /// Memory is taken without end.
    Hog,
    /// It goes on for ever and listens to nobody.
    Hang,
}

impl Mishap {
    /// The one that the environment asks for.
    pub(super) fn from_env() -> Option<Self> {
        if !cfg!(debug_assertions) {
            return None;
        }
        match std::env::var("MODELPRESS_PROBE").ok()?.as_str() {
            "inside:panic" => Some(Self::Panic),
            "inside:abort" => Some(Self::Abort),
            "inside:hog" => Some(Self::Hog),
            "inside:hang" => Some(Self::Hang),
            _ => None,
        }
    }

    /// Lets it happen.
    pub(super) fn happen(self) {
        match self {
            #[expect(clippy::panic, reason = "it is asked for")]
            Self::Panic => panic!("on purpose"),
            Self::Abort => std::process::abort(),
            Self::Hog => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(vec![1; 64 << 20]);
                }
            }
            Self::Hang => loop {
                std::thread::park();
            },
        }
    }
}
