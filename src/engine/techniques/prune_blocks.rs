//! A model with fewer blocks.
//!
//! Owns: its options, what a block is worth. Must not know: what is in a block.
//! Invariant: blocks that stay keep their order and their weights, to the bit.

use super::options::{self, Options, Planned};
use super::structure::{self, best};
use super::{BlockStage, Blocks, Decision, Maker, Reshapes, Technique, Work};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::models::structure::with_blocks;
use crate::network::{Cut, Sizes, State, with_values};
use crate::plan::{Context, ImportanceSource, Origin, Outline, OutlinedTensor, Statistic, TensorPlan, Which};
use crate::recipe::Refusal;
use crate::weight::Weight;
use serde_json::{Value, json};

/// The technique.
pub(super) struct PruneBlocks;

/// The list of blocks that stay.
const LIST: &str = "blocks";

impl Technique for PruneBlocks {
    fn name(&self) -> &'static str {
        "prune_blocks"
    }

    fn summary(&self) -> &'static str {
        "A model with fewer blocks: those go that change their input least, by the angle between what goes into a block and \
         what comes out. A smaller dense checkpoint that every engine loads, faster by as much. Men et al. 2024; Gromov et \
         al. 2024."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/prune_blocks.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.1, "examples": [0.1],
                "description": "Share of the blocks that goes."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [27],
                "description": "Blocks that stay, instead of a ratio."},
            "importance": {"type": "string", "enum": ["influence", "taylor", "magnitude"], "default": "influence", "examples": ["influence"],
                "description": "What a block is worth: how much it turns what goes through it, 1 less the cosine of the angle between input and output (influence); the loss' change by its weights to second order, from gradients (taylor); or the squares of its weights (magnitude)."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let count = context.blocks.len();
        let keep = structure::kept(context, &options, count, 1)?;
        let Some(config) = with_blocks(config, keep) else {
            let detail = "the model's blocks are of several kinds, which config.json lists one by one: which of them stay \
                          is known only once they have run";
            return Err(vec![Refusal::new(
                context.technique_pointer(),
                "mixed_structure",
                detail,
            )]);
        };
        let mut tensors: Vec<OutlinedTensor> = Vec::new();
        for tensor in context.tensors {
            match tensor.layer {
                None => tensors.push(structure::whole(tensor)),
                // Any block stands for all of them.
                Some(0) => tensors.extend(in_blocks(context, tensor, keep)?),
                Some(_) => {}
            }
        }
        let needs = if options.text("importance") == "taylor" {
            let at = options::pointer(context, "importance");
            Some(Statistic::Importance(
                context.importance(ImportanceSource::Diagonal, &at)?,
            ))
        } else {
            None
        };
        Ok(Decision {
            outline: Some(Outline {
                config,
                tensors,
                shared: None,
            }),
            needs,
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&PruneBlocks)
    }
}

/// A tensor of the first block, in each of the blocks that stay; it must be in every one that there is.
fn in_blocks(context: &Context<'_>, tensor: &TensorPlan, keep: usize) -> Planned<Vec<OutlinedTensor>> {
    let pattern = tensor.name.replacen(".0.", ".{}.", 1);
    let alike = |block: usize| {
        let name = pattern.replace("{}", &block.to_string());
        let other = context.tensors.iter().find(|t| t.name == name);
        other.is_some_and(|t| t.shape == tensor.shape && t.source_dtype == tensor.source_dtype)
    };
    if !(0..context.blocks.len()).all(alike) {
        let detail = format!(
            "{} is not in every block alike: only equal blocks can stand for each other",
            tensor.name
        );
        return Err(vec![Refusal::new(
            context.technique_pointer(),
            "mixed_structure",
            detail,
        )]);
    }
    let outlined = |at: usize| {
        let mut outlined = structure::whole(tensor);
        outlined.name = pattern.replace("{}", &at.to_string());
        if let Origin::Tensor { which, .. } = &mut outlined.origin {
            *which = Which::Item {
                pattern: pattern.clone(),
                list: LIST.to_owned(),
                at,
            };
        }
        outlined
    };
    Ok((0..keep).map(outlined).collect())
}

impl Reshapes for PruneBlocks {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&PruneBlocks)
    }
}

impl Blocks for PruneBlocks {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let layers = stage.stage.outline.as_ref().map_or(0, |outline| {
            let names = outline.tensors.iter().filter_map(|t| match &t.origin {
                Origin::Tensor {
                    which: Which::Item { at, .. },
                    ..
                } => Some(at + 1),
                _ => None,
            });
            names.max().unwrap_or(0)
        });
        Box::new(Influence {
            importance: options.text("importance").to_owned(),
            keep: layers,
            stage,
            before: Vec::new(),
            turned: Vec::new(),
            lists: Vec::new(),
        })
    }

    /// One batch's states in front of a block, and behind it; by weights, one of them.
    fn working_bytes(
        &self,
        _options: &Value,
        _tensors: &[&TensorPlan],
        sizes: &Sizes,
        longest: usize,
    ) -> u64 {
        let tokens = crate::calibrate::batch_tokens(sizes.widest, longest);
        8 * (tokens * sizes.hidden) as u64
    }
}

/// How much each block turns what goes through it.
struct Influence<'a> {
    stage: BlockStage<'a>,
    importance: String,
    keep: usize,
    /// States of the batches in front of the block at hand.
    before: Vec<Vec<f32>>,
    /// Of each block so far: Σ over tokens of 1 − cos of the angle, and tokens.
    turned: Vec<(f64, usize)>,
    lists: Vec<(String, Vec<u32>)>,
}

impl Influence<'_> {
    /// Σ over the weights of each block, of their squares or of their squares times those of gradients.
    fn by_weights(&self) -> Result<Vec<f64>> {
        let mut worth = vec![0f64; self.stage.blocks];
        let is_taylor = self.importance == "taylor";
        let known = self.stage.stage.importance();
        for (at, tensor) in self.stage.tensors.iter().enumerate() {
            let Some(sum) = tensor.layer.and_then(|layer| worth.get_mut(layer)) else {
                continue;
            };
            if self.stage.observer.should_stop() {
                return Err(Error::cancelled());
            }
            let square = |w: &f32| f64::from(*w) * f64::from(*w);
            if !is_taylor && tensor.shape.len() > 1 {
                *sum += (self.stage.before)(at)?.iter().map(square).sum::<f64>();
            } else if known.is_some_and(|known| known.knows(at)) {
                let (values, bends) = ((self.stage.before)(at)?, (self.stage.diagonal)(at)?);
                let terms = values.iter().zip(bends).map(|(w, g)| square(w) * f64::from(g));
                *sum += terms.sum::<f64>();
            }
        }
        Ok(worth)
    }

    fn choose(&mut self) -> Result<()> {
        let worth: Vec<f64> = if self.importance == "influence" {
            let mean = |(sum, tokens): &(f64, usize)| sum / (*tokens).max(1) as f64;
            self.turned.iter().map(mean).collect()
        } else {
            self.by_weights()?
        };
        self.lists = vec![(LIST.to_owned(), best(&worth, self.keep))];
        Ok(())
    }
}

impl Visitor for Influence<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, at: usize, _cut: &Cut, state: &State) -> Result<()> {
        if at == 0 {
            self.before.push(with_values(&state.hidden, <[f32]>::to_vec)?);
        }
        Ok(())
    }

    fn passed(&mut self, block: usize, state: &State) -> Result<()> {
        let hidden = state.hidden.dim(1)?;
        let Some(before) = self.before.pop() else {
            return Ok(());
        };
        self.turned.resize(self.turned.len().max(block + 1), (0.0, 0));
        let (sum, tokens) = with_values(&state.hidden, |after| structure::turned(&before, after, hidden))?;
        self.turned[block].0 += sum;
        self.turned[block].1 += tokens;
        Ok(())
    }

    /// All batches have passed by then.
    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        if here.block + 1 == self.stage.blocks && here.at == 0 {
            self.choose()?;
        }
        Ok(())
    }
}

impl Maker for Influence<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        Vec::new()
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.lists)
    }

    /// What was summed is not kept over a break: the walk is cheap.
    fn starts_over(&self) -> bool {
        true
    }
}
