//! The residual stream: who writes it, who reads it, and which layers hand heads to each other.
//!
//! Owns: the description. Must not know: what is done with it.
//! Invariant: nothing touches the stream but what is listed, and every reader sees it through a norm that neither
//! subtracts a mean nor adds a bias. Where the norms' weights are ones, turning the stream by an orthogonal matrix
//! therefore leaves the network's function as it is, once writers and readers are turned too.

/// A linear layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its weight.
    pub weight: String,
    /// Its bias, where it has one.
    pub bias: Option<String>,
}

/// A norm over the stream, and every linear that reads what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normed {
    /// The norm's weight.
    pub norm: String,
    /// Weights of the readers.
    pub readers: Vec<String>,
}

/// An attention's value and output projection: nothing between them mixes the elements of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadPair {
    /// The block.
    pub block: usize,
    /// Makes the heads' values.
    pub value: Layer,
    /// Weight of the layer that reads what the heads mixed.
    pub output: String,
    /// Elements of a head.
    pub head_dim: usize,
}

/// A network's residual stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    /// Elements of a hidden state.
    pub width: usize,
    /// The table that begins it.
    pub embedding: String,
    /// Layers that add to it.
    pub writers: Vec<Layer>,
    /// Norms, the last one in front of the head.
    pub norms: Vec<Normed>,
    /// Values and outputs of every block.
    pub pairs: Vec<HeadPair>,
    /// The head's weight: the embedding's where they are tied.
    pub head: String,
    /// What the head's weight is called where it is one of its own.
    pub untied_head: String,
}
