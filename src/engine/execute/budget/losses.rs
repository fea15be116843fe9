//! What each scheme costs each tensor, before anything is chosen.
//!
//! Owns: making tensors under every candidate, and what their errors cost by the Fisher information. Must not know:
//! which techniques there are. Invariant: the rows that are looked at depend on the shape alone.

use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::execute::course::Course;
use crate::execute::made::Made;
use crate::network::read_all;
use crate::plan::{BudgetPlan, StagePlan, TensorPlan};
use crate::recipe::Refusal;
use crate::techniques::{self, Each, Schemes, Task, Technique, Work};
use crate::tensor::MemoryRows;
use crate::weight::{Fisher, Kind};
use std::collections::HashMap;

/// Weights of a matrix that are looked at; of a larger one, rows that lie evenly over it.
const VALUES: usize = 1 << 20;

/// A candidate: its stage, and what it makes of each tensor that can have it.
type Variant = (StagePlan, HashMap<usize, Kind>);

/// Nats a token, by unit and place in its candidates.
pub(super) fn table(
    made: &Made<'_>,
    budget: &BudgetPlan,
    datasets: &Datasets,
    course: &Course<'_>,
) -> Result<Vec<Vec<f64>>> {
    let refused = |refusals: Vec<Refusal>| {
        let first = refusals.first().map_or_else(String::new, |r| r.detail.clone());
        Error::internal(format!("planned, but refused now: {first}"))
    };
    let recipe = made.plan.own_recipe();
    let variants: Vec<Variant> = (0..budget.candidates.len())
        .map(|c| budget.under(c, &recipe, made.model, datasets))
        .collect::<std::result::Result<_, _>>()
        .map_err(refused)?;
    let technique = techniques::find(&made.plan.stages[budget.stage].technique);
    let whole = technique
        .and_then(Technique::schemes)
        .is_some_and(Schemes::needs_all_rows);
    let Some(Work::Each(work)) = technique.map(Technique::work) else {
        return Err(Error::internal(
            "a budget of a stage that does not work on single tensors",
        ));
    };
    let all = budget.units.iter().flat_map(|unit| &unit.tensors);
    let total: usize = all.map(|at| made.plan.tensors[*at].elements()).sum();
    let mut done = 0;
    let mut table = Vec::new();
    for unit in &budget.units {
        let mut losses = vec![0.0; unit.candidates.len()];
        for tensor in &unit.tensors {
            let sample = Sample::of(made, budget.stage, (*tensor, whole), course)?;
            for (loss, candidate) in losses.iter_mut().zip(&unit.candidates) {
                if course.observer.should_stop() {
                    return Err(Error::cancelled());
                }
                let (stage, kinds) = &variants[*candidate];
                let kind = kinds.get(tensor).copied();
                let kind = kind.ok_or_else(|| Error::internal("a candidate that was not planned"))?;
                *loss += sample.loss(work, stage, kind)?;
            }
            done += made.plan.tensors[*tensor].elements();
            crate::calibrate::Pace::at(course, done as f64 / total.max(1) as f64);
        }
        table.push(losses);
    }
    Ok(table)
}

/// Some rows of a tensor as it is before the stage, and what its weights are worth.
struct Sample {
    small: TensorPlan,
    rows: Vec<usize>,
    values: Vec<f32>,
    fisher: Fisher,
    importance: Vec<f32>,
}

impl Sample {
    /// Of the tensor of that index; all of it where that is wanted.
    fn of(made: &Made<'_>, stage: usize, (index, whole): (usize, bool), course: &Course<'_>) -> Result<Self> {
        let tensor = &made.plan.tensors[index];
        let weight = made.weight(index, stage, course.observer)?;
        let source = weight.as_rows();
        let (count, cols) = (source.rows(), source.cols());
        let taken = if whole {
            count
        } else {
            (VALUES / cols.max(1)).clamp(1, count.max(1))
        };
        let rows: Vec<usize> = (0..taken)
            .map(|i| (i as u128 * count as u128 / taken as u128) as usize)
            .collect();
        let mut values = vec![0.0; taken * cols];
        if taken == count {
            values = read_all(source)?;
        } else {
            for (row, values) in rows.iter().zip(values.chunks_mut(cols.max(1))) {
                source.read(*row, values)?;
            }
        }
        crate::kernels::check_finite(&values, 0)?;
        let fisher = made.shelf.fisher(stage, index)?;
        if fisher.rows.len() != count || fisher.cols.len() != cols {
            return Err(Error::internal(format!(
                "gradients by {} have another shape",
                tensor.name
            )));
        }
        let mut small = tensor.clone();
        small.shape = vec![taken, cols];
        Ok(Self {
            small,
            rows,
            values,
            importance: fisher.importance(),
            fisher,
        })
    }

    /// What a scheme costs the whole tensor.
    fn loss(&self, work: &dyn Each, stage: &StagePlan, kind: Kind) -> Result<f64> {
        let none = |name: &str| {
            Err(Error::internal(format!(
                "a sample has no tensor {name} beside it"
            )))
        };
        let task = Task {
            stage,
            tensor: &self.small,
            kind,
            importance: Some(&self.importance),
            rotation: None,
            diagonal: None,
            seed: 0,
            stop: &|| false,
            sparsity: None,
            other: &none,
        };
        let input = MemoryRows {
            values: &self.values,
            cols: self.small.cols(),
        };
        let weight = work.run(&task, &input)?;
        let mut errors = read_all(weight.as_rows())?;
        errors.iter_mut().zip(&self.values).for_each(|(e, v)| *e -= v);
        let part = self.fisher.share(self.rows.iter().copied());
        let loss = self.fisher.loss(self.rows.iter().copied(), &errors);
        Ok(if part > 0.0 { loss / part } else { 0.0 })
    }
}
