//! Zeros that a stage promises, and where.
//!
//! Owns: patterns and their names. Must not know: which weights become zeros.
//! Invariant: a pattern that is parsed is written again as the same text.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where zeros lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Anywhere.
    Unstructured,
    /// Of every `of` consecutive inputs of a row at most `keep` are other than zero, as sparse tensor cores want it (2:4).
    NOfM {
        /// Weights that may stay.
        keep: usize,
        /// Of so many.
        of: usize,
    },
}

impl Pattern {
    /// Reads `unstructured` or `2:4`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "unstructured" {
            return Some(Self::Unstructured);
        }
        let (keep, of) = text.split_once(':')?;
        let number = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())
        };
        let (keep, of): (usize, usize) = (number(keep)??, number(of)??);
        (0 < keep && keep < of && of <= 64).then_some(Self::NOfM { keep, of })
    }

    /// Share of zeros that the pattern has by itself, 0 to 1.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Unstructured => None,
            Self::NOfM { keep, of } => Some((of - keep) as f64 / of as f64),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::NOfM { keep, of } => write!(f, "{keep}:{of}"),
        }
    }
}

/// Zeros that a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sparsity {
    /// Where.
    pub pattern: Pattern,
    /// Share of the weights that are zeros, 0 to 1; none where it is found out while the stage runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for text in ["unstructured", "2:4", "4:8", "1:4"] {
            assert_eq!(Pattern::parse(text).map(|p| p.to_string()).as_deref(), Some(text));
        }
        for text in [
            "", "4:2", "0:4", "2:2", "+2:4", "2:4:8", "2:1000", "2:", "two:four",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
        assert_eq!(Pattern::parse("1:4").and_then(Pattern::share), Some(0.75));
    }
}
