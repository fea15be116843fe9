//! Choosing the scheme of every tensor within a budget.
//!
//! Owns: the order of work: what each scheme costs, a first choice, what it is measured to cost part by part, the choice
//! that follows. Must not know: techniques, formats by name.
//! Invariant: a choice is a recipe without a budget, planned like any other; what is measured is kept in scratch, so
//! that another attempt does not measure it again and ends at the same choice.

mod keeping;
mod losses;
mod memo;
mod trial;
mod trials;
mod within;

use super::Site;
use super::course::{CHOOSE, Course, LOSSES};
use super::made::Made;
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::models::Role;
use crate::plan::{self, BudgetPlan, Plan, TensorPlan};
use crate::recipe::Budget;
use crate::report::{Allocation, ClassLoss, CurvePoint, Round, TensorScheme};
use crate::search::{Forecast, Point, Unit, loss_of, smallest, within_bytes};
use crate::weight::Kind;
use memo::Memo;
use std::collections::{BTreeMap, HashSet};
use trials::Trials;

/// How far a part may be from what gradients say of it, as a factor.
const FACTORS: (f64, f64) = (0.25, 4.0);

/// A part with this share of the loss is believed by half: what a small one was measured to cost says little of what it
/// would cost under a worse scheme.
const HALF_BELIEVED: f64 = 0.1;

/// Points of the curve of sizes and losses.
const CURVE: usize = 12;

/// What a choice is made with.
struct Search<'a> {
    /// The uploaded model, before any stage.
    original: &'a Made<'a>,
    made: &'a Made<'a>,
    budget: &'a BudgetPlan,
    datasets: &'a Datasets,
    site: &'a Site<'a>,
    units: Vec<Unit>,
    memo: Memo,
    classes: Vec<ClassLoss>,
}

/// A choice, planned.
struct Choice {
    chosen: Vec<usize>,
    plan: Plan,
    /// By the table of losses, corrected.
    said: f64,
}

/// What a search ended with.
struct Found {
    choice: Choice,
    held: bool,
    rounds: Vec<Round>,
    /// From losses to the divergence that is measured.
    forecast: Forecast,
}

/// Chooses; the plan that comes back has no budget.
pub(super) fn choose(
    [original, made]: [&Made<'_>; 2],
    budget: &BudgetPlan,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<(Plan, Allocation)> {
    let mut memo = Memo::open(made.plan, site)?;
    let losses = weighed(made, budget, datasets, &mut memo, course)?;
    course.begin(CHOOSE);
    let units = budget.units.iter().zip(losses).map(|(unit, losses)| {
        let points = unit.bytes.iter().zip(losses);
        points
            .map(|(bytes, loss)| Point { bytes: *bytes, loss })
            .collect()
    });
    let mut search = Search {
        original,
        made,
        budget,
        datasets,
        site,
        units: units.collect(),
        memo,
        classes: Vec::new(),
    };
    let found = match budget.budget.limit {
        Budget::TargetBytes(_) | Budget::TargetBitsPerWeight(_) => within::search(&mut search, course)?,
        Budget::MaxPerplexityIncrease(_) | Budget::MaxKl(_) | Budget::MaxAccuracyDrop(_) => {
            keeping::search(&mut search, course)?
        }
    };
    let allocation = search.report(&found);
    course.end();
    Ok((found.choice.plan, allocation))
}

/// What each unit loses under each of its candidates, nats a token.
pub(super) fn losses_of(
    made: &Made<'_>,
    budget: &BudgetPlan,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut memo = Memo::open(made.plan, site)?;
    weighed(made, budget, datasets, &mut memo, course)
}

fn weighed(
    made: &Made<'_>,
    budget: &BudgetPlan,
    datasets: &Datasets,
    memo: &mut Memo,
    course: &mut Course<'_>,
) -> Result<Vec<Vec<f64>>> {
    course.begin(LOSSES);
    let losses = match memo.losses() {
        Some(losses) => losses,
        None => memo.keep_losses(losses::table(made, budget, datasets, course)?)?,
    };
    course.end();
    Ok(losses)
}

/// What is measured and corrected together: parts that do the same in every block.
fn class_of(role: Role) -> &'static str {
    match role {
        Role::TokenEmbedding | Role::Output | Role::PositionEmbedding => "embedding and head",
        Role::AttnQ | Role::AttnK | Role::AttnQkv => "queries and keys",
        Role::AttnV => "values",
        Role::AttnOutput => "attention output",
        Role::FfnGate | Role::FfnUp => "gate and up",
        Role::FfnDown => "down",
        _ => "others",
    }
}

impl Choice {
    /// What a trial of it is called.
    fn words(&self) -> String {
        let format = &self.plan.formats[0];
        format!(
            "a choice of {} bytes, {:.3} bits a weight",
            format.bytes, format.bits_per_weight
        )
    }
}

impl<'a> Search<'a> {
    fn tensors(&self) -> &[TensorPlan] {
        &self.made.plan.tensors
    }

    fn class(&self, unit: usize) -> &'static str {
        let first = self.budget.units[unit].tensors.first();
        first.map_or("others", |tensor| class_of(self.tensors()[*tensor].role))
    }

    /// The plan of a choice.
    fn planned(&self, chosen: Vec<usize>) -> Result<Choice> {
        let recipe = self
            .budget
            .recipe(&self.made.plan.own_recipe(), self.tensors(), &chosen);
        let plan = plan::plan(&recipe, self.made.model, self.datasets).map_err(|refusals| {
            let first = refusals.first().map_or_else(String::new, |r| r.detail.clone());
            Error::internal(format!("a choice was refused: {first}"))
        })?;
        Ok(Choice {
            said: loss_of(&self.units, &chosen),
            chosen,
            plan,
        })
    }

    /// The least loss within so many bytes of files or of tensors: what alignment and headers take is found by planning.
    fn within(&self, most: u64, size: impl Fn(&Plan) -> u64) -> Result<Choice> {
        let least = self.planned(smallest(&self.units))?;
        let own: u64 = self
            .units
            .iter()
            .zip(&least.chosen)
            .map(|(unit, at)| unit[*at].bytes)
            .sum();
        let mut limit = most.saturating_add(own).saturating_sub(size(&least.plan));
        for _ in 0..8 {
            let Some(chosen) = within_bytes(&self.units, limit) else {
                break;
            };
            let choice = self.planned(chosen)?;
            let excess = size(&choice.plan).saturating_sub(most);
            if excess == 0 {
                return Ok(choice);
            }
            limit = limit.saturating_sub(excess);
        }
        Ok(least)
    }

    /// Measures a choice class by class, the rest left as it is, and corrects the losses of each class by what comes out.
    fn correct(&mut self, choice: &Choice, trials: &mut Trials<'a>) -> Result<()> {
        let mut found = Vec::new();
        for (class, places) in self.by_class() {
            let said: f64 = places
                .iter()
                .map(|at| self.units[*at][choice.chosen[*at]].loss)
                .sum();
            let measured = trials.kl(self, &self.only(choice, &places), &format!("{class} alone"))?;
            found.push((class, places, said, measured));
        }
        let total: f64 = found.iter().map(|(.., measured)| measured).sum();
        for (class, places, said, measured) in found {
            let share = measured / total.max(f64::MIN_POSITIVE);
            let factor = if said > 0.0 && measured > 0.0 {
                (measured / said)
                    .powf(share / (share + HALF_BELIEVED))
                    .clamp(FACTORS.0, FACTORS.1)
            } else {
                1.0
            };
            let tensors = || places.iter().flat_map(|at| &self.budget.units[*at].tensors);
            self.classes.push(ClassLoss {
                class: class.to_owned(),
                tensors: tensors().count(),
                parameters: tensors().map(|at| self.tensors()[*at].elements() as u64).sum(),
                predicted_kl: said,
                measured_kl: measured,
                factor,
            });
            for at in places {
                self.units[at].iter_mut().for_each(|point| point.loss *= factor);
            }
        }
        Ok(())
    }

    /// A choice in which only these units have their schemes.
    fn only(&self, choice: &Choice, places: &[usize]) -> Plan {
        let kept: HashSet<usize> = places
            .iter()
            .flat_map(|at| &self.budget.units[*at].tensors)
            .copied()
            .collect();
        let mut only = choice.plan.clone();
        for (_, tensor) in only
            .tensors
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| !kept.contains(at))
        {
            tensor.steps.retain(|step| step.stage != self.budget.stage);
            let plain = Kind::Dense {
                dtype: tensor.source_dtype,
            };
            tensor.kind = tensor.steps.last().map_or(plain, |step| step.kind);
        }
        only
    }

    /// The units of each class.
    fn by_class(&self) -> BTreeMap<&'static str, Vec<usize>> {
        let mut classes: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        for unit in 0..self.units.len() {
            classes.entry(self.class(unit)).or_default().push(unit);
        }
        classes
    }

    /// How many classes there are.
    fn class_count(&self) -> usize {
        self.by_class().len()
    }

    fn report(&self, found: &Found) -> Allocation {
        let choice = &found.choice;
        let mut tensors = Vec::new();
        for (index, (unit, at)) in self.budget.units.iter().zip(&choice.chosen).enumerate() {
            let loss = self.units[index][*at].loss;
            let weights: u64 = unit
                .tensors
                .iter()
                .map(|t| self.tensors()[*t].elements() as u64)
                .sum();
            for tensor in &unit.tensors {
                let own = self.tensors()[*tensor].elements() as u64;
                tensors.push(TensorScheme {
                    name: self.tensors()[*tensor].name.clone(),
                    scheme: self.budget.candidates[unit.candidates[*at]].clone(),
                    parameters: own,
                    bytes: (u128::from(unit.bytes[*at]) * u128::from(own) / u128::from(weights.max(1)))
                        as u64,
                    predicted_kl: found.forecast.expected(loss) * own as f64 / weights.max(1) as f64,
                });
            }
        }
        Allocation {
            budget: self.budget.budget.clone(),
            candidates: self.budget.candidates.clone(),
            held: found.held,
            predicted_kl: found.forecast.expected(choice.said),
            predicted_kl_interval: found.forecast.interval(choice.said),
            smallest_bytes: self.budget.smallest_bytes,
            largest_bytes: self.budget.largest_bytes,
            classes: self.classes.clone(),
            rounds: found.rounds.clone(),
            curve: self.curve(&found.choice, &found.forecast),
            tensors,
        }
    }

    /// What other sizes would lose.
    fn curve(&self, choice: &Choice, forecast: &Forecast) -> Vec<CurvePoint> {
        let bytes = |chosen: &[usize]| -> u64 {
            self.units
                .iter()
                .zip(chosen)
                .map(|(unit, at)| unit[*at].bytes)
                .sum()
        };
        let format = &choice.plan.formats[0];
        let rest = format.bytes.saturating_sub(bytes(&choice.chosen));
        let rest_weights = format.weight_bytes.saturating_sub(bytes(&choice.chosen));
        let (least, most) = (
            bytes(&smallest(&self.units)),
            bytes(&crate::search::largest(&self.units)),
        );
        let limit = |i: usize| least + (most - least.min(most)) * i as u64 / (CURVE as u64 - 1);
        let mut curve: Vec<CurvePoint> = Vec::new();
        for chosen in (0..CURVE).filter_map(|i| within_bytes(&self.units, limit(i))) {
            let (bytes, said) = (bytes(&chosen), loss_of(&self.units, &chosen));
            let parameters = self.made.plan.parameter_count.max(1) as f64;
            curve.push(CurvePoint {
                bytes: bytes + rest,
                bits_per_weight: (bytes + rest_weights) as f64 * 8.0 / parameters,
                predicted_kl: forecast.expected(said),
                predicted_kl_interval: forecast.interval(said),
            });
        }
        curve.dedup_by_key(|point| point.bytes);
        curve
    }
}
