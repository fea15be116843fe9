//! Shares of a whole.
//!
//! Owns: reading and printing a number from 0 to 1.
//! Must not know: which setting it is for.
//! Invariant: never outside of 0 to 1, and two of them compare by their millionths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PARTS: f64 = 1e6;

/// A share, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// The share, if it is one.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0)
            .contains(&share)
            .then(|| Self((share * PARTS).round() as u32))
    }

    /// From 0 to 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / PARTS
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim().parse().ok();
        number
            .and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.get())
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("must be a number from 0 to 1");
        Self::new(f64::deserialize(deserializer)?).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::Ratio;

    #[test]
    fn reads_and_prints_shares() {
        for text in ["0", "0.25", "1", "0.000001"] {
            let ratio: Ratio = text.parse().expect(text);
            assert_eq!(ratio.to_string(), text);
        }
        for wrong in ["", "x", "-0.1", "1.1", "NaN"] {
            assert!(wrong.parse::<Ratio>().is_err(), "{wrong}");
        }
    }
}
