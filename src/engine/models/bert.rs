//! The BERT family by Hugging Face names: BERT, `RoBERTa`, XLM-R, `CamemBERT`, `DistilBERT`, `MiniLM` and their sentence
//! encoders.
//!
//! Owns: its tensor names and configurations. Must not know: how its blocks are computed.
//! Invariant: what a configuration asks for and the forward pass does not do is refused.

use super::config::{Config, check_heads, check_shapes};
use super::encoder::{Block, Embeddings, Encoder, Norm};
use super::sequence_head::{Bend, SequenceHead};
use super::{Architecture, Facts, Place, Role, facts_from_config, layer_of};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::network::{Network, Sizes};
use crate::tensor::TensorInfo;

/// The family.
pub(super) struct Bert;

/// What differs between its members.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Bert,
    Roberta,
    Distil,
}

fn member(model: &Checkpoint) -> Option<Member> {
    match model.config.as_ref()?.get("model_type")?.as_str()? {
        "bert" => Some(Member::Bert),
        "roberta" | "xlm-roberta" | "camembert" => Some(Member::Roberta),
        "distilbert" => Some(Member::Distil),
        _ => None,
    }
}

impl Architecture for Bert {
    fn name(&self) -> &'static str {
        "bert"
    }

    fn recognise(&self, model: &Checkpoint) -> bool {
        member(model).is_some()
    }

    fn place(&self, tensor: &TensorInfo) -> Place {
        Place {
            role: role(&tensor.name),
            layer: layer_of(&tensor.name),
        }
    }

    fn facts(&self, model: &Checkpoint) -> Facts {
        let counts = facts_from_config(model);
        // DistilBERT has names of its own.
        let config = model.config.as_ref();
        let own = |name: &str| Some(config?.get(name)?.as_u64()? as usize);
        let or = |count: usize, name: &str| if count == 0 { own(name).unwrap_or(0) } else { count };
        Facts {
            layers: or(counts.layers, "n_layers"),
            heads: or(counts.heads, "n_heads"),
            kv_heads: or(counts.kv_heads, "n_heads"),
            ..counts
        }
    }

    fn network(&self, model: &Checkpoint) -> Result<Box<dyn Network>> {
        let member = member(model).ok_or_else(|| Error::internal("a model of another family"))?;
        Ok(Box::new(build(model, member)?))
    }
}

fn role(name: &str) -> Role {
    if name.ends_with(".bias") || name.ends_with(".beta") {
        return Role::Bias;
    }
    if name.ends_with(".gamma") {
        return Role::Norm;
    }
    let Some(module) = name.strip_suffix(".weight") else {
        return Role::Other;
    };
    match module.rsplit('.').next().unwrap_or(module) {
        "word_embeddings" => Role::TokenEmbedding,
        "position_embeddings" | "token_type_embeddings" => Role::PositionEmbedding,
        "query" | "q_lin" => Role::AttnQ,
        "key" | "k_lin" => Role::AttnK,
        "value" | "v_lin" => Role::AttnV,
        "out_lin" => Role::AttnOutput,
        "lin1" => Role::FfnUp,
        "lin2" => Role::FfnDown,
        "dense" if module.ends_with("attention.output.dense") => Role::AttnOutput,
        "dense" if module.ends_with("intermediate.dense") => Role::FfnUp,
        "dense" if module.ends_with("output.dense") => Role::FfnDown,
        // Pooler, classifiers, and the layer before a masked model's words.
        "dense" | "classifier" | "pre_classifier" | "out_proj" | "vocab_transform" | "qa_outputs"
        | "seq_relationship" => Role::Linear,
        "decoder" | "vocab_projector" => Role::Output,
        last if last.to_ascii_lowercase().ends_with("norm") => Role::Norm,
        _ => Role::Other,
    }
}

/// The names in a checkpoint.
struct Names<'a> {
    model: &'a Checkpoint,
    member: Member,
    /// `bert.`, `roberta.`, `distilbert.` or nothing.
    prefix: &'static str,
}

impl<'a> Names<'a> {
    fn of(model: &'a Checkpoint, member: Member) -> Self {
        let base = match member {
            Member::Bert => "bert.",
            Member::Roberta => "roberta.",
            Member::Distil => "distilbert.",
        };
        let prefixed = format!("{base}embeddings.word_embeddings.weight");
        let names = Self {
            model,
            member,
            prefix: "",
        };
        let prefix = if names.has(&prefixed) { base } else { "" };
        Self { prefix, ..names }
    }

    fn has(&self, name: &str) -> bool {
        self.model.tensors.iter().any(|t| t.name == name)
    }

    fn base(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// A norm, which checkpoints converted from TensorFlow call by the paper's letters.
    fn norm(&self, module: &str) -> Norm {
        let old = self.has(&format!("{module}.gamma"));
        let (weight, bias) = if old {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        Norm {
            weight: format!("{module}.{weight}"),
            bias: format!("{module}.{bias}"),
        }
    }

    fn block(&self, layer: usize) -> Block {
        if self.member == Member::Distil {
            let at = self.base(&format!("transformer.layer.{layer}."));
            return Block {
                qkv: ["q", "k", "v"].map(|part| format!("{at}attention.{part}_lin")),
                output: format!("{at}attention.out_lin"),
                after_attention: self.norm(&format!("{at}sa_layer_norm")),
                up: format!("{at}ffn.lin1"),
                down: format!("{at}ffn.lin2"),
                after_feed: self.norm(&format!("{at}output_layer_norm")),
            };
        }
        let at = self.base(&format!("encoder.layer.{layer}."));
        Block {
            qkv: ["query", "key", "value"].map(|part| format!("{at}attention.self.{part}")),
            output: format!("{at}attention.output.dense"),
            after_attention: self.norm(&format!("{at}attention.output.LayerNorm")),
            up: format!("{at}intermediate.dense"),
            down: format!("{at}output.dense"),
            after_feed: self.norm(&format!("{at}output.LayerNorm")),
        }
    }

    /// The classifier of whole sequences, if the checkpoint has one; else the embedding.
    fn head(&self) -> Result<SequenceHead> {
        let (dense, bend, out) = match self.member {
            Member::Bert => (self.base("pooler.dense"), Bend::Tanh, "classifier"),
            Member::Roberta => ("classifier.dense".to_owned(), Bend::Tanh, "classifier.out_proj"),
            Member::Distil => ("pre_classifier".to_owned(), Bend::Relu, "classifier"),
        };
        let there = [dense.as_str(), out]
            .iter()
            .all(|m| self.has(&format!("{m}.weight")));
        // A classifier of tokens or of choices may have the same names beside a pooler that it does not read.
        let kind = self.model.architecture().unwrap_or_default();
        let other = ["ForTokenClassification", "ForMultipleChoice"]
            .iter()
            .any(|k| kind.ends_with(k));
        if there && !other {
            let name = format!("{out}.weight");
            let found = self.model.tensors.iter().find(|t| t.name == name);
            return Ok(SequenceHead::Classes {
                dense,
                bend,
                out: out.to_owned(),
                // How many classes there are only the weight itself says for certain.
                count: found.and_then(|t| t.shape.first()).copied().unwrap_or(1),
            });
        }
        SequenceHead::embedding(self.model)
    }
}

fn build(model: &Checkpoint, member: Member) -> Result<Encoder> {
    let config = Config::of(model)?;
    refuse_variants(&config)?;
    let hidden = config.count(&["hidden_size", "dim"])?;
    let heads = config.count(&["num_attention_heads", "n_heads"])?;
    check_heads(heads, hidden)?;
    let inner = config.count(&["intermediate_size", "hidden_dim"])?;
    let layers = config.count(&["num_hidden_layers", "n_layers"])?;
    let table = config.count(&["max_position_embeddings"])?;
    let padding = (member == Member::Roberta).then(|| config.number("pad_token_id", 1.0) as usize);
    let context = table.saturating_sub(padding.map_or(0, |p| p + 1));
    let names = Names::of(model, member);
    let encoder = Encoder {
        sizes: Sizes {
            blocks: layers,
            hidden,
            widest: inner.max(hidden),
            vocab: config.count(&["vocab_size"])?,
            context: Some(context),
        },
        heads,
        eps: config.number("layer_norm_eps", 1e-12),
        activation: config.activation(&["hidden_act", "activation"], "gelu")?,
        embeddings: Embeddings {
            tokens: names.base("embeddings.word_embeddings.weight"),
            positions: names.base("embeddings.position_embeddings.weight"),
            types: (member != Member::Distil).then(|| names.base("embeddings.token_type_embeddings.weight")),
            padding,
            context,
            norm: names.norm(&names.base("embeddings.LayerNorm")),
        },
        blocks: (0..layers).map(|layer| names.block(layer)).collect(),
        head: names.head()?,
    };
    let types = config.maybe(&["type_vocab_size"])?.unwrap_or(2);
    let mut wanted = encoder.shapes(inner, table, types);
    wanted.extend(head_shapes(&encoder.head, hidden));
    check_shapes(model, &wanted)?;
    Ok(encoder)
}

/// A classifier's shapes.
fn head_shapes(head: &SequenceHead, hidden: usize) -> Vec<(String, Vec<usize>)> {
    let SequenceHead::Classes {
        dense, out, count, ..
    } = head
    else {
        return Vec::new();
    };
    vec![
        (format!("{dense}.weight"), vec![hidden, hidden]),
        (format!("{dense}.bias"), vec![hidden]),
        (format!("{out}.weight"), vec![*count, hidden]),
        (format!("{out}.bias"), vec![*count]),
    ]
}

fn refuse_variants(config: &Config<'_>) -> Result<()> {
    let positions = config.text("position_embedding_type").unwrap_or("absolute");
    if positions != "absolute" {
        return Err(Error::unsupported(
            "unsupported_positions",
            format!("config.json: position_embedding_type {positions:?} is not supported; \"absolute\" is"),
        ));
    }
    for name in ["is_decoder", "add_cross_attention"] {
        if config.flag(name, false) {
            return Err(Error::unsupported(
                "unsupported_architecture",
                format!("config.json: {name} is true; models of this family run as encoders only"),
            ));
        }
    }
    Ok(())
}
