//! Networks that run: a model's forward pass, cut wherever a linear layer reads its input.
//!
//! Owns: the [`Network`] seam, what flows through it, tensor operations. Must not know: techniques, model families.
//! Invariant: a block is a chain of pure functions between cuts, so that whoever stands at a cut sees every linear's
//! input, may replace its weight, and goes on without computing anything twice.

mod compute;
mod differentiable;
mod feed;
mod ops;
mod residual;
mod rotary;
mod weights;

pub use compute::{Compute, DeviceName};
pub use feed::{Feed, Feeder, Repeat};
pub use ops::Ops;
pub(crate) use ops::with_values;
pub use residual::{HeadPair, Layer, Normed, Residual};
pub use rotary::{Dynamic, Rotary, Turns};
pub use weights::{InputRounding, Linear, Weights};
pub(crate) use weights::{read_all, read_transposed};

use crate::error::{Error, Result};
use candle_core::Tensor;

/// Sequences that go through a network together, one after another in the rows of every tensor: no padding.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Token ids of all sequences.
    pub ids: Vec<u32>,
    /// Length of each sequence.
    pub lengths: Vec<usize>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
}

impl Batch {
    /// A batch of sequences.
    pub fn new(sequences: &[&[u32]]) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|s| s.len()).collect();
        Self {
            ids: sequences.concat(),
            positions: lengths.iter().flat_map(|n| 0..*n as u32).collect(),
            lengths,
        }
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Which tokens an expert works on, and how much of its result each takes.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Rows of the block's input.
    pub rows: Vec<u32>,
    /// Share of each row.
    pub shares: Vec<f32>,
}

/// What flows from cut to cut.
#[derive(Clone, Debug)]
pub struct State {
    /// The residual stream, `[tokens, hidden]`.
    pub hidden: Tensor,
    /// What the linears at this cut read.
    pub inputs: Vec<Tensor>,
    /// Routes to experts, where the block has some: one for each.
    pub routes: Vec<Route>,
    /// How many inputs every token has, in front of those of routes.
    pub whole: usize,
}

impl State {
    /// Between two blocks.
    pub fn between(hidden: Tensor) -> Self {
        Self {
            hidden,
            inputs: Vec::new(),
            routes: Vec::new(),
            whole: 0,
        }
    }

    /// Which tokens of the batch an input's rows belong to; none where it has all of them.
    pub fn rows(&self, input: usize) -> Option<&[u32]> {
        let route = self.routes.get(input.checked_sub(self.whole)?)?;
        Some(&route.rows)
    }

    /// What the linears read at a cut where all read the same.
    pub fn input(&self) -> Result<&Tensor> {
        let first = self.inputs.first();
        first.ok_or_else(|| Error::internal("a state without inputs"))
    }

    /// At a cut.
    pub fn at(hidden: Tensor, inputs: Vec<Tensor>) -> Self {
        Self {
            hidden,
            inputs,
            routes: Vec::new(),
            whole: 0,
        }
    }
}

/// A linear layer at a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its weight's name in the checkpoint.
    pub tensor: String,
    /// Which of the state's inputs it reads.
    pub input: usize,
}

/// Linear layers that read at the same cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// They, in the order of the checkpoint's family.
    pub readers: Vec<Reader>,
    /// Who feeds their inputs, as far as scales can be folded into it.
    pub feeds: Vec<Feed>,
}

impl Cut {
    /// Layers that all read the one input.
    pub fn of(tensors: impl IntoIterator<Item = String>) -> Self {
        let reader = |tensor| Reader { tensor, input: 0 };
        Self {
            readers: tensors.into_iter().map(reader).collect(),
            feeds: Vec::new(),
        }
    }

    /// The same, fed by that.
    #[must_use]
    pub fn fed(mut self, feed: Feed) -> Self {
        self.feeds.push(feed);
        self
    }

    /// Names of the readers whose inputs a feed feeds.
    pub fn fed_by<'a>(&'a self, feed: &'a Feed) -> impl Iterator<Item = &'a str> {
        let fed = self.readers.iter().filter(|r| feed.inputs.contains(&r.input));
        fed.map(|r| r.tensor.as_str())
    }
}

/// What one run of a network needs beside its state.
pub struct Run<'a> {
    /// The sequences.
    pub batch: &'a Batch,
    /// The weights of the block at hand.
    pub weights: &'a Weights,
    /// How tensor operations are carried out.
    pub ops: Ops,
    /// Let every token visit every expert; those it would not have visited add nothing to the result.
    pub all_experts: bool,
}

/// What a network's head makes of the last hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// A distribution over the next token for each token.
    NextToken,
    /// Classes of a whole sequence.
    Classes,
    /// An embedding of a whole sequence.
    Embedding,
}

/// Sizes that plans need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Blocks.
    pub blocks: usize,
    /// Elements of a hidden state.
    pub hidden: usize,
    /// Most elements of a token in a layer between two hidden states.
    pub widest: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Longest sequence the model was made for, where it says so.
    pub context: Option<usize>,
}

/// A model that runs.
pub trait Network: Send + Sync {
    /// Its sizes.
    fn sizes(&self) -> Sizes;
    /// What comes out at the end.
    fn head_kind(&self) -> HeadKind;
    /// Classes of a classifier; 0 for every other head.
    fn classes(&self) -> usize {
        0
    }
    /// Tensors that [`Network::embed`] reads.
    fn embed_tensors(&self) -> Vec<String>;
    /// Token ids to the first hidden states, `[tokens, hidden]`.
    fn embed(&self, run: &Run<'_>) -> Result<Tensor>;
    /// Cuts of a block, in order.
    fn cuts(&self, block: usize) -> Vec<Cut>;
    /// Tensors of a block that are not read at a cut: norms, biases, routers.
    fn block_tensors(&self, block: usize) -> Vec<String>;
    /// From the cut before to cut `at` of a block; `at` = number of cuts ends the block. Readers of the cut before
    /// are applied with the weights of the run.
    fn advance(&self, block: usize, at: usize, state: State, run: &Run<'_>) -> Result<State>;
    /// What a block writes to the key/value cache, from its state at the first cut: the weight that it comes from, and
    /// the rows. Empty where the network keeps no such cache, or not under names that engines know.
    fn cached(&self, _block: usize, _state: &State, _run: &Run<'_>) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }
    /// Names of the weights whose results are kept in the cache, by block.
    fn cache_writers(&self) -> Vec<Vec<String>> {
        Vec::new()
    }
    /// True where the checkpoint keeps this linear's weight as `[in, out]`; whoever loads it turns it, since
    /// [`Weights`] hold `[out, in]`, and whoever writes it turns it back.
    fn stored_transposed(&self, _tensor: &str) -> bool {
        false
    }
    /// Its residual stream, where that can be turned without a change of what comes out.
    fn residual(&self) -> Option<Residual> {
        None
    }
    /// Tensors that [`Network::head`] reads.
    fn head_tensors(&self) -> Vec<String>;
    /// What comes out, one row for each token ([`HeadKind::NextToken`]) or sequence.
    fn head(&self, hidden: &Tensor, run: &Run<'_>) -> Result<Tensor>;
}
