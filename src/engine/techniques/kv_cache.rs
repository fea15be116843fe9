//! Scales for an 8-bit key/value cache, found on calibration data.
//!
//! Owns: its options, a histogram of each block's keys and values. Must not know: file formats.
//! Invariant: weights stay as they are; keys are looked at as they are kept, after their rotation.

use super::options::{Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::histogram::{Histogram, Observer, Steps};
use crate::network::{Cut, Sizes, State, with_values};
use crate::plan::{CacheDtype, Context, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::{Scale, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct KvCache;

impl Technique for KvCache {
    fn name(&self) -> &'static str {
        "kv_cache"
    }

    fn summary(&self) -> &'static str {
        "Finds one scale for the keys and one for the values of every block, with which vLLM keeps its cache in 8 bits. \
         Combines with any other stage or none. Ranges as in Wu et al. 2020."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/kv_cache.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "dtype": {"type": "string", "enum": ["fp8", "int8"], "default": "fp8", "examples": ["fp8"],
                "description": "Type of the cache's elements: E4M3 or 8-bit integers."},
            "observer": {"type": "string", "enum": ["minmax", "mse"], "default": "minmax", "examples": ["minmax"],
                "description": "How the range is found: the largest magnitude, or least squared error."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let dtype = match options.text("dtype") {
            "int8" => CacheDtype::Int8,
            _ => CacheDtype::Fp8,
        };
        let writers = context.cache_writers.iter().flatten();
        let index = |name: &String| context.tensors.iter().position(|t| &t.name == name);
        let caches: Vec<_> = writers.filter_map(index).map(|at| (at, dtype)).collect();
        if caches.is_empty() {
            let detail = "this model keeps no key/value cache with a scale for each block that engines look for; models \
                          of the llama family do";
            let at = context.technique_pointer();
            return Err(vec![Refusal::new(at, "no_kv_cache", detail)]);
        }
        Ok(Decision {
            caches,
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Scales(&KvCache)
    }
}

impl Blocks for KvCache {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        Box::new(Caches {
            stage,
            observer: match options.text("observer") {
                "mse" => Observer::Mse,
                _ => Observer::MinMax,
            },
            steps: match options.text("dtype") {
                "int8" => Steps::Int8,
                _ => Steps::Float8,
            },
            found: Vec::new(),
        })
    }

    /// Two histograms, and one for each thread that counts.
    fn working_bytes(&self, _options: &Value, _tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        2 * Histogram::BYTES + (8 << 20)
    }
}

struct Caches<'a> {
    stage: BlockStage<'a>,
    observer: Observer,
    steps: Steps,
    found: Vec<(usize, Scale, f32)>,
}

impl Visitor for Caches<'_> {
    /// It replaces nothing, but must stand at the cut with weights and sequences.
    fn replaces(&self) -> bool {
        true
    }

    fn see(&mut self, _at: usize, _cut: &Cut, _state: &State) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        if here.at > 0 {
            return Ok(());
        }
        let mut seen: Vec<(String, Histogram)> = Vec::new();
        for index in 0..here.batches() {
            if self.stage.observer.should_stop() {
                return Err(Error::cancelled());
            }
            let (batch, state) = here.state(index)?;
            let run = here.run(batch);
            for (name, x) in here.network.cached(here.block, &state, &run)? {
                let at = seen.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
                    seen.push((name.clone(), Histogram::default()));
                    seen.len() - 1
                });
                with_values(&x, |values| seen[at].1.add(values))?.map_err(|e| Error {
                    message: format!("{name}: {}", e.message),
                    ..e
                })?;
            }
        }
        for (name, histogram) in seen {
            let Some(tensor) = self.stage.tensors.iter().position(|t| t.name == name) else {
                continue;
            };
            let scale = self.steps.scale(histogram.threshold(self.observer, self.steps));
            self.found.push((tensor, Scale::Cache, scale));
        }
        Ok(())
    }
}

impl Maker for Caches<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        Vec::new()
    }

    fn found(&mut self) -> Vec<(usize, Scale, f32)> {
        std::mem::take(&mut self.found)
    }
}
