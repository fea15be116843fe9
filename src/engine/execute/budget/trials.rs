//! Measuring one choice after another.
//!
//! Owns: when the original is run, how far the leg is, what is measured again. Must not know: how choices are made.
//! Invariant: what was measured in an earlier attempt is not measured again.

use super::Search;
use super::memo::key_of;
use super::trial::{Span, Trial};
use crate::error::{Error, Result};
use crate::evaluate::Measure;
use crate::execute::course::Course;
use crate::execute::made::Made;
use crate::observe::Level;
use crate::plan::{Plan, Use};
use crate::recipe::Metric;
use serde_json::json;

/// Tokens of the calibration data that choices are compared on.
const TRIAL_TOKENS: usize = 8192;

/// Trials of choices on one data.
pub(super) struct Trials<'a> {
    of: Use,
    metrics: Vec<Metric>,
    course: &'a Course<'a>,
    /// Part of the leg that is theirs.
    span: [f64; 2],
    expected: usize,
    done: usize,
    trial: Option<Trial<'a>>,
}

impl<'a> Trials<'a> {
    /// On the first of the calibration data: nothing is chosen by what the result is evaluated on.
    pub(super) fn on_calibration(course: &'a Course<'a>, span: [f64; 2], expected: usize) -> Self {
        Self {
            of: Use::Calibration,
            metrics: vec![Metric::Kl],
            course,
            span,
            expected,
            done: 0,
            trial: None,
        }
    }

    /// On the evaluation data, for limits on what is measured there.
    pub(super) fn on_evaluation(
        course: &'a Course<'a>,
        metrics: Vec<Metric>,
        span: [f64; 2],
        expected: usize,
    ) -> Self {
        Self {
            of: Use::Evaluation,
            metrics,
            ..Self::on_calibration(course, span, expected)
        }
    }

    /// The part of the leg that the next run has.
    fn next(&mut self) -> Span<'a> {
        let [from, to] = self.span;
        let at =
            |done: usize| from + (to - from) * (done.min(self.expected) as f64 / self.expected.max(1) as f64);
        let span = Span {
            course: self.course,
            from: at(self.done),
            to: at(self.done + 1),
        };
        self.done += 1;
        span
    }

    /// Measures a choice; `what` names it for the job's history.
    pub(super) fn measure(
        &mut self,
        search: &mut Search<'a>,
        plan: &Plan,
        what: &str,
    ) -> Result<Vec<Measure>> {
        let key = key_of(self.of, plan);
        if let Some(known) = search.memo.measured(&key) {
            self.done += 1;
            return Ok(known);
        }
        let trial = if let Some(trial) = self.trial.take() {
            trial
        } else {
            let span = self.next();
            self.begin(search, &span)?
        };
        let span = self.next();
        let made = Made::new(plan, search.made.model, search.site.scratch);
        let measures = trial.measure(&made, &span)?;
        self.trial = Some(trial);
        self.tell(what, &measures);
        search.memo.keep_measured(key, measures)
    }

    fn begin(&self, search: &Search<'a>, span: &Span<'_>) -> Result<Trial<'a>> {
        let plan = search.made.plan;
        let (data, tokens) = match self.of {
            Use::Calibration => (&plan.calibration, TRIAL_TOKENS),
            Use::Evaluation => (&plan.evaluation, usize::MAX),
        };
        let data = data
            .as_ref()
            .ok_or_else(|| Error::internal("a budget without its data"))?;
        let metrics = self.metrics.clone();
        Trial::begin(
            [search.original, search.made],
            (data, self.of),
            metrics,
            tokens,
            search.datasets,
            search.site,
            span,
        )
    }

    fn tell(&self, what: &str, measures: &[Measure]) {
        let values = measures.iter().map(|m| match m.change {
            Some(change) => format!("{} {:+.2} %", m.metric, 100.0 * change),
            None => format!("{} {:.5}", m.metric, m.after),
        });
        let message = format!("{what}: {}", values.collect::<Vec<_>>().join(", "));
        self.course
            .observer
            .event(Level::Info, &message, json!({"measures": measures}));
    }

    /// The divergence alone.
    pub(super) fn kl(&mut self, search: &mut Search<'a>, plan: &Plan, what: &str) -> Result<f64> {
        let measures = self.measure(search, plan, what)?;
        let kl = measures.iter().find(|m| m.metric == Metric::Kl.name());
        kl.map(|m| m.after)
            .ok_or_else(|| Error::internal("a trial without a divergence"))
    }
}
