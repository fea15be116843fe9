//! What a failed attempt means for its job.
//!
//! Owns: which failures are tried again, and after how long.
//! Must not know: who failed or why.
//! Invariant: bad input ends a job at its first attempt; nothing is tried without end.

use std::time::Duration;

use crate::domain::Failure;
use crate::domain::lease::backoff_ms;
use crate::domain::queue::End;

/// Whether another attempt can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hope {
    /// The input or the request is wrong, or the program is: the same would happen again.
    None,
    /// Something outside gave out: disk, memory, another service.
    Passing,
    /// It crashed: once more, in case it was the machine, then it is our bug.
    Crash,
}

/// The end of an attempt that failed. `chance` is a random number in [0, 1).
pub fn after(failure: Failure, hope: Hope, attempt: u32, chance: f64) -> End {
    let again = match hope {
        Hope::None => false,
        Hope::Passing => true,
        Hope::Crash => attempt < 2,
    };
    if again {
        End::Retry(failure, Duration::from_millis(backoff_ms(attempt, chance)))
    } else {
        End::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_is_tried_again() {
        let end = |hope, attempt| {
            let failure = Failure {
                code: "x".into(),
                message: String::new(),
            };
            match after(failure, hope, attempt, 0.5) {
                End::Retry(_, wait) => Some(wait.as_millis()),
                _ => None,
            }
        };
        assert_eq!(end(Hope::None, 1), None);
        assert_eq!(end(Hope::Passing, 1), Some(2_500));
        assert_eq!(end(Hope::Passing, 2), Some(5_000));
        assert_eq!(end(Hope::Crash, 1), Some(2_500));
        assert_eq!(end(Hope::Crash, 2), None);
    }
}
