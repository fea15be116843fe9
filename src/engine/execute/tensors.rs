//! The loop over tensors: check stop → make → measure → encode for each format → hand to the writer.
//!
//! Owns: the writer thread. Must not know: how a weight is made.
//! Invariant: one tensor is in memory at a time, plus the encoded previous one that is being written.

use super::course::Course;
use super::made::Made;
use super::{Seen, Target};
use crate::error::{Error, Result};
use crate::formats::container::{Sink, Written};
use crate::observe::Observer;
use crate::report::{TensorReport, measure};
use crate::tensor::Rows;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

type Encoded = (usize, usize, Vec<Vec<u8>>);

/// Reports of the tensors, and files by format.
type Compressed = (Vec<TensorReport>, Vec<Vec<Written>>);

/// Makes every tensor and writes it in every format.
pub(super) fn compress(
    made: &Made<'_>,
    out: &Path,
    targets: &[Target<'_>],
    course: &Course<'_>,
) -> Result<Compressed> {
    let mut sinks = Vec::new();
    for target in targets {
        sinks.push(Sink::new(&out.join(&target.spec.format), target.layout.clone())?);
    }
    // One tensor may wait while the one before it is written: more would only hold memory.
    let (send, receive) = sync_channel::<Encoded>(0);
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write_all(sinks, &receive));
        let made = make_all(made, targets, course, &send);
        drop(send);
        let written = writing
            .join()
            .map_err(|_panic| Error::internal("the writer thread panicked"));
        // What stopped the making counts: all that the writer can say then is that something never came. Where the
        // writer went first (a full disk), it alone knows why.
        let Some(made) = made? else {
            written??;
            return Err(Error::internal("the writer stopped"));
        };
        Ok((made, written??))
    })
}

fn write_all(mut sinks: Vec<Sink>, receive: &Receiver<Encoded>) -> Result<Vec<Vec<Written>>> {
    for (format, index, parts) in receive {
        sinks[format].put(index, &parts)?;
    }
    sinks.into_iter().map(Sink::finish).collect()
}

/// `None` if the writer went away.
fn make_all(
    made: &Made<'_>,
    targets: &[Target<'_>],
    course: &Course<'_>,
    send: &SyncSender<Encoded>,
) -> Result<Option<Vec<TensorReport>>> {
    let (plan, model) = (made.plan, made.model);
    let squares = |index: usize| made.squares(index);
    let scales = |index: usize, which| made.scale(index, which);
    let seen = Seen {
        squares: &squares,
        scales: &scales,
    };
    let mut reports = Vec::with_capacity(plan.tensors.len());
    let mut done = 0;
    for (index, (tensor, info)) in plan.tensors.iter().zip(&model.tensors).enumerate() {
        let rows = model.rows(info)?;
        let guarded = Guarded {
            inner: &rows,
            observer: course.observer,
        };
        let named = |e: Error| Error {
            message: format!("tensor {}: {}", tensor.name, e.message),
            ..e
        };
        let weight = made.weight(index, usize::MAX, course.observer).map_err(named)?;
        let measured = made
            .reference(index, &guarded, course.observer)
            .and_then(|reference| measure(tensor, &reference, &weight));
        reports.push(measured.map_err(named)?);
        for (format, target) in targets.iter().enumerate() {
            let parts = target
                .writer
                .encode(&target.request(plan, model, Some(seen)), index, &weight)
                .map_err(named)?;
            if send.send((format, index, parts)).is_err() {
                return Ok(None);
            }
        }
        done += info.bytes;
        course.advanced(done, &tensor.name);
    }
    Ok(Some(reports))
}

/// Rows that stop being readable once the observer says so: a cancel takes effect inside a large tensor too.
pub(super) struct Guarded<'a> {
    pub(super) inner: &'a dyn Rows,
    pub(super) observer: &'a dyn Observer,
}

impl Rows for Guarded<'_> {
    fn rows(&self) -> usize {
        self.inner.rows()
    }
    fn cols(&self) -> usize {
        self.inner.cols()
    }
    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        if self.observer.should_stop() {
            return Err(Error::cancelled());
        }
        self.inner.read(first_row, out)
    }
}
