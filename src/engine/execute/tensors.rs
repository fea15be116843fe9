//! The loop over tensors: check stop → make → measure → encode for each format → hand to the writer.
//!
//! Owns: the writer thread, and what an earlier attempt made already. Must not know: how a weight is made.
//! Invariant: one tensor is in memory at a time, plus the encoded previous one that is being written. It does not
//! matter to the bytes which tensors are made now and which were.

use super::course::Course;
use super::made::Made;
use super::pieces::{Parts, Pieces};
use super::{Seen, Target};
use crate::error::{Error, Result};
use crate::formats::container::{Sink, Written};
use crate::observe::{Level, Observer};
use crate::report::{TensorReport, measure};
use crate::tensor::Rows;
use crate::weight::Weight;
use serde_json::json;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

type Encoded = (usize, usize, Vec<Vec<u8>>);

/// Reports of the tensors, and files by format.
type Compressed = (Vec<TensorReport>, Vec<Vec<Written>>);

/// Makes every tensor and writes it in every format.
pub(super) fn compress(
    made: &Made<'_>,
    pieces: &Pieces,
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
        let made = make_all(made, pieces, targets, course, &send);
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
    pieces: &Pieces,
    targets: &[Target<'_>],
    course: &Course<'_>,
    send: &SyncSender<Encoded>,
) -> Result<Option<Vec<TensorReport>>> {
    let maker = Maker {
        made,
        pieces,
        targets,
        observer: course.observer,
    };
    let mut reports = Vec::with_capacity(made.plan.tensors.len());
    let (mut done, mut found) = (0, 0_usize);
    for (index, info) in made.model.tensors.iter().enumerate() {
        if course.observer.should_stop() {
            return Err(Error::cancelled());
        }
        let named = |e: Error| Error {
            message: format!("tensor {}: {}", info.name, e.message),
            ..e
        };
        let mut tensor = Tensor::begin(&maker, index);
        for format in 0..targets.len() {
            let parts = tensor.parts(format).map_err(named)?;
            if send.send((format, index, parts)).is_err() {
                return Ok(None);
            }
        }
        found += usize::from(tensor.fresh.is_none());
        reports.push(tensor.report().map_err(named)?);
        done += info.bytes;
        course.advanced(done, &info.name);
    }
    if found > 0 {
        let message = format!("{found} tensors were there already, made by an earlier attempt");
        course
            .observer
            .event(Level::Info, &message, json!({"tensors": found}));
    }
    Ok(Some(reports))
}

/// What tensors are made with.
struct Maker<'a> {
    made: &'a Made<'a>,
    pieces: &'a Pieces,
    targets: &'a [Target<'a>],
    observer: &'a dyn Observer,
}

/// A tensor on its way: it is made once some format needs it.
struct Tensor<'a> {
    maker: &'a Maker<'a>,
    index: usize,
    begun: f64,
    fresh: Option<(Weight, TensorReport)>,
    known: Option<TensorReport>,
}

impl<'a> Tensor<'a> {
    fn begin(maker: &'a Maker<'a>, index: usize) -> Self {
        Self {
            maker,
            index,
            begun: maker.observer.usage().elapsed_seconds,
            fresh: None,
            known: None,
        }
    }

    /// Its bytes in a format.
    fn parts(&mut self, format: usize) -> Result<Parts> {
        let (maker, index, begun) = (self.maker, self.index, self.begun);
        if let Some((report, parts)) = maker.pieces.get(index, format) {
            self.known = Some(report);
            return Ok(parts);
        }
        let (plan, model) = (maker.made.plan, maker.made.model);
        let squares = |index: usize| maker.made.squares(index);
        let scales = |index: usize, which| maker.made.scale(index, which);
        let seen = Seen {
            squares: &squares,
            scales: &scales,
        };
        let (weight, report) = self.fresh()?;
        let target = &maker.targets[format];
        let parts = target
            .writer
            .encode(&target.request(plan, model, Some(seen)), index, weight)?;
        let seconds = maker.observer.usage().elapsed_seconds - begun;
        if Pieces::is_worth(seconds, &parts) {
            maker.pieces.put(index, format, report, &parts)?;
        }
        Ok(parts)
    }

    fn fresh(&mut self) -> Result<&(Weight, TensorReport)> {
        let fresh = match self.fresh.take() {
            Some(fresh) => fresh,
            None => self.maker.make(self.index)?,
        };
        Ok(self.fresh.insert(fresh))
    }

    fn report(mut self) -> Result<TensorReport> {
        match self.known.take() {
            Some(report) => Ok(report),
            None => Ok(self.fresh()?.1.clone()),
        }
    }
}

impl Maker<'_> {
    /// Makes a tensor and measures it.
    fn make(&self, index: usize) -> Result<(Weight, TensorReport)> {
        let made = self.made;
        let rows = made.model.rows(&made.model.tensors[index])?;
        let guarded = Guarded {
            inner: &rows,
            observer: self.observer,
        };
        let weight = made.weight(index, usize::MAX, self.observer)?;
        let reference = made.reference(index, &guarded, self.observer)?;
        let report = measure(&made.plan.tensors[index], &reference, &weight)?;
        Ok((weight, report))
    }
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
