//! Encoders with learned positions and a layer norm after each part: BERT and what came of it.
//!
//! Owns: their forward pass. Must not know: how a family names its tensors.
//! Invariant: every block has four cuts: q/k/v, attention output, up, down.

use super::embeddings::{positions, rows};
use super::sequence_head::SequenceHead;
use crate::error::Result;
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::elementwise::Activation;
use crate::network::{Cut, HeadKind, Network, Run, Sizes, State};
use candle_core::Tensor;

/// A layer norm's tensors.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub weight: String,
    pub bias: String,
}

/// What comes before the first block.
#[derive(Clone, Debug)]
pub(super) struct Embeddings {
    /// Table of tokens.
    pub tokens: String,
    /// Table of positions.
    pub positions: String,
    /// Table of token types: every token is of the first.
    pub types: Option<String>,
    /// The padding token, where positions count from behind it.
    pub padding: Option<usize>,
    /// Rows of positions that a sequence may take.
    pub context: usize,
    pub norm: Norm,
}

/// One block: module names of its linears, and its norms.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub qkv: [String; 3],
    pub output: String,
    pub after_attention: Norm,
    pub up: String,
    pub down: String,
    pub after_feed: Norm,
}

impl Block {
    fn linears(&self) -> impl Iterator<Item = &String> {
        self.qkv.iter().chain([&self.output, &self.up, &self.down])
    }
}

/// An encoder.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub sizes: Sizes,
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    pub embeddings: Embeddings,
    pub blocks: Vec<Block>,
    pub head: SequenceHead,
}

fn weight(module: &String) -> String {
    format!("{module}.weight")
}

impl Encoder {
    fn heads(&self) -> Heads {
        let head_dim = self.sizes.hidden / self.heads;
        Heads {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: false,
            window: None,
        }
    }

    fn norm(&self, norm: &Norm, x: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let (weight, bias) = (run.weights.get(&norm.weight)?, run.weights.get(&norm.bias)?);
        run.ops.layer_norm(x, weight, bias, self.eps)
    }

    /// Every tensor of the network but those of its head, with its shape by the configuration; `inner` is the length
    /// between up and down, `table` the rows of the position table.
    pub(super) fn shapes(&self, inner: usize, table: usize, types: usize) -> Vec<(String, Vec<usize>)> {
        let hidden = self.sizes.hidden;
        let mut wanted = vec![
            (self.embeddings.tokens.clone(), vec![self.sizes.vocab, hidden]),
            (self.embeddings.positions.clone(), vec![table, hidden]),
        ];
        if let Some(name) = &self.embeddings.types {
            wanted.push((name.clone(), vec![types, hidden]));
        }
        let mut norms = vec![&self.embeddings.norm];
        for block in &self.blocks {
            norms.extend([&block.after_attention, &block.after_feed]);
            for module in block.linears() {
                let (rows, cols) = match module {
                    up if *up == block.up => (inner, hidden),
                    down if *down == block.down => (hidden, inner),
                    _ => (hidden, hidden),
                };
                wanted.push((weight(module), vec![rows, cols]));
                wanted.push((format!("{module}.bias"), vec![rows]));
            }
        }
        for norm in norms {
            wanted.push((norm.weight.clone(), vec![hidden]));
            wanted.push((norm.bias.clone(), vec![hidden]));
        }
        wanted
    }
}

impl Network for Encoder {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn head_kind(&self) -> HeadKind {
        self.head.kind()
    }

    fn classes(&self) -> usize {
        self.head.classes()
    }

    fn embed_tensors(&self) -> Vec<String> {
        let e = &self.embeddings;
        let names = [&e.tokens, &e.positions, &e.norm.weight, &e.norm.bias];
        names.into_iter().chain(&e.types).cloned().collect()
    }

    fn embed(&self, run: &Run<'_>) -> Result<Tensor> {
        let e = &self.embeddings;
        let places = positions(run.batch, e.padding, e.context)?;
        let tokens = rows(run.weights.get(&e.tokens)?, &run.batch.ids)?;
        let mut x = (tokens + rows(run.weights.get(&e.positions)?, &places)?)?;
        if let Some(types) = &e.types {
            x = x.broadcast_add(&run.weights.get(types)?.narrow(0, 0, 1)?)?;
        }
        self.norm(&e.norm, &x, run)
    }

    fn cuts(&self, block: usize) -> Vec<Cut> {
        let block = &self.blocks[block];
        vec![
            Cut::of(block.qkv.iter().map(weight)),
            Cut::of([weight(&block.output)]),
            Cut::of([weight(&block.up)]),
            Cut::of([weight(&block.down)]),
        ]
    }

    fn block_tensors(&self, block: usize) -> Vec<String> {
        let block = &self.blocks[block];
        let mut names: Vec<String> = block.linears().map(|module| format!("{module}.bias")).collect();
        for norm in [&block.after_attention, &block.after_feed] {
            names.extend([norm.weight.clone(), norm.bias.clone()]);
        }
        names
    }

    fn advance(&self, block: usize, at: usize, state: State, run: &Run<'_>) -> Result<State> {
        let block = &self.blocks[block];
        let linear = |module: &String, x: &Tensor| run.weights.linear(run.ops, &weight(module), x);
        // Norms come after the sum: what a part reads is the residual stream itself.
        match at {
            0 => {
                let x = state.hidden.clone();
                Ok(State::at(state.hidden, vec![x]))
            }
            1 => {
                let x = state.input()?;
                let [q, k, v] = &block.qkv;
                let (q, k, v) = (linear(q, x)?, linear(k, x)?, linear(v, x)?);
                let mixed = run.ops.attention(&q, &k, &v, run.batch, &self.heads())?;
                Ok(State::at(state.hidden, vec![mixed]))
            }
            2 => {
                let out = linear(&block.output, state.input()?)?;
                let hidden = self.norm(&block.after_attention, &run.ops.add(out, &state.hidden)?, run)?;
                Ok(State::at(hidden.clone(), vec![hidden]))
            }
            3 => {
                let up = linear(&block.up, state.input()?)?;
                let y = run.ops.activate(up, self.activation)?;
                Ok(State::at(state.hidden, vec![y]))
            }
            _ => {
                let out = linear(&block.down, state.input()?)?;
                let hidden = self.norm(&block.after_feed, &run.ops.add(out, &state.hidden)?, run)?;
                Ok(State::between(hidden))
            }
        }
    }

    fn head_tensors(&self) -> Vec<String> {
        self.head.tensors()
    }

    fn head(&self, hidden: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        self.head.apply(hidden, run)
    }
}
