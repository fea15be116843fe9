//! GPT-2 by Hugging Face names: its forward pass, and the part that each tensor plays.
//!
//! Owns: its tensor names, weights that are stored input by input. Must not know: other families.
//! Invariant: every block has four cuts: q/k/v in one, attention output, up, down.

use super::config::{Config, check_heads, check_shapes};
use super::embeddings::{positions, rows};
use super::{Architecture, Facts, Place, Role, facts_from_config, layer_of};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::elementwise::Activation;
use crate::network::{Cut, Feed, HeadKind, Network, Run, Sizes, State};
use crate::tensor::TensorInfo;
use candle_core::Tensor;

/// The family.
pub(super) struct Gpt2;

impl Architecture for Gpt2 {
    fn name(&self) -> &'static str {
        "gpt2"
    }

    fn recognise(&self, model: &Checkpoint) -> bool {
        let kind = model.config.as_ref().and_then(|c| c.get("model_type")?.as_str());
        kind == Some("gpt2")
    }

    fn place(&self, tensor: &TensorInfo) -> Place {
        Place {
            role: role(tensor),
            layer: layer_of(&tensor.name),
        }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        facts_from_config(model)
    }

    fn network(&self, model: &Checkpoint) -> Result<Box<dyn Network>> {
        Ok(Box::new(Decoder::build(model)?))
    }
}

fn role(tensor: &TensorInfo) -> Role {
    // Old checkpoints hold causal masks under the name `attn.bias`: four dimensions.
    if tensor.name.ends_with(".bias") && tensor.shape.len() == 1 {
        return Role::Bias;
    }
    let Some(module) = tensor.name.strip_suffix(".weight") else {
        return Role::Other;
    };
    match module.rsplit('.').next().unwrap_or(module) {
        "wte" => Role::TokenEmbedding,
        "wpe" => Role::PositionEmbedding,
        "lm_head" => Role::Output,
        "c_attn" => Role::AttnQkv,
        "c_proj" if module.ends_with("attn.c_proj") => Role::AttnOutput,
        "c_fc" => Role::FfnUp,
        "c_proj" if module.ends_with("mlp.c_proj") => Role::FfnDown,
        "ln_1" | "ln_2" | "ln_f" => Role::Norm,
        "score" | "classifier" => Role::Linear,
        _ => Role::Other,
    }
}

/// The linears of a block, in the order of its cuts.
const LINEARS: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];

/// The forward pass.
#[derive(Clone, Debug)]
struct Decoder {
    sizes: Sizes,
    heads: usize,
    eps: f64,
    activation: Activation,
    /// `transformer.` or nothing.
    prefix: &'static str,
    /// Name of the output head's weight: the embedding's where they are tied.
    head: String,
    /// Rows of the position table.
    context: usize,
}

impl Decoder {
    fn build(model: &Checkpoint) -> Result<Self> {
        let config = Config::of(model)?;
        refuse_variants(&config)?;
        let hidden = config.count(&["n_embd", "hidden_size"])?;
        let heads = config.count(&["n_head", "num_attention_heads"])?;
        check_heads(heads, hidden)?;
        let inner = config.maybe(&["n_inner"])?.unwrap_or(4 * hidden);
        let context = config.count(&["n_positions", "n_ctx", "max_position_embeddings"])?;
        let has = |name: &str| model.tensors.iter().any(|t| t.name == name);
        let prefix = if has("transformer.wte.weight") {
            "transformer."
        } else {
            ""
        };
        let head = if has("lm_head.weight") {
            "lm_head.weight".to_owned()
        } else {
            format!("{prefix}wte.weight")
        };
        let decoder = Self {
            sizes: Sizes {
                blocks: config.count(&["n_layer", "num_hidden_layers"])?,
                hidden,
                widest: inner.max(3 * hidden),
                vocab: config.count(&["vocab_size"])?,
                context: Some(context),
            },
            heads,
            eps: config.number("layer_norm_epsilon", 1e-5),
            activation: config.activation(&["activation_function"], "gelu_new")?,
            prefix,
            head,
            context,
        };
        check_shapes(model, &decoder.shapes(inner))?;
        Ok(decoder)
    }

    fn table(&self, name: &str) -> String {
        format!("{}{name}.weight", self.prefix)
    }

    fn module(&self, block: usize, part: &str) -> String {
        format!("{}h.{block}.{part}", self.prefix)
    }

    fn linear(&self, block: usize, part: usize, x: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let name = format!("{}.weight", self.module(block, LINEARS[part]));
        run.weights.linear(run.ops, &name, x)
    }

    fn norm(&self, module: &str, x: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let [weight, bias] = both(module);
        run.ops
            .layer_norm(x, run.weights.get(&weight)?, run.weights.get(&bias)?, self.eps)
    }

    fn attend(&self, qkv: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let hidden = self.sizes.hidden;
        let head_dim = hidden / self.heads;
        let part = |i: usize| qkv.narrow(1, i * hidden, hidden)?.contiguous();
        let heads = Heads {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: true,
            window: None,
        };
        run.ops
            .attention(&part(0)?, &part(1)?, &part(2)?, run.batch, &heads)
    }

    /// Every tensor of the network with its shape as stored: linears of blocks are `[in, out]`.
    fn shapes(&self, inner: usize) -> Vec<(String, Vec<usize>)> {
        let (hidden, vocab) = (self.sizes.hidden, self.sizes.vocab);
        let mut wanted = vec![
            (self.table("wte"), vec![vocab, hidden]),
            (self.table("wpe"), vec![self.context, hidden]),
            (self.head.clone(), vec![vocab, hidden]),
        ];
        let mut norms = vec![format!("{}ln_f", self.prefix)];
        for block in 0..self.sizes.blocks {
            norms.extend(["ln_1", "ln_2"].map(|norm| self.module(block, norm)));
            let sides = [
                (hidden, 3 * hidden),
                (hidden, hidden),
                (hidden, inner),
                (inner, hidden),
            ];
            for (part, (rows, cols)) in LINEARS.into_iter().zip(sides) {
                let [weight, bias] = both(&self.module(block, part));
                wanted.push((weight, vec![rows, cols]));
                wanted.push((bias, vec![cols]));
            }
        }
        let norms = norms.iter().flat_map(|module| both(module));
        wanted.extend(norms.map(|name| (name, vec![hidden])));
        wanted
    }
}

fn both(module: &str) -> [String; 2] {
    ["weight", "bias"].map(|last| format!("{module}.{last}"))
}

fn refuse_variants(config: &Config<'_>) -> Result<()> {
    let usual = [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ];
    for (name, value) in usual {
        if config.flag(name, value) != value {
            return Err(Error::unsupported(
                "unsupported_architecture",
                format!(
                    "config.json: {name} is {}; GPT-2 runs here with {value} only",
                    !value
                ),
            ));
        }
    }
    Ok(())
}

impl Network for Decoder {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn head_kind(&self) -> HeadKind {
        HeadKind::NextToken
    }

    fn embed_tensors(&self) -> Vec<String> {
        vec![self.table("wte"), self.table("wpe")]
    }

    fn embed(&self, run: &Run<'_>) -> Result<Tensor> {
        let places = positions(run.batch, None, self.context)?;
        let tokens = rows(run.weights.get(&self.table("wte"))?, &run.batch.ids)?;
        Ok((tokens + rows(run.weights.get(&self.table("wpe"))?, &places)?)?)
    }

    fn cuts(&self, block: usize) -> Vec<Cut> {
        let cut = |part: &str| Cut::of([format!("{}.weight", self.module(block, part))]);
        let norm = |name: &str| {
            let [weight, bias] = both(&self.module(block, name));
            Feed::norm(weight, Some(bias))
        };
        let [qkv, output, up, down] = LINEARS.map(cut);
        vec![qkv.fed(norm("ln_1")), output, up.fed(norm("ln_2")), down]
    }

    fn block_tensors(&self, block: usize) -> Vec<String> {
        let norms = ["ln_1", "ln_2"]
            .into_iter()
            .flat_map(|norm| both(&self.module(block, norm)));
        let biases = LINEARS.map(|part| format!("{}.bias", self.module(block, part)));
        norms.chain(biases).collect()
    }

    fn advance(&self, block: usize, at: usize, state: State, run: &Run<'_>) -> Result<State> {
        match at {
            0 => {
                let x = self.norm(&self.module(block, "ln_1"), &state.hidden, run)?;
                Ok(State::at(state.hidden, vec![x]))
            }
            1 => {
                let qkv = self.linear(block, 0, state.input()?, run)?;
                Ok(State::at(state.hidden, vec![self.attend(&qkv, run)?]))
            }
            2 => {
                let out = self.linear(block, 1, state.input()?, run)?;
                let hidden = run.ops.add(out, &state.hidden)?;
                let x = self.norm(&self.module(block, "ln_2"), &hidden, run)?;
                Ok(State::at(hidden, vec![x]))
            }
            3 => {
                let up = self.linear(block, 2, state.input()?, run)?;
                let y = run.ops.activate(up, self.activation)?;
                Ok(State::at(state.hidden, vec![y]))
            }
            _ => {
                let out = self.linear(block, 3, state.input()?, run)?;
                Ok(State::between(run.ops.add(out, &state.hidden)?))
            }
        }
    }

    fn stored_transposed(&self, tensor: &str) -> bool {
        let module = tensor.strip_suffix(".weight").unwrap_or_default();
        LINEARS.iter().any(|part| module.ends_with(&format!(".{part}")))
    }

    fn head_tensors(&self) -> Vec<String> {
        let norm = both(&format!("{}ln_f", self.prefix));
        norm.into_iter().chain([self.head.clone()]).collect()
    }

    fn head(&self, hidden: &Tensor, run: &Run<'_>) -> Result<Tensor> {
        let x = self.norm(&format!("{}ln_f", self.prefix), hidden, run)?;
        run.weights.linear(run.ops, &self.head, &x)
    }
}
