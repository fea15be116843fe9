//! A look at all tensors that a stage changes, before one is made.
//!
//! Owns: which stages look, what is kept of it. Must not know: what it is used for.
//! Invariant: every tensor is seen as it is before the stage; a look that was cut short starts over.

use super::course::Course;
use super::made::Made;
use crate::calibrate::Pace as _;
use crate::error::{Error, Result};
use crate::plan::StagePlan;
use crate::techniques::{self, Survey, Task, Work, seen_name, seen_words};
use crate::tensor::Rows;

/// What a stage wants to know of all tensors before the first is made.
pub(super) fn surveys(stage: &StagePlan) -> Option<&'static dyn Survey> {
    match techniques::find(&stage.technique)?.work() {
        Work::Each(work) => work.survey(&stage.options),
        Work::Blocks(_) | Work::Scales(_) | Work::Reshapes(_) => None,
    }
}

/// Looks at every tensor that a stage changes, and keeps what share of each goes. Starts over where it was cut short.
pub(super) fn look_at_all(
    made: &Made<'_>,
    index: usize,
    survey: &dyn Survey,
    course: &Course<'_>,
) -> Result<()> {
    let look = |task: &Task<'_>, rows: &dyn Rows| survey.look(task, rows);
    let seen = looked_at(made, index, &look, course)?;
    let (own, seen): (Vec<usize>, Vec<Vec<u64>>) = seen.into_iter().unzip();
    let shares = survey.shares(&made.plan.stages[index].options, &seen);
    for (at, share) in own.into_iter().zip(shares) {
        made.shelf.put_share(index, at, share)?;
    }
    Ok(())
}

/// Looks at every tensor that an open stage changes, and keeps what is seen of each.
pub(super) fn look_at_each(
    made: &Made<'_>,
    index: usize,
    look: fn(&Task<'_>, &dyn Rows) -> Result<Vec<f64>>,
    course: &Course<'_>,
) -> Result<()> {
    for (at, seen) in looked_at(made, index, &look, course)? {
        made.shelf.put_list(index, &seen_name(at), &seen_words(&seen))?;
    }
    Ok(())
}

/// What is seen of each tensor that a stage changes, as it is before it.
fn looked_at<T>(
    made: &Made<'_>,
    index: usize,
    look: &dyn Fn(&Task<'_>, &dyn Rows) -> Result<T>,
    course: &Course<'_>,
) -> Result<Vec<(usize, T)>> {
    let tensors = &made.plan.tensors;
    let own: Vec<usize> = (0..tensors.len())
        .filter(|at| tensors[*at].has_step(index))
        .collect();
    let mut seen = Vec::with_capacity(own.len());
    for (done, at) in own.iter().enumerate() {
        if course.observer.should_stop() {
            return Err(Error::cancelled());
        }
        let before = made.weight(*at, index, course.observer)?;
        let look = |task: &Task<'_>| look(task, before.as_rows());
        seen.push((*at, made.with_task(*at, index, None, course.observer, &look)?));
        course.at(done as f64 / own.len() as f64);
    }
    Ok(seen)
}
