//! Attention with fewer heads, key/value heads with their query heads: a smaller dense model.
//!
//! Owns: its options, which tensors share heads. Must not know: how they are ranked.
//! Invariant: as many heads stay in every block, and as many query heads to each key/value head as before.

use super::options::{self, Options, Planned};
use super::structure::{self, Axis, Chooser, Group, How, Items};
use super::{BlockStage, Blocks, Decision, Maker, Reshapes, Technique, Work, folding};
use crate::models::structure::{Attention, HeadCounts, attentions, head_counts, with_heads};
use crate::network::Sizes;
use crate::plan::{Context, ImportanceSource, Statistic, TensorPlan};
use crate::recipe::Refusal;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct PruneHeads;

impl Technique for PruneHeads {
    fn name(&self) -> &'static str {
        "prune_heads"
    }

    fn summary(&self) -> &'static str {
        "Attention with fewer key/value heads, each with its query heads, the same number in every block: a smaller dense \
         checkpoint with a smaller cache. The output projection is fitted by least squares. Michel et al. 2019; Ma et al. \
         2023."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/prune_heads.md")
    }

    fn schema(&self) -> Value {
        structure::schema(json!({
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.25, "examples": [0.25],
                "description": "Share of the key/value heads that goes, with their query heads."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [2],
                "description": "Key/value heads that stay in each block, instead of a ratio."},
            "importance": structure::importances()}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let Some(counts) = head_counts(config) else {
            let detail = "the model's family ties the number of heads to the hidden size: models whose heads can be cut \
                          are llama, mistral, qwen2, qwen3, smollm3, mixtral, qwen2_moe and qwen3_moe";
            return Err(vec![Refusal::new(
                context.technique_pointer(),
                "no_such_structure",
                detail,
            )]);
        };
        let keep = structure::kept(context, &options, counts.kv_heads, 1)?;
        let attentions = attentions(&structure::parts(context.tensors));
        let touched = attentions
            .iter()
            .flat_map(|a| [&a.q, &a.k, &a.v, &a.o])
            .map(String::as_str);
        structure::check_plain(context, touched)?;
        let mut cuts = HashMap::new();
        let mut decision = Decision::default();
        let own = counts.heads / counts.kv_heads.max(1) * counts.head_dim;
        for attention in &attentions {
            let items = items(attention, counts, keep);
            for (name, each) in [
                (&attention.q, own),
                (&attention.k, counts.head_dim),
                (&attention.v, counts.head_dim),
            ] {
                cuts.insert(name.clone(), (items.clone(), Axis::Outputs(each)));
                let bias = name.strip_suffix("weight").map(|module| format!("{module}bias"));
                if let Some(bias) = bias.filter(|bias| context.tensors.iter().any(|t| t.name == *bias)) {
                    cuts.insert(bias, (items.clone(), Axis::Outputs(each)));
                }
            }
            cuts.insert(attention.o.clone(), (items, Axis::Inputs(own)));
            let at = context.tensors.iter().position(|t| t.name == attention.o);
            decision.kinds.extend(at.map(|at| (at, folding::SCALED)));
        }
        if options.text("importance") == "taylor" {
            let at = options::pointer(context, "importance");
            decision.needs = Some(Statistic::Importance(
                context.importance(ImportanceSource::Diagonal, &at)?,
            ));
        }
        let fewer = HeadCounts {
            heads: counts.heads / counts.kv_heads.max(1) * keep,
            kv_heads: keep,
            ..counts
        };
        decision.outline = Some(structure::outline(context, with_heads(config, fewer), &cuts));
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Reshapes(&PruneHeads)
    }
}

fn items(attention: &Attention, counts: HeadCounts, keep: usize) -> Items {
    Items {
        list: format!("heads-{}", attention.layer),
        count: counts.kv_heads,
        keep,
        each: counts.heads / counts.kv_heads.max(1) * counts.head_dim,
    }
}

impl Reshapes for PruneHeads {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&PruneHeads)
    }
}

impl Blocks for PruneHeads {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let how = How::of(&Options::of(&stage.stage.options, self.schema()));
        let mut groups = HashMap::new();
        let fewer = stage
            .stage
            .outline
            .as_ref()
            .and_then(|outline| head_counts(&outline.config));
        if let Some(fewer) = fewer {
            let times = fewer.heads / fewer.kv_heads.max(1);
            for attention in attentions(&structure::parts(stage.tensors)) {
                let Some(k) = stage.tensors.iter().find(|t| t.name == attention.k) else {
                    continue;
                };
                let kv_heads = k.rows() / fewer.head_dim.max(1);
                let counts = HeadCounts {
                    heads: times * kv_heads,
                    kv_heads,
                    ..fewer
                };
                let own = times * fewer.head_dim;
                let into = [
                    (&attention.q, own),
                    (&attention.k, fewer.head_dim),
                    (&attention.v, fewer.head_dim),
                ];
                let group = Group {
                    items: items(&attention, counts, fewer.kv_heads),
                    into: into.map(|(name, each)| (name.clone(), each)).to_vec(),
                };
                groups.insert(attention.o.clone(), group);
            }
        }
        Box::new(Chooser::new(stage, how, groups))
    }

    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        structure::working_bytes(&How::of(&Options::of(options, self.schema())), tensors)
    }
}
