//! What every stage of a job leaves of the model, and what all of them do.
//!
//! Owns: which stages are measured by themselves. Must not know: how models are compared.
//! Invariant: what the last stage leaves is measured once, as the result.

use super::Site;
use super::course::Course;
use super::made::Made;
use super::quality::{self, Behind};
use crate::checkpoint::Checkpoint;
use crate::dataset::Datasets;
use crate::error::Result;
use crate::evaluate::{Quality, StageEffect};
use crate::plan::{DataPlan, Plan};

/// Where a stage's effect is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the model that a stage made which changes the structure: which of these models.
    Structure(usize),
    /// Before one of the last plan's own stages.
    Before(usize),
}

/// The stages that are measured by themselves, by their place in the recipe.
pub(super) fn places(plan: &Plan) -> Vec<(usize, Place)> {
    let asked = plan.recipe.evaluation.as_ref();
    if !asked.is_some_and(|evaluation| evaluation.each_stage) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let plans = plan.all();
    for (at, earlier) in plans.iter().take(plans.len() - 1).enumerate() {
        all.push((earlier.end() - 1, Place::Structure(at)));
    }
    for stage in 1..plan.stages.len() {
        all.push((plan.first_stage + stage - 1, Place::Before(stage)));
    }
    // Behind the last stage is the result.
    all.retain(|(stage, _)| stage + 1 < plan.end());
    all
}

/// A job's models.
pub(super) struct Effects<'a> {
    /// The uploaded one, before any stage.
    pub original: &'a Made<'a>,
    /// The last one.
    pub made: &'a Made<'a>,
    /// Those that stages made which change the structure.
    pub between: &'a [Checkpoint],
}

impl Effects<'_> {
    /// Measures the result, and before it what every stage left, where that is asked for.
    pub(super) fn measure(
        &self,
        data: &DataPlan,
        datasets: &Datasets,
        site: &Site<'_>,
        course: &mut Course<'_>,
    ) -> Result<Quality> {
        let mut stages = Vec::new();
        for (stage, place) in places(self.made.plan) {
            let quality = self.at(place, data, datasets, site, course)?;
            let technique = self.made.plan.recipe.stages.get(stage);
            stages.push(StageEffect {
                stage,
                technique: technique.map_or_else(String::new, |stage| stage.technique.clone()),
                measures: quality.measures,
            });
        }
        let behind = self.behind(self.made, usize::MAX);
        let quality = quality::measure(self.original, behind, data, datasets, site, course)?;
        Ok(Quality { stages, ..quality })
    }

    fn behind<'b>(&'b self, made: &'b Made<'b>, until: usize) -> Behind<'b> {
        Behind {
            made,
            until,
            recipe: &self.made.plan.recipe,
        }
    }

    fn at(
        &self,
        place: Place,
        data: &DataPlan,
        datasets: &Datasets,
        site: &Site<'_>,
        course: &mut Course<'_>,
    ) -> Result<Quality> {
        match place {
            Place::Before(until) => quality::measure(
                self.original,
                self.behind(self.made, until),
                data,
                datasets,
                site,
                course,
            ),
            Place::Structure(at) => {
                // As the next plan sees it before its first stage.
                let plans = self.made.plan.all();
                let made = Made::new(plans[at + 1], &self.between[at], site.scratch);
                quality::measure(self.original, self.behind(&made, 0), data, datasets, site, course)
            }
        }
    }
}
