//! Who feeds the inputs of a cut: where a scale for each channel can go, so that the network computes the same.
//!
//! Owns: the description. Must not know: what is done with it.
//! Invariant: dividing the feeder's channels by positive scales and multiplying the columns of everything that reads
//! them by the same leaves the network's function as it is.

/// A tensor whose output channels are the channels of an input, with nothing between them that is not linear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feeder {
    /// A norm's weight, element by element.
    Norm {
        /// The weight.
        weight: String,
        /// Its bias, where it has one.
        bias: Option<String>,
    },
    /// A linear's weight, row by row.
    Linear {
        /// The weight.
        tensor: String,
        /// Its bias, where it has one.
        bias: Option<String>,
    },
}

impl Feeder {
    /// Its weight.
    pub fn weight(&self) -> &str {
        match self {
            Self::Norm { weight: name, .. } | Self::Linear { tensor: name, .. } => name,
        }
    }

    /// Its bias, where it has one.
    pub fn bias(&self) -> Option<&str> {
        match self {
            Self::Norm { bias, .. } | Self::Linear { bias, .. } => bias.as_deref(),
        }
    }

    /// True for a norm.
    pub fn is_norm(&self) -> bool {
        matches!(self, Self::Norm { .. })
    }
}

/// Heads that are repeated on the way: each key/value head serves several query heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Channels of a head.
    pub head_dim: usize,
    /// How often each head of the feeder occurs, one after another.
    pub times: usize,
}

/// A feeder and everything that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Who feeds.
    pub feeder: Feeder,
    /// Inputs of the cut that it feeds; all of them have the same channels.
    pub inputs: Vec<usize>,
    /// Linears that read the same and stand at no cut: routers.
    pub others: Vec<String>,
    /// How its heads are repeated, where they are.
    pub repeat: Option<Repeat>,
}

impl Feed {
    /// The one input of a cut.
    pub fn of(feeder: Feeder) -> Self {
        Self {
            feeder,
            inputs: vec![0],
            others: Vec::new(),
            repeat: None,
        }
    }

    /// A norm that feeds the one input of a cut.
    pub fn norm(weight: String, bias: Option<String>) -> Self {
        Self::of(Feeder::Norm { weight, bias })
    }

    /// A linear that feeds the one input of a cut.
    pub fn linear(tensor: String, bias: Option<String>) -> Self {
        Self::of(Feeder::Linear { tensor, bias })
    }

    /// The feeder's channel that a channel of the input is.
    pub fn source(&self, channel: usize) -> usize {
        match self.repeat {
            None => channel,
            Some(Repeat { head_dim, times }) => channel / (head_dim * times) * head_dim + channel % head_dim,
        }
    }

    /// True where several layers that see different tokens must share its scales: a mixture of experts.
    pub fn is_mixture(&self) -> bool {
        !self.others.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_heads_share_their_source() {
        let mut feed = Feed::linear("v".into(), None);
        assert_eq!(feed.source(5), 5);
        feed.repeat = Some(Repeat {
            head_dim: 2,
            times: 3,
        });
        let sources: Vec<usize> = (0..12).map(|c| feed.source(c)).collect();
        assert_eq!(sources, [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]);
    }
}
