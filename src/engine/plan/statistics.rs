//! What a stage must know of its layers' inputs before it begins.
//!
//! Owns: [`Statistic`], which tensors it is known of, whether an imported importance matrix fits. Must not know: how it
//! is collected, techniques by name.
//! Invariant: a tensor that is listed has a number for each column of each of its matrices.

use super::{Context, DataPlan, StagePlan, TensorPlan, data, run};
use crate::checkpoint::Checkpoint;
use crate::dataset::{BUILTIN, Dataset};
use crate::error::{Error, Result};
use crate::formats::gguf::imatrix::gguf_names;
use crate::network::HeadKind;
use crate::recipe::Refusal;
use crate::weight::InputSquares;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What a technique that works on one tensor at a time may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// How much each column counts: the mean square of its inputs or of the loss' gradients.
    Importance(ImportancePlan),
}

/// Where importance comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSource {
    /// The model runs over the plan's calibration data.
    Calibration,
    /// A dataset that is an importance matrix.
    Dataset(String),
    /// The model runs over the plan's calibration data and back: squares of gradients instead of inputs.
    Fisher,
    /// The same, for each weight by itself.
    Diagonal,
    /// That of the loss on the data's own tokens: the empirical Fisher information.
    Gradients,
}

impl ImportanceSource {
    /// True where the model runs back too.
    pub fn descends(&self) -> bool {
        matches!(self, Self::Fisher | Self::Diagonal | Self::Gradients)
    }

    /// True where each weight is known by itself.
    pub fn knows_each(&self) -> bool {
        matches!(self, Self::Diagonal | Self::Gradients)
    }
}

/// The importance of columns, as far as it is known before it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportancePlan {
    /// Where it comes from.
    pub source: ImportanceSource,
    /// Names of the texts it is computed on.
    pub texts: Vec<String>,
    /// Pieces of them.
    pub chunks: u32,
    /// Tokens of the longest piece; 0 where that is not known.
    pub chunk_size: u32,
    /// Index of each tensor that it is known of, ascending.
    pub tensors: Vec<usize>,
}

impl ImportancePlan {
    /// True where it is known of a tensor.
    pub fn knows(&self, tensor: usize) -> bool {
        self.tensors.binary_search(&tensor).is_ok()
    }
}

impl StagePlan {
    /// The importance it works with, if any.
    pub fn importance(&self) -> Option<&ImportancePlan> {
        let Statistic::Importance(importance) = self.needs.as_ref()?;
        Some(importance)
    }

    /// True where the model must run over data before this stage.
    pub fn collects(&self) -> bool {
        self.importance()
            .is_some_and(|i| !matches!(i.source, ImportanceSource::Dataset(_)))
    }

    /// True where it must go back through it too.
    pub fn descends(&self) -> bool {
        self.importance().is_some_and(|i| i.source.descends())
    }

    /// True where it must know that of each weight by itself.
    pub fn knows_each(&self) -> bool {
        self.importance().is_some_and(|i| i.source.knows_each())
    }

    /// Fills in what is known once the calibration data is planned.
    pub(super) fn calibrated_with(&mut self, data: &DataPlan) {
        let collects = self.collects();
        if let Some(Statistic::Importance(importance)) = &mut self.needs
            && collects
        {
            importance.texts = vec![data.dataset.clone()];
            importance.chunks = data.sequences as u32;
            importance.chunk_size = data.longest as u32;
        }
    }
}

impl TensorPlan {
    /// Matrices that lie in it one after another, each with inputs of its own: experts.
    pub fn matrices(&self) -> usize {
        let outer = self.shape.len().saturating_sub(2);
        self.shape[..outer].iter().product()
    }
}

impl Context<'_> {
    /// The importance of columns from a source that an option names, or a refusal at that option's `pointer`.
    pub fn importance(
        &self,
        source: ImportanceSource,
        pointer: &str,
    ) -> std::result::Result<ImportancePlan, Vec<Refusal>> {
        let refused = |e: Error| vec![Refusal::new(pointer, e.code, e.message)];
        match &source {
            ImportanceSource::Dataset(name) => {
                let dataset = self.datasets.get(name);
                let dataset = dataset.ok_or_else(|| refused(unknown(name)))?;
                let (plan, _) = imported(self.model, self.tensors, name, dataset).map_err(refused)?;
                let mut known = plan.tensors.iter().map(|index| &self.tensors[*index]);
                match known.find(|tensor| tensor.reads_turned_inputs()) {
                    Some(tensor) => Err(refused(of_other_inputs(name, tensor))),
                    None => Ok(plan),
                }
            }
            ImportanceSource::Calibration
            | ImportanceSource::Fisher
            | ImportanceSource::Diagonal
            | ImportanceSource::Gradients => computed(self.model, self.tensors, source, pointer),
        }
    }
}

/// Importance that is computed by running the model.
pub(super) fn computed(
    model: &Checkpoint,
    tensors: &[TensorPlan],
    source: ImportanceSource,
    pointer: &str,
) -> std::result::Result<ImportancePlan, Vec<Refusal>> {
    let network = data::network(model, pointer)?;
    if source == ImportanceSource::Gradients && network.head_kind() != HeadKind::NextToken {
        let detail =
            "the model predicts no tokens, so that data has no labels for it: let labels be drawn".to_owned();
        return Err(vec![Refusal::new(pointer, "no_labels", detail)]);
    }
    let (mut readers, transposed) = run::readers(network.as_ref(), &run::cuts(network.as_ref()));
    if source.knows_each() {
        // What is known of columns alone would be of outputs there.
        readers.extend(transposed);
    }
    if source.descends() {
        readers.extend(network.embed_tensors());
        readers.extend(network.head_tensors());
    }
    let known = tensors.iter().enumerate();
    let known = known.filter(|(_, t)| readers.contains(&t.name) && t.shape.len() == 2);
    Ok(ImportancePlan {
        tensors: known.map(|(index, _)| index).collect(),
        texts: Vec::new(),
        chunks: 0,
        chunk_size: 0,
        source,
    })
}

fn unknown(name: &str) -> Error {
    Error::bad_input("unknown_dataset", format!("no dataset is called {name:?}"))
}

fn of_other_inputs(name: &str, tensor: &TensorPlan) -> Error {
    let detail = format!(
        "{} reads turned inputs after an earlier stage, and the importance matrix {name} was computed on those of the \
         model as it is stored: \"calibration\" computes it on the turned ones",
        tensor.module()
    );
    Error::bad_input("imatrix_of_other_inputs", detail)
}

/// An importance matrix, and its numbers by tensor: every entry must be of a tensor of the model, with a number for
/// each column of each matrix.
pub(crate) fn imported(
    model: &Checkpoint,
    tensors: &[TensorPlan],
    name: &str,
    dataset: &Dataset,
) -> Result<(ImportancePlan, Vec<(usize, InputSquares)>)> {
    if name == BUILTIN {
        return Err(Error::bad_input(
            "not_an_imatrix",
            "builtin is a text: \"calibration\" computes importance on the calibration data",
        ));
    }
    let file = dataset.importance()?;
    let names = gguf_names(model, tensors.iter().map(|t| t.name.as_str()))?;
    let by_name: HashMap<&str, usize> = names
        .iter()
        .enumerate()
        .filter_map(|(index, name)| Some((name.as_deref()?, index)))
        .collect();
    let mut squares = Vec::with_capacity(file.entries.len());
    for entry in file.entries {
        let does_not_fit = |why: String| {
            let detail = format!(
                "the importance matrix {name} is not of this model: it has {} numbers for {}, {why}",
                entry.in_sum2.len(),
                entry.name
            );
            Error::bad_input("imatrix_does_not_fit", detail)
        };
        let index = by_name.get(entry.name.as_str()).copied();
        let index = index.ok_or_else(|| does_not_fit("and the model has no such tensor".to_owned()))?;
        let tensor = &tensors[index];
        let expected = tensor.cols() * tensor.matrices();
        let (sums, counts) = (entry.in_sum2.len(), entry.counts.len());
        if sums != expected || counts != 1 && counts != tensor.matrices() {
            return Err(does_not_fit(format!(
                "{counts} counts; the tensor has {expected} columns in {} matrices",
                tensor.matrices()
            )));
        }
        squares.push((index, entry.squares()));
    }
    squares.sort_by_key(|(index, _)| *index);
    let plan = ImportancePlan {
        source: ImportanceSource::Dataset(name.to_owned()),
        texts: file.datasets,
        chunks: file.chunk_count,
        chunk_size: file.chunk_size,
        tensors: squares.iter().map(|(index, _)| *index).collect(),
    };
    Ok((plan, squares))
}
