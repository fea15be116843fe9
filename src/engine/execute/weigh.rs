//! An analysis as it was planned: the weights by themselves, and where asked, what schemes would cost them.
//!
//! Owns: the order of the two. Must not know: techniques, formats by name.
//! Invariant: nothing is chosen and nothing is written but scratch.

use super::budget::losses_of;
use super::calibrated;
use super::course::Course;
use super::made::Made;
use super::{Site, check_datasets, check_version, reshape};
use crate::analyze::{
    Analysis, AnalysisPlan, SECTIONS, SchemeLoss, Sensitivity, UnitSensitivity, analyze_in,
};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::error::{Error, Result};
use crate::observe::{Observer, Section};
use crate::plan::{self, Plan};

/// Carries out a planned analysis; only the site's scratch space is written to.
///
/// # Errors
/// Those of [`analyze`](crate::analyze()), and where schemes are weighed those of running the model over data.
pub fn execute_analysis(
    plan: &AnalysisPlan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    observer: &dyn Observer,
) -> Result<Analysis> {
    let Some(weighing) = &plan.sensitivity else {
        return analyze_in(model, observer, SECTIONS);
    };
    let of = SECTIONS + 1;
    let mut analysis = analyze_in(model, observer, of)?;
    let section = Section {
        whole: observer,
        at: SECTIONS,
        of,
    };
    analysis.sensitivity = Some(weigh(weighing, model, datasets, site, &section)?);
    Ok(analysis)
}

fn weigh(
    plan: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    observer: &dyn Observer,
) -> Result<Sensitivity> {
    check_datasets(plan, datasets)?;
    let mut course = Course::weighing(plan, observer);
    let (reshaped, _) = reshape::before(plan, model, datasets, site, &mut course)?;
    let model = reshaped.last().unwrap_or(model);
    let untied = plan::untied(&plan.own_recipe(), model);
    let model = untied.as_ref().unwrap_or(model);
    check_version(plan, model)?;
    let (Some(budget), Some(data)) = (&plan.budget, &plan.calibration) else {
        return Err(Error::internal("schemes to weigh without candidates or data"));
    };
    std::fs::create_dir_all(site.scratch).map_err(|e| Error::io("scratch space", &e))?;
    let made = Made::new(plan, model, site.scratch);
    calibrated::run_all(&made, datasets, site, &mut course)?;
    let losses = losses_of(&made, budget, datasets, site, &mut course)?;
    let units = budget.units.iter().zip(losses).map(|(unit, losses)| {
        let tensors = || unit.tensors.iter().map(|at| &plan.tensors[*at]);
        let schemes = unit.candidates.iter().zip(&unit.bytes).zip(losses);
        UnitSensitivity {
            tensors: tensors().map(|tensor| tensor.name.clone()).collect(),
            parameters: tensors().map(|tensor| tensor.elements() as u64).sum(),
            schemes: schemes
                .map(|((candidate, bytes), loss)| SchemeLoss {
                    scheme: budget.candidates[*candidate].clone(),
                    bytes: *bytes,
                    predicted_kl: loss,
                })
                .collect(),
        }
    });
    Ok(Sensitivity {
        dataset: data.dataset.clone(),
        tokens: data.tokens,
        format: plan.formats[0].format.clone(),
        candidates: budget.candidates.clone(),
        units: units.collect(),
    })
}
