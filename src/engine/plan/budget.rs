//! What a budget may choose from, and what of it is possible.
//!
//! Owns: [`BudgetPlan`], the recipe that a choice is. Must not know: how one is chosen, techniques by name.
//! Invariant: what is chosen is a recipe without a budget, so that it is planned, written and made again like any other;
//! a size that no choice has is refused here, with the smallest that one has.

use super::statistics::computed;
use super::{
    FormatPlan, ImportanceSource, Plan, StagePlan, TensorPlan, data, formats, plan_one, staged, untied,
    untouched,
};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::formats::writer;
use crate::network::HeadKind;
use crate::recipe::{Budget, BudgetSpec, Recipe, Refusal};
use crate::techniques::{self, Schemes, Technique};
use crate::weight::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A budget on a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetPlan {
    /// What was asked.
    pub budget: BudgetSpec,
    /// Index of the stage whose schemes are chosen.
    pub stage: usize,
    /// Schemes to choose from.
    pub candidates: Vec<String>,
    /// Tensors that get one, by what is decided together.
    pub units: Vec<UnitPlan>,
    /// Bytes of all files at the least.
    pub smallest_bytes: u64,
    /// Bits a weight at the least.
    pub smallest_bits_per_weight: f64,
    /// Bytes of all files at the most.
    pub largest_bytes: u64,
}

/// Tensors that the engine wants in the same scheme.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// Their indices.
    pub tensors: Vec<usize>,
    /// Schemes that all of them can have, as indices of the candidates.
    pub candidates: Vec<usize>,
    /// Bytes of all of them under each.
    pub bytes: Vec<u64>,
}

impl BudgetPlan {
    /// The recipe that gives each unit one of its candidates (`chosen` has the places in its list).
    pub fn recipe(&self, recipe: &Recipe, tensors: &[TensorPlan], chosen: &[usize]) -> Recipe {
        let units = self.units.iter().zip(chosen);
        let schemes: Vec<(usize, &str)> = units
            .flat_map(|(unit, at)| {
                let scheme = self.candidates[unit.candidates[*at]].as_str();
                unit.tensors.iter().map(move |tensor| (*tensor, scheme))
            })
            .collect();
        assigned(recipe, self.stage, tensors, &schemes)
    }
}

impl BudgetPlan {
    /// The stage, and what each tensor becomes in it, where every unit that can have a candidate has it; none for the
    /// others.
    pub(crate) fn under(
        &self,
        candidate: usize,
        recipe: &Recipe,
        model: &Checkpoint,
        datasets: &Datasets,
    ) -> Result<(StagePlan, HashMap<usize, Kind>), Vec<Refusal>> {
        let names: Vec<TensorPlan> = model.tensors.iter().map(|t| untouched(model, t)).collect();
        let place = |unit: &UnitPlan| unit.candidates.iter().position(|c| *c == candidate);
        let chosen: Vec<usize> = self.units.iter().map(|unit| place(unit).unwrap_or(0)).collect();
        let recipe = self.recipe(recipe, &names, &chosen);
        let (mut stages, tensors) = staged(&recipe, model, datasets)?;
        let able = self.units.iter().filter(|unit| place(unit).is_some());
        let mut kinds = HashMap::new();
        for tensor in able.flat_map(|unit| &unit.tensors) {
            let step = tensors[*tensor]
                .steps
                .iter()
                .find(|step| step.stage == self.stage);
            kinds.extend(step.map(|step| (*tensor, step.kind)));
        }
        Ok((stages.swap_remove(self.stage), kinds))
    }
}

/// A recipe without its budget, in which a stage gives tensors these schemes.
fn assigned(recipe: &Recipe, stage: usize, tensors: &[TensorPlan], schemes: &[(usize, &str)]) -> Recipe {
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, scheme) in schemes {
        modules.entry(scheme).or_default().push(tensors[*tensor].module());
    }
    let mut recipe = Recipe {
        budget: None,
        preset: None,
        ..recipe.clone()
    };
    let spec = &mut recipe.stages[stage];
    if let Some(schemes) = techniques::find(&spec.technique).and_then(Technique::schemes) {
        spec.options = schemes.assign(&spec.options, &modules);
    }
    recipe
}

fn refuse<T>(pointer: &str, code: &'static str, detail: impl Into<String>) -> Result<T, Vec<Refusal>> {
    Err(vec![Refusal::new(pointer, code, detail)])
}

/// Plans a recipe with a budget: the plan is that of the largest choice, which bounds every other.
pub(super) fn plan(
    recipe: &Recipe,
    budget: &BudgetSpec,
    model: &Checkpoint,
    datasets: &Datasets,
) -> Result<Plan, Vec<Refusal>> {
    let [_] = recipe.formats[..] else {
        let detail = "a budget is for one format: what one tensor takes differs between them";
        return refuse("/formats", "budget_of_one_format", detail);
    };
    let (stage, schemes) = stage_of(recipe)?;
    if data::network(model, "/budget")?.head_kind() == HeadKind::Embedding {
        let detail =
            "a budget weighs what changes a model's distributions, and this one answers with embeddings";
        return refuse("/budget", "budget_without_distribution", detail);
    }
    let candidates = candidates_of(budget, schemes)?;
    // Which tensors the stage changes, and what all are.
    let untied = untied(recipe, model);
    let separate = untied.as_ref().unwrap_or(model);
    let (_, tensors) = staged(recipe, separate, datasets)?;
    // What nothing can be said of keeps what the stage gives it by itself.
    let weighed = computed(separate, &tensors, ImportanceSource::Fisher, "/budget")?;
    let touched: Vec<usize> = (0..tensors.len())
        .filter(|at| weighed.knows(*at))
        .filter(|at| tensors[*at].has_step(stage) && tensors[*at].kind.is_compressed())
        .collect();
    let fitting = |at: usize| -> Vec<usize> {
        let fits = |c: &usize| schemes.fits(&candidates[*c], &tensors[at]);
        (0..candidates.len()).filter(fits).collect()
    };
    let chosen: Vec<(usize, Vec<usize>)> = touched
        .into_iter()
        .map(|at| (at, fitting(at)))
        .filter(|(_, fitting)| !fitting.is_empty())
        .collect();
    if chosen.is_empty() {
        let detail = format!("no tensor can have any of {}", candidates.join(", "));
        return refuse("/budget/candidates", "no_candidates", detail);
    }
    let bytes_under = |schemes: &[(usize, &str)]| {
        let recipe = assigned(recipe, stage, &tensors, schemes);
        let (stages, tensors) = staged(&recipe, separate, datasets)?;
        formats::plan_format(0, &recipe.formats[0], &stages, &tensors, separate).map(|(_, bytes)| bytes)
    };
    let bytes = bytes_of_each(&candidates, &chosen, &bytes_under)?;
    let units = units_of(recipe, &tensors, &chosen, &bytes)?;
    let mut planned = BudgetPlan {
        budget: budget.clone(),
        stage,
        candidates,
        units,
        smallest_bytes: 0,
        smallest_bits_per_weight: 0.0,
        largest_bytes: 0,
    };
    let extreme = |planned: &BudgetPlan, sign: i64, weighed: Option<usize>| {
        let best = |unit: &UnitPlan| {
            let places = 0..unit.bytes.len();
            places.min_by_key(|at| sign * unit.bytes[*at] as i64).unwrap_or(0)
        };
        let chosen: Vec<usize> = planned.units.iter().map(best).collect();
        plan_one(
            &planned.recipe(recipe, &tensors, &chosen),
            model,
            datasets,
            weighed,
        )
    };
    let smallest = extreme(&planned, 1, None)?;
    let mut largest = extreme(&planned, -1, Some(stage))?;
    planned.smallest_bytes = smallest.formats[0].bytes;
    planned.smallest_bits_per_weight = smallest.formats[0].bits_per_weight;
    planned.largest_bytes = largest.formats[0].bytes;
    possible(&planned, &smallest.formats[0])?;
    measurable(budget, &largest)?;
    cap(&mut largest, budget);
    largest.recipe = recipe.clone();
    largest.recipe_hash = recipe.hash();
    largest.budget = Some(planned);
    Ok(largest)
}

/// The one stage that has schemes to choose from.
fn stage_of(recipe: &Recipe) -> Result<(usize, &'static dyn Schemes), Vec<Refusal>> {
    let stages = recipe.stages.iter().enumerate();
    let found: Vec<_> = stages
        .filter_map(|(at, stage)| Some((at, techniques::find(&stage.technique)?.schemes()?)))
        .collect();
    let able = techniques::TECHNIQUES.iter().filter(|t| t.schemes().is_some());
    let able: Vec<&str> = able.map(|t| t.name()).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let detail = format!(
                "no stage has schemes to choose from; techniques that do: {}",
                able.join(", ")
            );
            refuse("/budget", "nothing_to_choose", detail)
        }
        _ => refuse(
            "/budget",
            "several_to_choose",
            "several stages have schemes to choose from: a budget is for one",
        ),
    }
}

fn candidates_of(budget: &BudgetSpec, schemes: &dyn Schemes) -> Result<Vec<String>, Vec<Refusal>> {
    let known = schemes.all();
    if let Some(at) = budget
        .candidates
        .iter()
        .position(|c| !known.contains(&c.as_str()))
    {
        let detail = format!(
            "no scheme is called {:?}; schemes are {}",
            budget.candidates[at],
            known.join(", ")
        );
        return refuse(&format!("/budget/candidates/{at}"), "unknown_scheme", detail);
    }
    let mut candidates = budget.candidates.clone();
    if candidates.is_empty() {
        candidates = schemes.suggested().iter().map(|s| (*s).to_owned()).collect();
    }
    candidates.sort_unstable();
    candidates.dedup();
    Ok(candidates)
}

/// Bytes of each tensor under schemes that are given to tensors.
type BytesUnder<'a> = &'a dyn Fn(&[(usize, &str)]) -> Result<Vec<u64>, Vec<Refusal>>;

/// Bytes of each tensor under each candidate: all tensors that can have it do.
fn bytes_of_each(
    candidates: &[String],
    chosen: &[(usize, Vec<usize>)],
    bytes_under: BytesUnder<'_>,
) -> Result<Vec<Vec<u64>>, Vec<Refusal>> {
    let under = |index: usize| {
        let scheme = |(tensor, fitting): &(usize, Vec<usize>)| {
            let one = if fitting.contains(&index) {
                index
            } else {
                fitting[0]
            };
            (*tensor, candidates[one].as_str())
        };
        let schemes: Vec<(usize, &str)> = chosen.iter().map(scheme).collect();
        bytes_under(&schemes)
    };
    (0..candidates.len()).map(under).collect()
}

/// Tensors that the engine wants alike, together.
fn units_of(
    recipe: &Recipe,
    tensors: &[TensorPlan],
    chosen: &[(usize, Vec<usize>)],
    bytes: &[Vec<u64>],
) -> Result<Vec<UnitPlan>, Vec<Refusal>> {
    let writer = writer(&recipe.formats[0].format);
    let mut units: Vec<UnitPlan> = Vec::new();
    let mut known: BTreeMap<(usize, &'static str), usize> = BTreeMap::new();
    for (tensor, fitting) in chosen {
        let place = &tensors[*tensor];
        let fused = writer.and_then(|writer| writer.fuses(place));
        let key = place.layer.zip(fused);
        let at = if let Some(at) = key.and_then(|key| known.get(&key).copied()) {
            at
        } else {
            units.push(UnitPlan {
                tensors: Vec::new(),
                candidates: fitting.clone(),
                bytes: Vec::new(),
            });
            known.extend(key.map(|key| (key, units.len() - 1)));
            units.len() - 1
        };
        units[at].tensors.push(*tensor);
        units[at].candidates.retain(|c| fitting.contains(c));
    }
    for unit in &mut units {
        if unit.candidates.is_empty() {
            let names: Vec<&str> = unit.tensors.iter().map(|t| tensors[*t].module()).collect();
            let detail = format!(
                "{} share a scheme in this format, and none of the candidates fits all of them",
                names.join(", ")
            );
            return refuse("/budget/candidates", "no_candidates", detail);
        }
        let of = |c: &usize| unit.tensors.iter().map(|tensor| bytes[*c][*tensor]).sum();
        unit.bytes = unit.candidates.iter().map(of).collect();
    }
    Ok(units)
}

/// Refuses a size below that of the smallest choice.
fn possible(planned: &BudgetPlan, smallest: &FormatPlan) -> Result<(), Vec<Refusal>> {
    let (field, asked, least) = match planned.budget.limit {
        Budget::TargetBytes(bytes) if bytes < smallest.bytes => (
            "target_bytes",
            format!("{bytes} bytes"),
            format!("{} bytes", smallest.bytes),
        ),
        Budget::TargetBitsPerWeight(bits) if bits < smallest.bits_per_weight => (
            "target_bits_per_weight",
            format!("{bits} bits a weight"),
            format!("{:.4} bits a weight", rounded_up(smallest.bits_per_weight)),
        ),
        _ => return Ok(()),
    };
    let detail = format!(
        "{field} is {asked}; the smallest possible with these candidates ({}) is {least}: raise it, or add smaller \
         candidates",
        planned.candidates.join(", ")
    );
    refuse(&format!("/budget/{field}"), "impossible_target", detail)
}

/// Refuses a limit on what this model's answers do not have.
fn measurable(budget: &BudgetSpec, largest: &Plan) -> Result<(), Vec<Refusal>> {
    let measured = largest.evaluation.iter().flat_map(|data| &data.metrics);
    let measured: Vec<_> = measured.copied().collect();
    match budget.limit.metric().filter(|metric| !measured.contains(metric)) {
        None => Ok(()),
        Some(metric) => {
            let names: Vec<&str> = measured.iter().map(|metric| metric.name()).collect();
            let detail = format!(
                "{} cannot be measured of this model; {} can",
                metric.name(),
                names.join(", ")
            );
            let field = budget.limit.field();
            refuse(&format!("/budget/{field}"), "metric_does_not_fit", detail)
        }
    }
}

/// To four places, so that who asks for what a refusal says gets it.
fn rounded_up(bits: f64) -> f64 {
    (bits * 1e4).ceil() / 1e4
}

/// No choice within a size is larger than it.
fn cap(largest: &mut Plan, budget: &BudgetSpec) {
    let format = &mut largest.formats[0];
    let most = match budget.limit {
        Budget::TargetBytes(bytes) => bytes,
        Budget::TargetBitsPerWeight(bits) => {
            let weights = (bits * largest.parameter_count as f64 / 8.0) as u64;
            (format.bytes - format.weight_bytes).saturating_add(weights)
        }
        Budget::MaxPerplexityIncrease(_) | Budget::MaxKl(_) | Budget::MaxAccuracyDrop(_) => return,
    };
    let saved = format.bytes.saturating_sub(most);
    format.bytes -= saved;
    let is_as_stored = format.memory_bytes == format.weight_bytes;
    format.weight_bytes = format.weight_bytes.saturating_sub(saved);
    if is_as_stored {
        format.memory_bytes = format.weight_bytes;
    }
    format.bits_per_weight = format.weight_bytes as f64 * 8.0 / largest.parameter_count.max(1) as f64;
    format.compression_ratio = largest.source_bytes as f64 / format.weight_bytes.max(1) as f64;
    if let Some(file) = format.files.iter_mut().max_by_key(|file| file.bytes) {
        file.bytes = file.bytes.saturating_sub(saved);
    }
    largest.disk_bytes = format.bytes;
}
