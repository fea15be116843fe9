//! Trying a choice: the model with it beside the original.
//!
//! Owns: the original's last hidden states, which are made once. Must not know: how choices are made.
//! Invariant: every choice is measured on the same sequences.

use crate::calibrate::{Pace, Stash, Walk};
use crate::dataset::Datasets;
use crate::error::Result;
use crate::evaluate::{Comparison, Ends, Layers, Measure, check_hidden, compare};
use crate::execute::Site;
use crate::execute::course::Course;
use crate::execute::made::Made;
use crate::execute::quality::{Blind, head, numbers};
use crate::models::network_of;
use crate::network::{Batch, Compute, Network, Weights};
use crate::plan::{DataPlan, Use, planned_sequences};
use crate::recipe::Metric;

/// A part of a leg.
pub(super) struct Span<'a> {
    pub course: &'a Course<'a>,
    /// Where it begins and ends, 0 to 1.
    pub from: f64,
    pub to: f64,
}

impl Span<'_> {
    fn part(&self, from: f64, to: f64) -> Span<'_> {
        let length = self.to - self.from;
        Span {
            course: self.course,
            from: self.from + from * length,
            to: self.from + to * length,
        }
    }
}

impl Pace for Span<'_> {
    fn at(&self, part: f64) {
        Pace::at(self.course, self.from + part * (self.to - self.from));
    }

    fn should_stop(&self) -> bool {
        self.course.should_stop()
    }
}

/// The original over some sequences.
pub(super) struct Trial<'a> {
    /// Of the original and of what it becomes.
    networks: [Box<dyn Network>; 2],
    compute: Compute,
    site: &'a Site<'a>,
    sequences: Vec<Vec<u32>>,
    /// Of the sequences, where they are measured with.
    labels: Vec<usize>,
    metrics: Vec<Metric>,
    activation_bytes: u64,
    batches: Vec<Batch>,
    hidden: Stash,
    head: Weights,
    seed: u64,
}

impl<'a> Trial<'a> {
    /// Runs the original over the data's first sequences of at most `tokens` in all.
    pub(super) fn begin(
        [original, made]: [&Made<'_>; 2],
        (data, of): (&DataPlan, Use),
        metrics: Vec<Metric>,
        tokens: usize,
        datasets: &Datasets,
        site: &'a Site<'a>,
        span: &Span<'_>,
    ) -> Result<Self> {
        let networks = [network_of(original.model)?, network_of(made.model)?];
        let [before, network] = [&networks[0], &networks[1]];
        let taken = planned_sequences(
            &made.plan.recipe,
            of,
            data,
            made.model,
            datasets,
            network.as_ref(),
        )?;
        let labels = numbers(made.model, network.as_ref(), &taken.labels, &metrics)?;
        let sequences = first_of(taken.ids, tokens);
        let original = original.before(0, span.course.observer);
        let head = head(before.as_ref(), &original, &site.compute)?;
        let stash = Stash::new(site.scratch, data.activation_bytes / 2);
        let mut walk = Walk::start_beside(
            before.as_ref(),
            &original,
            span,
            &sequences,
            site.compute.clone(),
            stash,
            network.as_ref(),
        )?;
        walk_through(&mut walk, "original")?;
        let (batches, hidden) = walk.into_hidden()?;
        Ok(Self {
            networks,
            compute: site.compute.clone(),
            site,
            labels: labels.into_iter().take(sequences.len()).collect(),
            sequences,
            metrics,
            activation_bytes: data.activation_bytes / 2,
            batches,
            hidden,
            head,
            seed: made.plan.recipe.seed,
        })
    }

    /// Measures the model as the plan's stages leave it.
    pub(super) fn measure(&self, made: &Made<'_>, span: &Span<'_>) -> Result<Vec<Measure>> {
        let compressed = made.before(usize::MAX, span.course.observer);
        let stash = Stash::new(self.site.scratch, self.activation_bytes);
        let walking = span.part(0.0, 0.7);
        let mut walk = Walk::start_beside(
            self.networks[1].as_ref(),
            &compressed,
            &walking,
            &self.sequences,
            self.compute.clone(),
            stash,
            self.networks[0].as_ref(),
        )?;
        walk_through(&mut walk, "compressed")?;
        let (_, hidden) = walk.into_hidden()?;
        let own = head(self.networks[1].as_ref(), &compressed, &self.compute)?;
        let comparing = span.part(0.7, 1.0);
        let stop = |part: f64| {
            comparing.at(part);
            comparing.should_stop()
        };
        let comparison = Comparison {
            networks: [self.networks[0].as_ref(), self.networks[1].as_ref()],
            compute: &self.compute,
            batches: &self.batches,
            ends: [
                Ends {
                    hidden: &|batch| self.hidden.read(batch),
                    weights: &self.head,
                },
                Ends {
                    hidden: &|batch| hidden.read(batch),
                    weights: &own,
                },
            ],
            layers: &Layers::default(),
            labels: &self.labels,
            metrics: &self.metrics,
            seed: self.seed,
        };
        Ok(compare(&comparison, &stop)?.measures)
    }
}

/// The first sequences of at most `tokens` in all, but at least one.
fn first_of(mut sequences: Vec<Vec<u32>>, tokens: usize) -> Vec<Vec<u32>> {
    let mut sum = 0;
    let mut fits = |ids: &&Vec<u32>| {
        sum += ids.len();
        sum <= tokens
    };
    let count = sequences.iter().take_while(|ids| fits(ids)).count();
    sequences.truncate(count.max(1));
    sequences
}

fn walk_through(walk: &mut Walk<'_>, which: &'static str) -> Result<()> {
    for block in 0..walk.blocks() {
        walk.block(block, &mut Blind)?;
    }
    let last = walk.blocks().saturating_sub(1);
    (0..walk.batches()).try_for_each(|batch| {
        let (_, hidden) = walk.hidden(batch)?;
        check_hidden(which, last, &hidden)
    })
}
