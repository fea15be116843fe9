//! A decoder's residual stream.
//!
//! Owns: which of its layers write it and which read it. Must not know: what is done with it.
//! Invariant: norms over the heads of q and k are no readers: they see what q and k made, which stays as it is.

use super::{Block, Decoder, Feed};
use crate::network::{HeadPair, Layer, Normed, Residual};

impl Decoder {
    pub(super) fn stream(&self) -> Residual {
        let blocks = 0..self.blocks.len();
        let mut norms: Vec<Normed> = blocks.clone().flat_map(|block| self.norms(block)).collect();
        norms.push(Normed {
            norm: format!("{}norm.weight", self.prefix),
            readers: vec![self.head.clone()],
        });
        Residual {
            width: self.sizes.hidden,
            embedding: format!("{}embed_tokens.weight", self.prefix),
            writers: blocks.clone().flat_map(|block| self.writers(block)).collect(),
            norms,
            pairs: blocks.map(|block| self.head_pair(block)).collect(),
            head: self.head.clone(),
            untied_head: "lm_head.weight".to_owned(),
        }
    }

    /// A layer of a block with its bias.
    fn layer(&self, block: usize, weight: String) -> Layer {
        let module = weight.strip_suffix("weight");
        let bias = module.map(|module| format!("{module}bias"));
        Layer {
            bias: bias.filter(|bias| self.biases[block].contains(bias)),
            weight,
        }
    }

    fn writers(&self, block: usize) -> Vec<Layer> {
        let output = self.name(block, "self_attn.o_proj");
        let downs = parts(&self.blocks[block])
            .into_iter()
            .map(|[_, _, down]| down.clone());
        std::iter::once(output)
            .chain(downs)
            .map(|weight| self.layer(block, weight))
            .collect()
    }

    fn norms(&self, block: usize) -> [Normed; 2] {
        let attention = ["q", "k", "v"].map(|part| self.name(block, &format!("self_attn.{part}_proj")));
        let into = parts(&self.blocks[block])
            .into_iter()
            .flat_map(|[gate, up, _]| [gate.clone(), up.clone()]);
        let routers = match &self.blocks[block].feed {
            Feed::Dense(_) => Vec::new(),
            Feed::Experts(experts) => experts.routers(),
        };
        [
            Normed {
                norm: self.name(block, "input_layernorm"),
                readers: attention.to_vec(),
            },
            Normed {
                norm: self.name(block, "post_attention_layernorm"),
                readers: into.chain(routers).collect(),
            },
        ]
    }

    fn head_pair(&self, block: usize) -> HeadPair {
        HeadPair {
            block,
            value: self.layer(block, self.name(block, "self_attn.v_proj")),
            output: self.name(block, "self_attn.o_proj"),
            head_dim: self.head_dim,
        }
    }
}

/// Gate, up and down of every feed-forward part of a block.
fn parts(block: &Block) -> Vec<&[String; 3]> {
    match &block.feed {
        Feed::Dense(parts) => vec![parts],
        Feed::Experts(experts) => {
            let shared = experts.shared.as_ref().map(|shared| &shared.parts);
            experts.parts.iter().chain(shared).collect()
        }
    }
}
