//! Static activations: one scale for all inputs of a layer, found on calibration data.
//!
//! Owns: its options, a histogram of every layer's inputs. Must not know: packing, how weights were made.
//! Invariant: weights stay as they are; layers that read the same get the same scale, since engines run them as one.

use super::options::{Options, Planned, pointer};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::histogram::{Histogram, Observer, Steps};
use crate::network::{Cut, Sizes, State, with_values};
use crate::observe::Level;
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::{Activations, Kind, Scale, Weight};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct StaticActivations;

impl Technique for StaticActivations {
    fn name(&self) -> &'static str {
        "static_activations"
    }

    fn summary(&self) -> &'static str {
        "Gives the 8-bit inputs of layers that an earlier stage quantized one fixed scale each, found on calibration \
         data, so that engines need not look at every token. Ranges as in Migacz 2017 and Wu et al. 2020."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/static_activations.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "observer": {"type": "string", "enum": ["auto", "minmax", "percentile", "mse", "entropy"], "default": "auto", "examples": ["auto"],
                "description": "How the range is found: the largest magnitude; a percentile of all magnitudes; least squared error; or least KL divergence (int8 only). auto is minmax for FP8, whose steps grow with what they hold, and mse for int8."},
            "percentile": {"type": "number", "minimum": 50.0, "maximum": 100.0, "default": 99.99, "examples": [99.99],
                "description": "Percent of all magnitudes that are not clipped (observer percentile)."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let mut kinds = Vec::new();
        for (index, tensor) in context.tensors.iter().enumerate() {
            let is_dynamic = tensor.kind.activations() == Activations::DynamicToken;
            if !context.targeted[index] || !is_dynamic || !context.readers.contains(&tensor.name) {
                continue;
            }
            if matches!(tensor.kind, Kind::Float8 { .. }) && options.text("observer") == "entropy" {
                let detail = format!(
                    "{} has FP8 inputs, whose steps grow with them: entropy is for int8; use \"minmax\" or \"mse\"",
                    tensor.module()
                );
                let at = pointer(context, "observer");
                return Err(vec![Refusal::new(at, "observer_does_not_fit", detail)]);
            }
            kinds.push((index, tensor.kind.with_activations(Activations::StaticTensor)));
        }
        if kinds.is_empty() {
            let detail = "no targeted layer has quantized inputs yet: put a stage before this one that quantizes to 8 \
                          bits with activations \"dynamic_token\" (rtn, gptq, fp8)";
            let at = format!("{}/targets", context.pointer);
            return Err(vec![Refusal::new(at, "no_quantized_activations", detail)]);
        }
        Ok(Decision {
            kinds,
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Scales(&StaticActivations)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for StaticActivations {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let observer = match options.text("observer") {
            "percentile" => Some(Observer::Percentile(options.real("percentile"))),
            "mse" => Some(Observer::Mse),
            "entropy" => Some(Observer::Entropy),
            "minmax" => Some(Observer::MinMax),
            _ => None,
        };
        Box::new(Ranges {
            stage,
            observer,
            seen: HashMap::new(),
            found: Vec::new(),
        })
    }

    /// A histogram for each input of a block's cuts, and one for each thread that counts.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let mut blocks: HashMap<Option<usize>, u64> = HashMap::new();
        for tensor in tensors {
            *blocks.entry(tensor.layer).or_default() += Histogram::BYTES;
        }
        blocks.into_values().max().unwrap_or(0) + (8 << 20)
    }
}

struct Ranges<'a> {
    stage: BlockStage<'a>,
    /// What was asked for; otherwise what fits the steps.
    observer: Option<Observer>,
    /// By cut and input.
    seen: HashMap<(usize, usize), Histogram>,
    found: Vec<(usize, Scale, f32)>,
}

impl Ranges<'_> {
    /// The scale of one input; that of the cut's widest where no token came.
    fn scale(&self, at: usize, input: usize, steps: Steps, names: &str) -> f32 {
        let fitting = match steps {
            Steps::Float8 => Observer::MinMax,
            Steps::Int8 => Observer::Mse,
        };
        let observer = self.observer.unwrap_or(fitting);
        let threshold = |h: &Histogram| h.threshold(observer, steps);
        let own = self
            .seen
            .get(&(at, input))
            .filter(|h| h.count() > 0)
            .map(threshold);
        let threshold = own.unwrap_or_else(|| {
            let others = self.seen.iter().filter(|((cut, _), _)| *cut == at);
            let widest = others.map(|(_, h)| threshold(h)).fold(0.0, f32::max);
            let message = format!(
                "{names}: no calibration token reached this layer; it takes the range of its neighbours"
            );
            self.stage
                .observer
                .event(Level::Warning, &message, json!({"threshold": widest}));
            widest
        });
        steps.scale(threshold)
    }
}

impl Visitor for Ranges<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()> {
        for (input, x) in state.inputs.iter().enumerate() {
            let mut readers = cut.readers.iter().filter(|r| r.input == input);
            let Some(reader) = readers.find(|r| self.stage.step(&r.tensor).is_some()) else {
                continue;
            };
            let histogram = self.seen.entry((at, input)).or_default();
            with_values(x, |values| histogram.add(values))?.map_err(|e| Error {
                message: format!("{}: {}", reader.tensor, e.message),
                ..e
            })?;
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        for reader in &here.cut.readers {
            let Some((index, kind)) = self.stage.step(&reader.tensor) else {
                continue;
            };
            let steps = match kind {
                Kind::Float8 { .. } => Steps::Float8,
                _ => Steps::Int8,
            };
            let scale = self.scale(here.at, reader.input, steps, &reader.tensor);
            self.found.push((index, Scale::Input, scale));
        }
        self.seen.retain(|(at, _), _| *at != here.at);
        Ok(())
    }
}

impl Maker for Ranges<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        Vec::new()
    }

    fn found(&mut self) -> Vec<(usize, Scale, f32)> {
        std::mem::take(&mut self.found)
    }
}
