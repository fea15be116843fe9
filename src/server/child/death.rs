//! How a child ended that gave no answer.
//!
//! Owns: what a signal and the last lines on standard error mean.
//! Must not know: what the child was at.
//! Invariant: what is said to users names no path and no line of ours; the log has them.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// `SIGABRT`: also what Rust does when memory is refused.
const ABORTED: i32 = 6;
/// `SIGKILL`: by the system when memory runs out, or by somebody.
const KILLED: i32 = 9;
/// What the runtime says before it aborts for want of memory.
const REFUSED: &str = "memory allocation of";

/// A child's end without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// What it comes down to.
    pub cause: Cause,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Its last lines on standard error, for the log.
    pub last_words: String,
    /// Most memory it was seen to use.
    pub peak_rss_bytes: u64,
}

/// Why a child ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It did not stop when it was asked to, and was ended.
    Ended,
    /// It asked for more memory than its limit.
    Memory,
    /// Somebody ended it: the system, when memory runs out, or a person.
    Killed,
    /// Anything else is a bug of ours.
    Crashed,
}

impl Death {
    pub(super) fn new(
        status: ExitStatus,
        last_words: String,
        peak_rss_bytes: u64,
        ended_by_us: bool,
    ) -> Self {
        let signal = status.signal();
        let cause = match signal {
            _ if ended_by_us => Cause::Ended,
            Some(ABORTED) if last_words.contains(REFUSED) => Cause::Memory,
            Some(KILLED) => Cause::Killed,
            _ => Cause::Crashed,
        };
        Self {
            cause,
            signal,
            last_words,
            peak_rss_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_and_last_words_tell_why() {
        let death = |raw: i32, words: &str, ours: bool| {
            Death::new(ExitStatus::from_raw(raw), words.to_owned(), 0, ours).cause
        };
        assert_eq!(
            death(6, "memory allocation of 8 bytes failed\n", false),
            Cause::Memory
        );
        assert_eq!(death(6, "assertion", false), Cause::Crashed);
        assert_eq!(death(11, "", false), Cause::Crashed);
        assert_eq!(death(1 << 8, "", false), Cause::Crashed);
        assert_eq!(death(9, "", false), Cause::Killed);
        assert_eq!(death(9, "", true), Cause::Ended);
    }
}
