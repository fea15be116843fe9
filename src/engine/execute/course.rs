//! Progress of a plan's execution.
//!
//! Owns: stages as the observer sees them, how much of the whole each is, what each cost. Must not know: what they do.
//! Invariant: work done never falls and ends at the total.

use super::effects;
use super::settle::looks_at_each;
use super::survey::surveys;
use crate::calibrate::Pace;
use crate::observe::{Observer, Usage};
use crate::plan::{Plan, StagePlan};
use crate::report::StageReport;
use crate::techniques;

/// A walk through the model counts as much as reading its weights so many times.
const WALK: u64 = 8;

/// Name of the leg that collects the importance of columns.
pub(super) const IMPORTANCE: &str = "importance";

/// Name of the leg that differentiates the loss by every weight.
pub(super) const FISHER: &str = "fisher";

/// Name of the leg in which all tensors are looked at before one is made.
pub(super) const SURVEY: &str = "survey";

/// Name of the leg in which a model of another structure is written.
pub(super) const RESHAPE: &str = "reshape";

/// Names of the legs in which a budget's schemes are weighed and chosen.
pub(super) const LOSSES: &str = "losses";
pub(super) const CHOOSE: &str = "choose";

/// Where the execution is.
pub(super) struct Course<'a> {
    pub observer: &'a dyn Observer,
    /// Name of each stage and its share, in bytes.
    legs: Vec<(String, u64)>,
    at: usize,
    begun: Usage,
    ended: Vec<StageReport>,
}

impl<'a> Course<'a> {
    pub(super) fn of(plan: &Plan, observer: &'a dyn Observer) -> Self {
        let weights: u64 = plan.tensors.iter().map(|tensor| tensor.source_bytes).sum();
        let mut course = Self::weighing(plan, observer);
        if plan.budget.is_some() {
            course.legs.push((CHOOSE.to_owned(), 8 * WALK * weights));
        }
        course.legs.push(("compress".to_owned(), weights));
        course.legs.push(("verify".to_owned(), plan.disk_bytes));
        if plan.evaluation.is_some() {
            for _ in 0..=effects::places(plan).len() {
                course.legs.push(("evaluate".to_owned(), WALK * weights));
                course.legs.push(("compare".to_owned(), WALK * weights / 2));
            }
        }
        course
    }

    /// Of the calibrated stages, and of what a budget's schemes cost, and no further.
    pub(super) fn weighing(plan: &Plan, observer: &'a dyn Observer) -> Self {
        // Each tensor counts, those too that share their bytes with another.
        let weights: u64 = plan.tensors.iter().map(|tensor| tensor.source_bytes).sum();
        let known = |stage: &StagePlan| {
            let runs = techniques::find(&stage.technique).is_some_and(|t| t.work().by_blocks().is_some());
            match (runs, stage.descends()) {
                (true, true) => Some((FISHER.to_owned(), 4 * WALK * weights)),
                (true, false) if stage.collects() => Some((IMPORTANCE.to_owned(), WALK * weights)),
                _ => None,
            }
        };
        let walked = |stage: &StagePlan| {
            let found = techniques::find(&stage.technique).and_then(|t| t.work().by_blocks());
            let name = match found {
                Some(_) => stage.technique.clone(),
                None if stage.descends() => return Some((FISHER.to_owned(), 4 * WALK * weights)),
                None if stage.collects() => IMPORTANCE.to_owned(),
                None => return None,
            };
            Some((name, WALK * weights))
        };
        let looks = |stage: &StagePlan| surveys(stage).is_some() || looks_at_each(stage);
        let looked = |stage: &StagePlan| looks(stage).then(|| (SURVEY.to_owned(), weights));
        let of = |stage: &StagePlan| known(stage).into_iter().chain(walked(stage)).chain(looked(stage));
        let mut legs: Vec<(String, u64)> = Vec::new();
        if let Some(earlier) = &plan.earlier {
            legs.extend(Self::weighing(earlier, observer).legs);
        }
        legs.extend(plan.stages.iter().flat_map(of));
        if plan.stages.iter().any(|stage| stage.outline.is_some()) {
            legs.push((RESHAPE.to_owned(), weights));
        }
        if let Some(budget) = &plan.budget {
            let candidates = budget.candidates.len() as u64;
            legs.push((LOSSES.to_owned(), candidates * weights));
        }
        Self {
            observer,
            legs,
            at: 0,
            begun: Usage::default(),
            ended: Vec::new(),
        }
    }

    /// Begins the next leg; the name is checked in tests only, legs come in their order.
    pub(super) fn begin(&mut self, name: &str) {
        debug_assert_eq!(self.legs.get(self.at).map(|l| l.0.as_str()), Some(name));
        self.begun = self.observer.usage();
        self.observer.stage(name, self.at, self.legs.len());
        self.advanced(0, name);
    }

    pub(super) fn end(&mut self) {
        let now = self.observer.usage();
        if let Some((name, share)) = self.legs.get(self.at) {
            self.advanced(*share, name);
            self.ended.push(StageReport {
                name: name.clone(),
                seconds: now.elapsed_seconds - self.begun.elapsed_seconds,
                cpu_seconds: now.cpu_seconds - self.begun.cpu_seconds,
                peak_rss_bytes: now.peak_rss_bytes,
            });
        }
        self.at += 1;
    }

    /// All legs of a plan that makes a model that is there already.
    pub(super) fn pass(&mut self, plan: &Plan) {
        let own = Self::weighing(plan, self.observer).legs.len();
        let earlier = plan.earlier.as_ref();
        let passed = earlier.map_or(0, |plan| Self::weighing(plan, self.observer).legs.len());
        for _ in passed..own {
            let name = self.legs.get(self.at).map_or(String::new(), |leg| leg.0.clone());
            self.begin(&name);
            self.end();
        }
    }

    /// So much of the present leg is done.
    pub(super) fn advanced(&self, done: u64, detail: &str) {
        let before: u64 = self.legs[..self.at.min(self.legs.len())]
            .iter()
            .map(|l| l.1)
            .sum();
        let total: u64 = self.legs.iter().map(|l| l.1).sum();
        self.observer.advanced((before + done).min(total), total, detail);
    }

    pub(super) fn stages(&self) -> Vec<StageReport> {
        self.ended.clone()
    }
}

impl Pace for Course<'_> {
    fn at(&self, part: f64) {
        if let Some((name, share)) = self.legs.get(self.at) {
            self.advanced((part.clamp(0.0, 1.0) * *share as f64) as u64, name);
        }
    }

    fn should_stop(&self) -> bool {
        self.observer.should_stop()
    }
}
