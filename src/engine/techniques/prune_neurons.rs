//! Feed-forward layers with fewer neurons: a smaller dense model.
//!
//! Owns: its options, which tensors share neurons. Must not know: how they are ranked.
//! Invariant: as many neurons stay in every block; what reads them is fitted to what it answered.

use super::options::{self, Options, Planned};
use super::structure::{self, Axis, Chooser, Group, How, Items};
use super::{BlockStage, Blocks, Decision, Maker, Reshapes, Technique, Work, folding};
use crate::models::structure::{FeedForward, feed_forwards, with_inner};
use crate::network::Sizes;
use crate::plan::{Context, ImportanceSource, Statistic, TensorPlan};
use crate::recipe::Refusal;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct PruneNeurons;

impl Technique for PruneNeurons {
    fn name(&self) -> &'static str {
        "prune_neurons"
    }

    fn summary(&self) -> &'static str {
        "Feed-forward layers with fewer neurons, the same number in every block: a smaller dense checkpoint that every \
         engine loads. What reads the neurons is fitted by least squares. Molchanov et al. 2019; Ma et al. 2023; Frantar, \
         Singh and Alistarh 2022 for the fit."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/prune_neurons.md")
    }

    fn schema(&self) -> Value {
        structure::schema(json!({
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.25, "examples": [0.25],
                "description": "Share of the neurons that goes."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 1_048_576, "examples": [1024],
                "description": "Neurons that stay in each block, instead of a ratio."},
            "multiple_of": {"type": "integer", "minimum": 1, "maximum": 65_536, "default": 32, "examples": [256],
                "description": "The number that stays by a ratio is rounded to a multiple of this: 256 suits k-quants, 32 the other block types."},
            "importance": structure::importances()}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let feeds = feeds(context)?;
        let inner = feeds[0].inner;
        let keep = structure::kept(context, &options, inner, options.number("multiple_of").max(1))?;
        let config = with_inner(config, keep).ok_or_else(|| none(context))?;
        let touched = feeds
            .iter()
            .flat_map(|f| f.into.iter().chain([&f.out]))
            .map(String::as_str);
        structure::check_plain(context, touched)?;
        let mut cuts = HashMap::new();
        let mut decision = Decision::default();
        for feed in &feeds {
            let items = items(feed, keep);
            for name in &feed.into {
                cuts.insert(name.clone(), (items.clone(), Axis::Outputs(1)));
                if let Some(bias) = bias_of(context, name) {
                    cuts.insert(bias, (items.clone(), Axis::Outputs(1)));
                }
            }
            cuts.insert(feed.out.clone(), (items, Axis::Inputs(1)));
            decision
                .kinds
                .extend(index(context, &feed.out).map(|at| (at, folding::SCALED)));
        }
        if options.text("importance") == "taylor" {
            let at = options::pointer(context, "importance");
            decision.needs = Some(Statistic::Importance(
                context.importance(ImportanceSource::Diagonal, &at)?,
            ));
        }
        decision.outline = Some(structure::outline(context, config, &cuts));
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Reshapes(&PruneNeurons)
    }
}

fn items(feed: &FeedForward, keep: usize) -> Items {
    Items {
        list: format!("neurons-{}", feed.out),
        count: feed.inner,
        keep,
        each: 1,
    }
}

fn index(context: &Context<'_>, name: &str) -> Option<usize> {
    context.tensors.iter().position(|t| t.name == name)
}

/// The bias of a weight, where it has one.
fn bias_of(context: &Context<'_>, weight: &str) -> Option<String> {
    let bias = format!("{}.bias", weight.strip_suffix(".weight")?);
    index(context, &bias).map(|_| bias)
}

fn none(context: &Context<'_>) -> Vec<Refusal> {
    let detail = "the model has no feed-forward layers whose neurons could be told: models that can be cut are those \
                  that run (llama, mistral, qwen2, qwen3, smollm3, mixtral, bert, roberta, distilbert, gpt2)";
    vec![Refusal::new(
        context.technique_pointer(),
        "no_such_structure",
        detail,
    )]
}

/// The feed-forward parts, all with as many neurons.
fn feeds(context: &Context<'_>) -> Planned<Vec<FeedForward>> {
    let mut feeds = feed_forwards(&structure::parts(context.tensors));
    for feed in &mut feeds {
        let is_turned = context.transposed.contains(&feed.out);
        let out = index(context, &feed.out).map(|at| &context.tensors[at]);
        feed.inner = out.map_or(0, |t| if is_turned { t.rows() } else { t.cols() });
    }
    let known = |name: &String| context.readers.contains(name) || context.transposed.contains(name);
    let Some(inner) = feeds
        .first()
        .map(|feed| feed.inner)
        .filter(|_| feeds.iter().all(|f| known(&f.out)))
    else {
        return Err(none(context));
    };
    match feeds.iter().find(|feed| feed.inner != inner) {
        None => Ok(feeds),
        Some(other) => {
            let detail = format!(
                "{} has {} neurons and others have {inner}: one number is cut to one number",
                other.out, other.inner
            );
            Err(vec![Refusal::new(
                context.technique_pointer(),
                "mixed_structure",
                detail,
            )])
        }
    }
}

impl Reshapes for PruneNeurons {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&PruneNeurons)
    }
}

impl Blocks for PruneNeurons {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let how = How::of(&Options::of(&stage.stage.options, self.schema()));
        let mut groups = HashMap::new();
        for feed in feed_forwards(&structure::parts(stage.tensors)) {
            let Some(out) = stage.tensors.iter().find(|t| t.name == feed.out) else {
                continue;
            };
            let Some(outline) = &stage.stage.outline else {
                continue;
            };
            let Some(new) = outline.tensors.iter().find(|t| t.name == feed.out) else {
                continue;
            };
            let axis = usize::from(!stage.transposed.contains(&feed.out));
            let (inner, keep) = (out.shape[axis], new.shape[axis]);
            let feed = FeedForward { inner, ..feed };
            let into = feed.into.iter().map(|name| (name.clone(), 1)).collect();
            groups.insert(
                feed.out.clone(),
                Group {
                    items: items(&feed, keep),
                    into,
                },
            );
        }
        Box::new(Chooser::new(stage, how, groups))
    }

    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        structure::working_bytes(&How::of(&Options::of(options, self.schema())), tensors)
    }
}
