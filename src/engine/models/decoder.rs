//! Decoders with RMS norms, rotary positions and gated feed-forward layers: LLaMA and what came of it.
//!
//! Owns: their forward pass. Must not know: how a family's configuration is recognised.
//! Invariant: every block has four cuts: q/k/v, attention output, gate/up, down.

use super::experts::Experts;
use crate::error::{Error, Result};
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::elementwise::Activation;
use crate::network::{Cut, Feed as Fed, HeadKind, Network, Repeat, Residual, Rotary, Run, Sizes, State};
use candle_core::Tensor;

mod residual;

/// The feed-forward part of a block.
#[derive(Clone, Debug)]
pub(super) enum Feed {
    /// Gate, up and down.
    Dense([String; 3]),
    /// A mixture.
    Experts(Experts),
}

/// One block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Prefix of its tensors, with the dot.
    pub prefix: String,
    /// Tokens that a token sees.
    pub window: Option<usize>,
    /// Whether positions are rotated (`SmolLM3` leaves some blocks without).
    pub rotates: bool,
    /// The feed-forward part.
    pub feed: Feed,
}

/// A decoder.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    pub sizes: Sizes,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub eps: f64,
    pub activation: Activation,
    pub rotary: Rotary,
    /// Names of norms over the elements of a head of q and k.
    pub head_norms: bool,
    pub blocks: Vec<Block>,
    /// `model.` or nothing.
    pub prefix: String,
    /// Name of the output head's weight: the embedding's where they are tied.
    pub head: String,
    /// Every bias there is, by block.
    pub biases: Vec<Vec<String>>,
}

impl Decoder {
    fn name(&self, block: usize, rest: &str) -> String {
        format!("{}{rest}.weight", self.blocks[block].prefix)
    }

    fn linear_feed(&self, block: usize, tensor: &str) -> Fed {
        let bias = tensor
            .strip_suffix("weight")
            .map(|module| format!("{module}bias"));
        Fed::linear(tensor.to_owned(), bias.filter(|b| self.biases[block].contains(b)))
    }

    fn heads(&self, block: usize) -> Heads {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            causal: true,
            window: self.blocks[block].window,
        }
    }

    fn norm(&self, name: &str, x: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        run.ops.rms_norm(x, run.weights.get(name)?, self.eps)
    }

    /// q or k after its norm and rotation.
    fn turned(&self, block: usize, part: char, x: Tensor, run: &Run<'_>) -> Result<Tensor> {
        let (tokens, cols) = x.dims2()?;
        let x = if self.head_norms {
            let name = self.name(block, &format!("self_attn.{part}_norm"));
            let heads = x.reshape((tokens * cols / self.head_dim, self.head_dim))?;
            self.norm(&name, &heads, run)?.reshape((tokens, cols))?
        } else {
            x
        };
        if !self.blocks[block].rotates {
            return Ok(x);
        }
        run.ops.rotate(x, self.head_dim, &self.rotary.turns(run.batch))
    }

    fn attend(&self, block: usize, x: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let linear = |part: char| {
            let name = self.name(block, &format!("self_attn.{part}_proj"));
            run.weights.linear(run.ops, &name, x)
        };
        let q = self.turned(block, 'q', linear('q')?, run)?;
        let k = self.turned(block, 'k', linear('k')?, run)?;
        let [k, v] = [('k', k), ('v', linear('v')?)].map(|(part, x)| {
            run.weights
                .cached(&self.name(block, &format!("self_attn.{part}_proj")), x)
        });
        run.ops.attention(&q, &k?, &v?, run.batch, &self.heads(block))
    }

    fn feed_in(&self, block: usize, hidden: Tensor, run: &Run<'_>) -> Result<State> {
        let x = self.norm(&self.name(block, "post_attention_layernorm"), &hidden, run)?;
        match &self.blocks[block].feed {
            Feed::Dense(_) => Ok(State::at(hidden, vec![x])),
            Feed::Experts(experts) => experts.route(hidden, &x, run),
        }
    }

    fn feed_middle(&self, block: usize, state: State, run: &Run<'_>) -> Result<State> {
        match &self.blocks[block].feed {
            Feed::Dense([gate, up, _]) => {
                let x = state.input()?;
                let gate = run.weights.linear(run.ops, gate, x)?;
                let up = run.weights.linear(run.ops, up, x)?;
                let y = run.ops.gated(gate, &up, self.activation)?;
                Ok(State::at(state.hidden, vec![y]))
            }
            Feed::Experts(experts) => experts.middle(state, self.activation, run),
        }
    }

    fn feed_out(&self, block: usize, state: State, run: &Run<'_>) -> Result<State> {
        match &self.blocks[block].feed {
            Feed::Dense([_, _, down]) => {
                let y = run.weights.linear(run.ops, down, state.input()?)?;
                Ok(State::between(run.ops.add(y, &state.hidden)?))
            }
            Feed::Experts(experts) => experts.gather(state, run),
        }
    }
}

impl Network for Decoder {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn head_kind(&self) -> HeadKind {
        HeadKind::NextToken
    }

    fn embed_tensors(&self) -> Vec<String> {
        vec![format!("{}embed_tokens.weight", self.prefix)]
    }

    fn embed(&self, run: &Run<'_>) -> Result<Tensor> {
        let table = run.weights.get(&format!("{}embed_tokens.weight", self.prefix))?;
        let ids = Tensor::from_slice(&run.batch.ids, run.batch.tokens(), table.device())?;
        Ok(table.index_select(&ids, 0)?)
    }

    fn cuts(&self, block: usize) -> Vec<Cut> {
        let attention = |part: &str| self.name(block, &format!("self_attn.{part}_proj"));
        let norm = |name: &str| Fed::norm(self.name(block, name), None);
        let mixed = Fed {
            repeat: (self.heads > self.kv_heads).then(|| Repeat {
                head_dim: self.head_dim,
                times: self.heads / self.kv_heads,
            }),
            ..self.linear_feed(block, &attention("v"))
        };
        let mut cuts = vec![
            Cut::of(["q", "k", "v"].map(attention)).fed(norm("input_layernorm")),
            Cut::of([attention("o")]).fed(mixed),
        ];
        match &self.blocks[block].feed {
            Feed::Dense([gate, up, down]) => {
                cuts.push(Cut::of([gate.clone(), up.clone()]).fed(norm("post_attention_layernorm")));
                cuts.push(Cut::of([down.clone()]).fed(self.linear_feed(block, up)));
            }
            Feed::Experts(experts) => cuts.extend(experts.cuts(norm("post_attention_layernorm"), &|up| {
                self.linear_feed(block, up)
            })),
        }
        cuts
    }

    fn cached(&self, block: usize, state: &State, run: &Run<'_>) -> Result<Vec<(String, Tensor)>> {
        let linear = |part: char| {
            let name = self.name(block, &format!("self_attn.{part}_proj"));
            let x = run.weights.linear(run.ops, &name, state.input()?)?;
            Ok::<_, Error>((name, x))
        };
        let (key, k) = linear('k')?;
        Ok(vec![(key, self.turned(block, 'k', k, run)?), linear('v')?])
    }

    fn cache_writers(&self) -> Vec<Vec<String>> {
        let names = |block| ["k", "v"].map(|part| self.name(block, &format!("self_attn.{part}_proj")));
        (0..self.blocks.len())
            .map(|block| names(block).to_vec())
            .collect()
    }

    fn block_tensors(&self, block: usize) -> Vec<String> {
        let mut names = vec![
            self.name(block, "input_layernorm"),
            self.name(block, "post_attention_layernorm"),
        ];
        if self.head_norms {
            names.extend(["q", "k"].map(|p| self.name(block, &format!("self_attn.{p}_norm"))));
        }
        if let Feed::Experts(experts) = &self.blocks[block].feed {
            names.extend(experts.routers());
        }
        names.extend(self.biases[block].iter().cloned());
        names
    }

    fn advance(&self, block: usize, at: usize, state: State, run: &Run<'_>) -> Result<State> {
        match at {
            0 => {
                let x = self.norm(&self.name(block, "input_layernorm"), &state.hidden, run)?;
                Ok(State::at(state.hidden, vec![x]))
            }
            1 => {
                let mixed = self.attend(block, state.input()?, run)?;
                Ok(State::at(state.hidden, vec![mixed]))
            }
            2 => {
                let name = self.name(block, "self_attn.o_proj");
                let out = run.weights.linear(run.ops, &name, state.input()?)?;
                self.feed_in(block, run.ops.add(out, &state.hidden)?, run)
            }
            3 => self.feed_middle(block, state, run),
            _ => self.feed_out(block, state, run),
        }
    }

    fn residual(&self) -> Option<Residual> {
        Some(self.stream())
    }

    fn head_tensors(&self) -> Vec<String> {
        vec![format!("{}norm.weight", self.prefix), self.head.clone()]
    }

    fn head(&self, hidden: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let x = self.norm(&format!("{}norm.weight", self.prefix), hidden, run)?;
        run.weights.linear(run.ops, &self.head, &x)
    }
}
