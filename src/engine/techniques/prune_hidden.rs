//! A narrower model: channels of the residual stream that every block reads and writes.
//!
//! Owns: its options, what a channel is worth. Must not know: names of a family's tensors.
//! Invariant: every tensor that has channels loses the same ones; a norm's weights make up for the channels that its mean
//! no longer has.

use super::hessians::Hessians;
use super::options::{self, Options, Planned};
use super::structure::{self, Axis, Items, best};
use super::{BlockStage, Blocks, Decision, Maker, Old, Reshapes, Technique, Work, folding};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::prune::columns::{column_squares, keep_columns};
use crate::models::structure::{Channels, Part, channels, width, with_width};
use crate::network::{Cut, Feeder, Sizes, State, with_values};
use crate::observe::Level;
use crate::plan::{Context, ImportanceSource, Outline, OutlinedTensor, StagePlan, Statistic, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::Weight;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct PruneHidden;

/// The list of channels that stay.
const LIST: &str = "channels";

/// What each norm's weights are multiplied with, by the norm's name.
fn factor_of(norm: &str) -> String {
    format!("factor-{norm}")
}

impl Technique for PruneHidden {
    fn name(&self) -> &'static str {
        "prune_hidden"
    }

    fn summary(&self) -> &'static str {
        "A narrower model: channels of the residual stream go from every tensor that has them, the same ones in every block; \
         what reads the stream is fitted by least squares. A smaller dense checkpoint that every engine loads. Muralidharan \
         et al. 2024; Ma et al. 2023."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/prune_hidden.md")
    }

    fn schema(&self) -> Value {
        structure::schema(json!({
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.1, "examples": [0.1],
                "description": "Share of the hidden size that goes."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 1_048_576, "examples": [512],
                "description": "The hidden size that stays, instead of a ratio."},
            "multiple_of": {"type": "integer", "minimum": 1, "maximum": 65_536, "default": 32, "examples": [256],
                "description": "The size that stays by a ratio is rounded to a multiple of this: 256 suits k-quants, 32 the other block types."},
            "importance": {"type": "string", "enum": ["activation", "magnitude", "taylor"], "default": "activation", "examples": ["activation"],
                "description": "What a channel is worth: its part of what the layers that read it make of it (activation); of the squares of the weights that read and write it (magnitude); or the loss' change by the weights that read it, to second order, from gradients (taylor)."}}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let Some(hidden) = width(config) else {
            return Err(none(context));
        };
        let keep = structure::kept(context, &options, hidden, options.number("multiple_of").max(1))?;
        let cuts = cuts(context, hidden, keep)?;
        let config = with_width(config, keep).ok_or_else(|| none(context))?;
        structure::check_plain(context, cuts.keys().map(String::as_str))?;
        let mut decision = Decision::default();
        for (index, tensor) in context.tensors.iter().enumerate() {
            let is_reader = matches!(cuts.get(&tensor.name), Some((_, Axis::Inputs(_))));
            if is_reader && context.readers.contains(&tensor.name) {
                decision.kinds.push((index, folding::SCALED));
            }
        }
        let source = match options.text("importance") {
            "activation" => Some(ImportanceSource::Calibration),
            "taylor" => Some(ImportanceSource::Diagonal),
            _ => None,
        };
        if let Some(source) = source {
            let at = options::pointer(context, "importance");
            decision.needs = Some(Statistic::Importance(context.importance(source, &at)?));
        }
        decision.outline = Some(structure::outline(context, config, &cuts));
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Reshapes(&PruneHidden)
    }
}

fn none(context: &Context<'_>) -> Vec<Refusal> {
    let detail = "the model's family ties its heads to the hidden size: models that can be made narrower are llama, \
                  mistral, qwen2, qwen3, smollm3, mixtral, qwen2_moe and qwen3_moe";
    vec![Refusal::new(
        context.technique_pointer(),
        "no_such_structure",
        detail,
    )]
}

/// What is cut of every tensor that has channels.
fn cuts(context: &Context<'_>, hidden: usize, keep: usize) -> Planned<HashMap<String, (Items, Axis)>> {
    let items = Items {
        list: LIST.to_owned(),
        count: hidden,
        keep,
        each: 1,
    };
    let parts = structure::parts(context.tensors);
    let mut cuts = HashMap::new();
    for part in &parts {
        let (axis, length) = match (place(part, &parts), part.shape) {
            (Some(Channels::Nowhere), _) => continue,
            (Some(Channels::Inputs), [.., length]) => (Axis::Inputs(1), *length),
            (Some(Channels::Outputs), [length, ..]) => (Axis::Outputs(1), *length),
            _ => (Axis::Inputs(1), 0),
        };
        if length != hidden || part.shape.len() > 2 {
            let detail = format!(
                "{} of {:?} does not show its {hidden} channels: the model cannot be made narrower",
                part.name, part.shape
            );
            return Err(vec![Refusal::new(
                context.technique_pointer(),
                "mixed_structure",
                detail,
            )]);
        }
        cuts.insert(part.name.to_owned(), (items.clone(), axis));
    }
    Ok(cuts)
}

/// Where a tensor has channels.
fn place(part: &Part<'_>, parts: &[Part<'_>]) -> Option<Channels> {
    let weight = part
        .name
        .strip_suffix(".bias")
        .map(|module| format!("{module}.weight"));
    let of_bias = weight.and_then(|weight| parts.iter().find(|p| p.name == weight));
    channels(part, of_bias.map(|p| p.role))
}

impl Reshapes for PruneHidden {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&PruneHidden)
    }

    fn finishes(&self, _stage: &StagePlan) -> bool {
        true
    }

    fn finish(&self, _stage: &StagePlan, tensor: &OutlinedTensor, values: &mut [f32], old: &Old<'_>) {
        if tensor.shape.len() != 1 {
            return;
        }
        // Others have none.
        if let Ok([bits]) = (old.list)(&factor_of(&tensor.name)).as_deref() {
            let factor = f32::from_bits(*bits);
            for value in values.iter_mut() {
                *value *= factor;
            }
        }
    }
}

impl Blocks for PruneHidden {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let refit = options.flag("refit");
        Box::new(Narrower {
            stage,
            importance: options.text("importance").to_owned(),
            damp: options.real("damp_percent"),
            refit,
            hessians: Hessians::new(refit),
            stay: Vec::new(),
            shares: HashMap::new(),
            made: Vec::new(),
            lists: Vec::new(),
        })
    }

    /// The sums of a cut's inputs; a matrix as it was and as it is fitted; a block's weights as they are made.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let one = tensors
            .iter()
            .map(|t| (t.cols() * t.cols() * 40 + t.elements() * 24) as u64);
        one.max().unwrap_or(0) + Hessians::bytes(tensors) + folding::block_bytes(tensors)
    }
}

/// Goes through a model whose layers read ever fewer channels.
struct Narrower<'a> {
    stage: BlockStage<'a>,
    importance: String,
    damp: f64,
    refit: bool,
    hessians: Hessians,
    /// Channels that stay, ascending, once they are known.
    stay: Vec<usize>,
    /// By a norm's name: Σ over tokens of the mean square of the channels that stay by that of all, and tokens.
    shares: HashMap<String, (f64, usize)>,
    made: Vec<(usize, Weight)>,
    lists: Vec<(String, Vec<u32>)>,
}

impl Narrower<'_> {
    fn outline(&self) -> Result<&Outline> {
        let outline = self.stage.stage.outline.as_ref();
        outline.ok_or_else(|| Error::internal("a narrower model without an outline"))
    }

    /// Finds which channels stay, once.
    fn choose(&mut self) -> Result<()> {
        if !self.stay.is_empty() {
            return Ok(());
        }
        let old: HashMap<&str, &TensorPlan> =
            self.stage.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let norm = self.outline()?.tensors.iter().find_map(|new| {
            let old = old.get(new.name.as_str())?;
            let is_cut = old.shape.len() == 1 && old.shape != new.shape;
            is_cut.then(|| (old.shape[0], new.shape[0]))
        });
        let (hidden, keep) =
            norm.ok_or_else(|| Error::internal("no tensor of the narrower model is narrower"))?;
        let list = best(&self.worth(hidden)?, keep);
        self.stay = list.iter().map(|channel| *channel as usize).collect();
        self.lists.push((LIST.to_owned(), list));
        Ok(())
    }

    fn worth(&self, hidden: usize) -> Result<Vec<f64>> {
        let parts = structure::parts(self.stage.tensors);
        let mut worth = vec![0f64; hidden];
        for (at, part) in parts.iter().enumerate() {
            if self.stage.observer.should_stop() {
                return Err(Error::cancelled());
            }
            let place = place(part, &parts);
            let own = match (self.importance.as_str(), place) {
                ("magnitude", Some(Channels::Inputs)) if part.layer.is_some() => {
                    column_squares(&(self.stage.before)(at)?, hidden)
                }
                ("magnitude", Some(Channels::Outputs)) if part.shape.len() == 2 => {
                    row_squares(&(self.stage.before)(at)?, hidden)
                }
                ("activation", Some(Channels::Inputs)) if self.knows(at) => {
                    let squares = (self.stage.squares)(at)?.means();
                    let columns = column_squares(&(self.stage.before)(at)?, hidden);
                    columns
                        .iter()
                        .zip(squares)
                        .map(|(w, x)| w * f64::from(x))
                        .collect()
                }
                ("taylor", Some(Channels::Inputs)) if self.knows(at) => {
                    let (values, bends) = ((self.stage.before)(at)?, (self.stage.diagonal)(at)?);
                    let terms = values.iter().zip(bends).map(|(w, g)| w * g.sqrt());
                    column_squares(&terms.collect::<Vec<f32>>(), hidden)
                }
                _ => continue,
            };
            // Sizes of different layers cannot be compared, what they do to the loss can.
            let total = own.iter().sum::<f64>();
            let by = if self.importance == "taylor" || total <= 0.0 {
                1.0
            } else {
                total
            };
            worth
                .iter_mut()
                .zip(own)
                .for_each(|(worth, own)| *worth += own / by);
        }
        Ok(worth)
    }

    fn knows(&self, at: usize) -> bool {
        self.stage.stage.importance().is_some_and(|known| known.knows(at))
    }

    /// Adds what a batch says of how large the channels that stay are.
    fn add_share(&mut self, norm: &str, hidden: &Tensor) -> Result<()> {
        let width = hidden.dim(1)?;
        let stay = &self.stay;
        let (sum, tokens) = with_values(hidden, |x| {
            let mut sum = 0f64;
            for token in x.chunks_exact(width) {
                let square = |v: f32| f64::from(v) * f64::from(v);
                let all = token.iter().map(|v| square(*v)).sum::<f64>() / width as f64;
                let kept =
                    stay.iter().map(|channel| square(token[*channel])).sum::<f64>() / stay.len() as f64;
                sum += if all > 0.0 { kept / all } else { 1.0 };
            }
            (sum, x.len() / width.max(1))
        })?;
        let share = self.shares.entry(norm.to_owned()).or_default();
        share.0 += sum;
        share.1 += tokens;
        Ok(())
    }

    /// A norm divides by the root of the mean square of fewer channels: its weights are multiplied with what that changes.
    fn settle_norm(&mut self, norm: &str) {
        if let Some((sum, tokens)) = self.shares.remove(norm) {
            let factor = (sum / tokens.max(1) as f64).sqrt() as f32;
            self.lists.push((factor_of(norm), vec![factor.to_bits()]));
        }
    }

    fn settle_layer(&mut self, name: &str, gram: &[f32], here: &mut Here<'_>) -> Result<()> {
        let Some((at, _)) = self.stage.step(name) else {
            return Ok(());
        };
        let observer = self.stage.observer;
        let weight = here.weights.get(name)?;
        let (shape, n) = (weight.dims().to_vec(), weight.dim(1)?);
        let old = with_values(weight, <[f32]>::to_vec)?;
        let fitted = if self.refit {
            keep_columns(&old, gram, &self.stay, self.damp, &|| observer.should_stop())?
        } else {
            None
        };
        if self.refit && fitted.is_none() {
            let message =
                format!("{name}: the Hessian cannot be factorized even when damped; nothing is fitted");
            observer.event(Level::Warning, &message, json!({"tensor": name}));
        }
        let mut new = vec![0f32; old.len()];
        for (row, (new, old)) in new.chunks_mut(n).zip(old.chunks(n)).enumerate() {
            for (to, channel) in self.stay.iter().enumerate() {
                let fitted = fitted.as_ref().map(|all| all[row * self.stay.len() + to]);
                new[*channel] = fitted.unwrap_or(old[*channel]);
            }
        }
        let tensor = Tensor::from_vec(new, shape, &Device::Cpu)?;
        here.weights.replace(name, &tensor)?;
        self.made
            .push((at, folding::dense(&tensor, &self.stage.tensors[at], false)?));
        Ok(())
    }

    /// The norm behind the last block.
    fn last_norm(&self) -> Option<String> {
        let parts = structure::parts(self.stage.tensors);
        let last = parts.iter().find(|p| {
            let is_vector = p.layer.is_none() && p.shape.len() == 1;
            is_vector && !p.name.ends_with(".bias") && place(p, &parts) == Some(Channels::Outputs)
        });
        last.map(|p| p.name.to_owned())
    }
}

/// Σ of the squares of each row.
fn row_squares(values: &[f32], rows: usize) -> Vec<f64> {
    let row = |row: &[f32]| row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
    values.chunks(values.len() / rows.max(1)).map(row).collect()
}

fn norm_of(cut: &Cut) -> Option<&str> {
    cut.feeds.iter().find_map(|feed| match &feed.feeder {
        Feeder::Norm { weight, .. } => Some(weight.as_str()),
        Feeder::Linear { .. } => None,
    })
}

impl Visitor for Narrower<'_> {
    fn replaces(&self) -> bool {
        true
    }

    fn see(&mut self, _at: usize, cut: &Cut, state: &State) -> Result<()> {
        self.choose()?;
        if let Some(norm) = norm_of(cut) {
            self.add_share(norm, &state.hidden)?;
        }
        self.hessians.see(&self.stage, cut, state)
    }

    fn passed(&mut self, block: usize, state: &State) -> Result<()> {
        if block + 1 == self.stage.blocks
            && let Some(norm) = self.last_norm()
        {
            self.add_share(&norm, &state.hidden)?;
            // What is listed later replaces what was: the last batch has the sum over all.
            let share = self.shares.get(&norm).copied();
            self.lists.retain(|(name, _)| *name != factor_of(&norm));
            self.settle_norm(&norm);
            self.shares.extend(share.map(|share| (norm, share)));
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        if self.stage.observer.should_stop() {
            return Err(Error::cancelled());
        }
        if let Some(norm) = norm_of(here.cut) {
            self.settle_norm(norm);
        }
        for (seen, readers) in self.hessians.take(&self.stage, here.cut) {
            let gram = seen.into_finite_gram(&readers[0])?;
            for name in readers {
                self.settle_layer(&name, &gram, here)?;
            }
        }
        Ok(())
    }
}

impl Maker for Narrower<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_by_themselves() {
        assert_eq!(row_squares(&[1.0, 2.0, 3.0, 0.0], 2), [5.0, 9.0]);
    }
}
