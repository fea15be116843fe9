//! One stage: what a technique sees when it plans, and what comes of its decision.
//!
//! Owns: [`Context`], steps of tensors. Must not know: techniques by name.
//! Invariant: zeros that a stage was asked for are kept by those that follow, or that is said.

use super::targets::{self, LINEAR, Matcher};
use super::{CachePlan, Rotation, SharedBlocks, StagePlan, Step, TensorPlan, data, run};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::models::{Facts, network_of};
use crate::network::Cut;
use crate::recipe::{Recipe, Refusal, StageSpec};
use crate::techniques::{self, Decision, Technique, Work};
use crate::weight::{Pattern, Sparsity};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// What a technique sees when it plans.
pub struct Context<'a> {
    /// The stage.
    pub spec: &'a StageSpec,
    /// JSON pointer of the stage in the recipe.
    pub pointer: String,
    /// Tensors with their kinds so far.
    pub tensors: &'a [TensorPlan],
    /// Which of them the stage targets.
    pub targeted: &'a [bool],
    /// Layer and head counts.
    pub facts: Facts,
    /// The recipe's seed.
    pub seed: u64,
    /// Linear layers that the network applies within its blocks; only for techniques that work block by block.
    pub readers: HashSet<String>,
    /// Linear layers that the checkpoint stores as `[in, out]`, where that is known.
    pub transposed: HashSet<String>,
    /// The cuts of every block; only for techniques that work block by block.
    pub blocks: Vec<Vec<Cut>>,
    /// Weights whose results are kept in the key/value cache; only for techniques that work block by block.
    pub cache_writers: Vec<Vec<String>>,
    pub(super) model: &'a Checkpoint,
    pub(super) datasets: &'a Datasets,
}

pub(super) fn plan_stage(
    index: usize,
    spec: &StageSpec,
    recipe: &Recipe,
    (model, datasets): (&Checkpoint, &Datasets),
    tensors: &mut [TensorPlan],
) -> Result<StagePlan, Vec<Refusal>> {
    let pointer = if recipe.preset.is_some() {
        String::new()
    } else {
        format!("/stages/{index}")
    };
    let Some(technique) = techniques::find(&spec.technique) else {
        let detail = format!(
            "no technique is called {:?}; techniques are {}",
            spec.technique,
            techniques::names().join(", ")
        );
        return Err(vec![Refusal::new(
            format!("{pointer}/technique"),
            "unknown_technique",
            detail,
        )]);
    };
    let targets = Matcher::new(&targets_of(spec, technique), &format!("{pointer}/targets"))?;
    let ignore = Matcher::new(&spec.ignore, &format!("{pointer}/ignore"))?;
    let targeted: Vec<bool> = tensors
        .iter()
        .map(|t| targets.matches(t) && !ignore.matches(t))
        .collect();
    let network = Known::of(technique, model, &technique_at(&pointer))?;
    let context = Context {
        spec,
        pointer: pointer.clone(),
        tensors,
        targeted: &targeted,
        facts: model.facts(),
        seed: recipe.seed,
        readers: network.readers,
        transposed: network.transposed,
        blocks: network.blocks,
        cache_writers: network.cache_writers,
        model,
        datasets,
    };
    let mut outcome = technique.plan(&context)?;
    if outcome.kinds.is_empty() && outcome.caches.is_empty() && outcome.outline.is_none() {
        return Err(targets::nothing(tensors, &pointer));
    }
    if let Some(outline) = &mut outcome.outline {
        check_whole(tensors, &technique_at(&pointer), technique.name())?;
        // Blocks that shared matrices are changed one by one.
        if outline.shared.is_none() {
            SharedBlocks::remove(&mut outline.config);
        }
    }
    applied(outcome, index, spec, technique, &pointer, tensors)
}

/// `Linear`, which every stage targets that says nothing else, means the class of layers that the technique is for.
fn targets_of(spec: &StageSpec, technique: &dyn Technique) -> Vec<String> {
    let own = |word: &String| {
        if word == LINEAR {
            technique.layers().to_owned()
        } else {
            word.clone()
        }
    };
    spec.targets.iter().map(own).collect()
}

/// What a technique is told of the network.
#[derive(Default)]
struct Known {
    readers: HashSet<String>,
    transposed: HashSet<String>,
    blocks: Vec<Vec<Cut>>,
    cache_writers: Vec<Vec<String>>,
}

impl Known {
    fn of(technique: &dyn Technique, model: &Checkpoint, pointer: &str) -> Result<Self, Vec<Refusal>> {
        if matches!(technique.work(), Work::Each(_)) {
            // Where the model does not run, nothing is known of how it multiplies.
            let Ok(network) = network_of(model) else {
                return Ok(Self::default());
            };
            let (_, transposed) = run::readers(network.as_ref(), &run::cuts(network.as_ref()));
            return Ok(Self {
                transposed,
                ..Self::default()
            });
        }
        let network = data::network(model, pointer)?;
        let blocks = run::cuts(network.as_ref());
        let (readers, transposed) = run::readers(network.as_ref(), &blocks);
        Ok(Self {
            readers,
            transposed,
            blocks,
            cache_writers: network.cache_writers(),
        })
    }
}

/// A decision as steps of the tensors.
fn applied(
    outcome: Decision,
    index: usize,
    spec: &StageSpec,
    technique: &dyn Technique,
    pointer: &str,
    tensors: &mut [TensorPlan],
) -> Result<StagePlan, Vec<Refusal>> {
    let count = outcome.kinds.len() + outcome.caches.len();
    for (at, dtype) in outcome.caches {
        tensors[at].cache = Some(CachePlan { stage: index, dtype });
    }
    let mut rotations: HashMap<usize, Rotation> = outcome.rotations.into_iter().collect();
    let mut sparsities: HashMap<usize, Sparsity> = outcome.sparsities.into_iter().collect();
    for (at, kind) in outcome.kinds {
        let rotation = rotations.remove(&at);
        let before = tensors[at].sparsity_before(index);
        let kept = before.filter(|_| rotation.is_none() && technique.keeps_zeros(&kind));
        if let (Some(before), None) = (before, kept) {
            zeros_lost(
                &tensors[at],
                before,
                rotation.is_some(),
                &technique_at(pointer),
                technique.name(),
            )?;
        }
        tensors[at].steps.push(Step {
            stage: index,
            kind,
            rotation,
            sparsity: sparsities.remove(&at).or(kept),
        });
        tensors[at].kind = kind;
    }
    Ok(StagePlan {
        technique: spec.technique.clone(),
        options: spec.options.clone(),
        label: outcome.label,
        needs: outcome.needs,
        outline: outcome.outline,
        tensors: count,
        is_open: outcome.is_open,
    })
}

/// Refuses what a change of the structure would undo: the model that it makes holds plain numbers, and whoever works on
/// those does not know which were to be zeros.
fn check_whole(tensors: &[TensorPlan], pointer: &str, technique: &str) -> Result<(), Vec<Refusal>> {
    let refuse = |code: &'static str, detail: String| Err(vec![Refusal::new(pointer, code, detail)]);
    if let Some(tensor) = tensors.iter().find(|t| t.kind.is_compressed()) {
        let detail = format!(
            "{} is already {}: {technique} makes another model of plain numbers; quantize behind it",
            tensor.name,
            tensor.kind.label()
        );
        return refuse("already_quantized", detail);
    }
    match tensors.iter().find(|t| t.sparsity_before(usize::MAX).is_some()) {
        Some(tensor) => {
            let detail = format!(
                "{} was pruned by an earlier stage, and {technique} makes another model, whose weights are fitted anew: prune \
                 single weights behind it",
                tensor.name
            );
            refuse("zeros_lost", detail)
        }
        None => Ok(()),
    }
}

/// Refuses what fills zeros again that an earlier stage was asked for, where nothing would be left of them.
fn zeros_lost(
    tensor: &TensorPlan,
    before: Sparsity,
    is_turned: bool,
    pointer: &str,
    technique: &str,
) -> Result<(), Vec<Refusal>> {
    if !is_turned && before.pattern == Pattern::Unstructured {
        return Ok(());
    }
    let detail = format!(
        "{} has zeros in the pattern {} by an earlier stage, and {technique} fills them: prune behind it, or leave it out",
        tensor.name, before.pattern
    );
    Err(vec![Refusal::new(pointer, "zeros_lost", detail)])
}

/// Where a recipe names a stage's technique: a preset does it for those that it brings.
pub(super) fn technique_at(stage: &str) -> String {
    if stage.is_empty() {
        "/preset".to_owned()
    } else {
        format!("{stage}/technique")
    }
}

impl Context<'_> {
    /// The model's config.json.
    pub fn config(&self) -> Option<&Value> {
        self.model.config.as_ref()
    }

    /// Where the recipe names the technique, for refusals.
    pub fn technique_pointer(&self) -> String {
        technique_at(&self.pointer)
    }
}
