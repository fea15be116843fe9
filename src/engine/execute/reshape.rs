//! Models in between: what a stage that changes the structure makes, as files that are opened like any other model.
//!
//! Owns: filling an outline, keeping what was filled by what it was made of. Must not know: which techniques there are.
//! Invariant: a folder under its last name is whole; one that is made of the same is never made twice.

use super::course::Course;
use super::made::Made;
use super::{Site, calibrated, check_version, resume};
use crate::checkpoint::{Checkpoint, SourceFile, inspect};
use crate::dataset::Datasets;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::formats::container::Sink;
use crate::formats::{Request, in_between};
use crate::network::read_all;
use crate::observe::Level;
use crate::plan::{self, Origin, Outline, OutlinedTensor, Plan, Taken, TensorPlan, Which};
use crate::techniques::{self, Old, Reshapes, Work};
use crate::tensor::{DType, MemoryRows, Rows, encode_rows};
use crate::weight::{Dense, Weight};
use rayon::prelude::*;
use serde_json::json;
use std::path::PathBuf;

/// The models that stages before a plan's own made, the last one being what it begins with, and what was to be said on the
/// way.
pub(super) fn before(
    plan: &Plan,
    uploaded: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<(Vec<Checkpoint>, Vec<String>)> {
    let Some(earlier) = &plan.earlier else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (mut models, mut warnings) = before(earlier, uploaded, datasets, site, course)?;
    let scratch = site.scratch.join(format!("structure-{}", earlier.end()));
    let own = Site {
        scratch: &scratch,
        ..site.clone()
    };
    let model = models.last().unwrap_or(uploaded);
    let (made, more) = reshaped(earlier, model, datasets, &own, course)?;
    warnings.extend(more);
    models.push(made);
    Ok((models, warnings))
}

fn reshaped(
    plan: &Plan,
    model: &Checkpoint,
    datasets: &Datasets,
    site: &Site<'_>,
    course: &mut Course<'_>,
) -> Result<(Checkpoint, Vec<String>)> {
    let folder = folder(plan, site)?;
    if folder.is_dir() {
        course.pass(plan);
        let message = "the model of another structure is there already, from an earlier attempt or job";
        let data = json!({"stages": plan.end()});
        course.observer.event(Level::Info, message, data);
        return Ok((open(&folder)?, Vec::new()));
    }
    let untied = plan::untied(&plan.own_recipe(), model);
    let model = untied.as_ref().unwrap_or(model);
    check_version(plan, model)?;
    std::fs::create_dir_all(site.scratch).map_err(|e| Error::io("scratch space", &e))?;
    let made = Made::new(plan, model, site.scratch);
    let warnings = calibrated::run_all(&made, datasets, site, course)?;
    course.begin(super::course::RESHAPE);
    let part = folder.with_extension(format!(
        "part-{}",
        sha256(site.scratch.as_os_str().as_encoded_bytes())
    ));
    let _left_over = std::fs::remove_dir_all(&part);
    fill(&made, &part, course)?;
    match std::fs::rename(&part, &folder) {
        // Another job was faster with the same.
        Err(_) if folder.is_dir() => {
            let _twin = std::fs::remove_dir_all(&part);
        }
        renamed => renamed.map_err(|e| Error::io("the model in between", &e))?,
    }
    course.end();
    Ok((open(&folder)?, warnings))
}

/// Where it lies: with what other jobs can use too, by all that it is made of, or else with the job's own.
fn folder(plan: &Plan, site: &Site<'_>) -> Result<PathBuf> {
    let name = resume::fingerprint(plan, site)?;
    Ok(match site.statistics {
        Some(shared) => shared.join(format!("model-{name}")),
        None => site.scratch.join(format!("model-{name}")),
    })
}

fn open(folder: &std::path::Path) -> Result<Checkpoint> {
    inspect(&SourceFile::from_path(folder)?)
}

/// Writes every tensor of the outline.
fn fill(made: &Made<'_>, folder: &std::path::Path, course: &Course<'_>) -> Result<()> {
    let (stage, outline) = reshaping(made.plan)?;
    let found = match &outline.shared {
        Some(list) => Some(outline.found(&made.shelf.list(stage, list)?)),
        None => None,
    };
    let outline = found.as_ref().unwrap_or(outline);
    let outlined = outline.checkpoint(made.model);
    let tensors: Vec<TensorPlan> = outlined
        .tensors
        .iter()
        .map(|t| plan::untouched(&outlined, t))
        .collect();
    let options = json!({});
    let request = Request {
        squares: None,
        scales: None,
        ..plan::request(&options, "", &[], &tensors, &outlined)
    };
    let writer = in_between();
    let refused = |_refusals| Error::internal("a model in between that cannot be written");
    let mut sink = Sink::new(folder, writer.layout(&request).map_err(refused)?)?;
    let filler = Filler { made, stage, course };
    let (all, mut done) = (outlined.tensor_bytes().max(1), 0);
    for (index, tensor) in outline.tensors.iter().enumerate() {
        if course.observer.should_stop() {
            return Err(Error::cancelled());
        }
        let named = |e: Error| Error {
            message: format!("tensor {}: {}", tensor.name, e.message),
            ..e
        };
        let weight = filler.weight(tensor).map_err(named)?;
        sink.put(index, &writer.encode(&request, index, &weight)?)?;
        done += outlined.tensors[index].bytes;
        crate::calibrate::Pace::at(course, done as f64 / all as f64);
    }
    sink.finish().map(drop)
}

/// The stage that changes the structure, and what it makes.
fn reshaping(plan: &Plan) -> Result<(usize, &Outline)> {
    let stage = plan.stages.last().and_then(|stage| stage.outline.as_ref());
    let outline = stage.ok_or_else(|| Error::internal("a plan that changes no structure"))?;
    Ok((plan.stages.len() - 1, outline))
}

struct Filler<'a> {
    made: &'a Made<'a>,
    stage: usize,
    course: &'a Course<'a>,
}

impl Filler<'_> {
    fn weight(&self, tensor: &OutlinedTensor) -> Result<Weight> {
        let observer = self.course.observer;
        let (stage, technique) = (&self.made.plan.stages[self.stage], self.technique()?);
        let old = Old {
            tensor: &|name| {
                let index = self.made.index(name)?;
                read_all(self.made.weight(index, usize::MAX, observer)?.as_rows())
            },
            has: &|name| self.made.index(name).is_ok(),
            list: &|name| self.made.shelf.list(self.stage, name),
            seed: self.made.plan.recipe.seed,
            stop: &|| observer.should_stop(),
        };
        let Origin::Tensor { which, rows, cols } = &tensor.origin else {
            return dense(tensor, &technique.make(stage, tensor, &old)?);
        };
        let index = self.made.index(&self.name(which)?)?;
        let weight = self.made.weight(index, usize::MAX, observer)?;
        if (rows, cols) == (&Taken::All, &Taken::All)
            && !technique.finishes(stage)
            && let Weight::Dense(plain) = &weight
            && plain.dtype == tensor.dtype
        {
            return Ok(weight);
        }
        let taken_of = weight.as_rows();
        let (width, values) = (taken_of.cols(), read_all(taken_of)?);
        let rows = self.places(rows, taken_of.rows())?;
        let cols = self.places(cols, width)?;
        let mut values = taken(&values, width, &rows, &cols);
        technique.finish(stage, tensor, &mut values, &old);
        dense(tensor, &values)
    }

    fn technique(&self) -> Result<&'static dyn Reshapes> {
        let name = &self.made.plan.stages[self.stage].technique;
        match techniques::find(name).map(techniques::Technique::work) {
            Some(Work::Reshapes(work)) => Ok(work),
            _ => Err(Error::internal(format!("{name} changes no structure"))),
        }
    }

    fn name(&self, which: &Which) -> Result<String> {
        match which {
            Which::Named(name) => Ok(name.clone()),
            Which::Item { pattern, list, at } => {
                let items = self.made.shelf.list(self.stage, list)?;
                let item = items.get(*at).ok_or_else(|| short(list))?;
                Ok(pattern.replace("{}", &item.to_string()))
            }
        }
    }

    /// The rows or columns that are taken, in order.
    fn places(&self, taken: &Taken, of: usize) -> Result<Vec<usize>> {
        let Taken::Listed { list, each } = taken else {
            return Ok((0..of).collect());
        };
        let items = self.made.shelf.list(self.stage, list)?;
        let places = items.iter().flat_map(|item| {
            let first = *item as usize * each;
            first..first + each
        });
        let places: Vec<usize> = places.collect();
        if places.iter().any(|place| *place >= of) {
            return Err(short(list));
        }
        Ok(places)
    }
}

fn short(list: &str) -> Error {
    Error::internal(format!(
        "list {list} does not fit the tensors that are taken by it"
    ))
}

/// The values at these rows and columns.
fn taken(values: &[f32], width: usize, rows: &[usize], cols: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() * cols.len()];
    let new = out.par_chunks_mut(cols.len().max(1)).zip(rows);
    new.for_each(|(new, row)| {
        let old = &values[row * width..(row + 1) * width];
        new.iter_mut().zip(cols).for_each(|(new, col)| *new = old[*col]);
    });
    out
}

fn dense(tensor: &OutlinedTensor, values: &[f32]) -> Result<Weight> {
    let cols = tensor.shape.last().copied().unwrap_or(1).max(1);
    if values.len() != tensor.shape.iter().product::<usize>() {
        return Err(Error::internal(format!(
            "{} values where the outline has {:?}",
            values.len(),
            tensor.shape
        )));
    }
    let rows = MemoryRows { values, cols };
    let dtype = match tensor.dtype {
        dtype @ (DType::F16 | DType::BF16) => dtype,
        _ => DType::F32,
    };
    Ok(Weight::Dense(Dense {
        rows: rows.rows(),
        cols,
        dtype,
        bytes: encode_rows(&rows, dtype)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_taken_in_the_order_of_their_lists() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        assert_eq!(taken(&values, 4, &[2, 0], &[3, 1]), [11.0, 9.0, 3.0, 1.0]);
    }
}
