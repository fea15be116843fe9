//! Weight sharing: the weights of a matrix become the centroids of their clusters.
//!
//! Owns: its options. Must not know: how clusters are found, how codes are packed.
//! Invariant: zeros that an earlier stage made stay zeros.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::check_finite;
use crate::kernels::kmeans::{self, Codes, Distinct, Spec, product};
use crate::network::read_all;
use crate::plan::{Context, ImportanceSource, Statistic, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, Rows};
use crate::weight::{Codebook, Granularity, Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct KMeans;

impl Technique for KMeans {
    fn name(&self) -> &'static str {
        "kmeans"
    }

    fn summary(&self) -> &'static str {
        "Weight sharing: weights become the centroids of their clusters, exactly optimal by dynamic programming for single \
         weights, or runs of weights the centroids of a vector quantizer; codes are then entropy coded. Han et al. 2016 \
         (Deep Compression); Choi et al. 2017 (weighed by the Hessian); Gong et al. 2014 (vectors)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/kmeans.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "n_centroids": {"type": "integer", "minimum": 2, "maximum": 4096, "default": 16, "examples": [16],
                "description": "Centroids of a codebook: 16 are 4 bits a code before they are entropy coded."},
            "vector_size": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1, "examples": [4],
                "description": "Consecutive inputs that one code stands for; more than 1 makes granularity tensor."},
            "granularity": {"type": "string", "enum": ["tensor", "channel", "group"], "default": "channel", "examples": ["channel"],
                "description": "Which weights share a codebook; vectors share one a tensor."},
            "group_size": {"type": "integer", "minimum": 2, "maximum": 1_048_576, "default": 128, "examples": [576],
                "description": "Consecutive inputs that share a codebook (granularity group); must divide in_features."},
            "weighting": {"type": "string", "enum": ["none", "hessian"], "default": "none", "examples": ["hessian"],
                "description": "What an error counts: alike everywhere, or by the mean square of the input that the weight multiplies, on calibration data."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let width = options.number("vector_size");
        let is_given = context.spec.options.get("granularity").is_some();
        let granularity = if width > 1 && !is_given {
            Granularity::Tensor
        } else {
            options.granularity()
        };
        options::check_groups(context, granularity, &tensors)?;
        check_width(context, width, granularity, &tensors)?;
        let mut decision = Decision::default();
        if options.text("weighting") == "hessian" {
            let at = options::pointer(context, "weighting");
            let known = context.importance(ImportanceSource::Calibration, &at)?;
            decision.needs = Some(Statistic::Importance(known));
        }
        let kind = |tensor: &TensorPlan| Kind::Codebook {
            centroids: options.number("n_centroids"),
            vector_size: width,
            granularity,
            dtype: match tensor.source_dtype {
                dtype @ (DType::F16 | DType::BF16) => dtype,
                _ => DType::F32,
            },
        };
        decision.kinds = tensors
            .iter()
            .map(|(index, tensor)| (*index, kind(tensor)))
            .collect();
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Each(&KMeans)
    }

    /// A centroid is kept for zero where single weights are clustered.
    fn keeps_zeros(&self, kind: &Kind) -> bool {
        matches!(kind, Kind::Codebook { vector_size: 1, .. })
    }
}

fn check_width(
    context: &Context<'_>,
    width: usize,
    granularity: Granularity,
    tensors: &[(usize, &TensorPlan)],
) -> Planned<()> {
    let refuse = |option: &str, code: &'static str, detail: String| {
        Err(vec![Refusal::new(
            options::pointer(context, option),
            code,
            detail,
        )])
    };
    if width > 1 && granularity != Granularity::Tensor {
        let detail =
            "vectors share one codebook a tensor: use granularity tensor, or vector_size 1".to_owned();
        return refuse("granularity", "conflicting_options", detail);
    }
    match tensors
        .iter()
        .find(|(_, t)| !t.cols().is_multiple_of(width.max(1)))
    {
        None => Ok(()),
        Some((_, tensor)) => {
            let detail = format!(
                "vector_size {width} does not divide the {} columns of {}",
                tensor.cols(),
                tensor.name
            );
            refuse("vector_size", "vector_size_does_not_divide", detail)
        }
    }
}

impl Each for KMeans {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let Kind::Codebook {
            centroids,
            vector_size,
            granularity,
            dtype,
        } = task.kind
        else {
            return Err(Error::internal(format!(
                "kmeans was planned as {}",
                task.kind.label()
            )));
        };
        let values = read_all(input)?;
        check_finite(&values, 0)?;
        let spec = Spec {
            centroids,
            seed: task.seed,
            keep_zero: task.sparsity.is_some(),
            dtype,
        };
        let cols = input.cols();
        let (table, codes) = match granularity {
            _ if vector_size > 1 => vectors(task, &values, cols, vector_size, &spec)?,
            Granularity::Tensor => {
                let distinct = Distinct::of(&values, task.importance)?;
                let table = kmeans::fit(&distinct, &spec)?.centroids;
                let codes = kmeans::assign(&values, &table)?;
                (table, codes)
            }
            Granularity::Channel | Granularity::Group(_) => {
                let (_, size) = granularity.groups(cols);
                let groups = kmeans::fit_groups(&values, cols, size, task.importance, &spec, task.stop)?;
                (groups.centroids, groups.codes)
            }
        };
        let tables = match granularity {
            Granularity::Tensor => 1,
            _ => granularity.scales(input.rows(), cols),
        };
        Ok(Weight::Codebook(Codebook {
            rows: input.rows(),
            cols,
            width: vector_size,
            centroids,
            granularity,
            dtype,
            codes: wide(codes),
            table: filled(&table, tables, centroids, vector_size),
        }))
    }
}

fn vectors(
    task: &Task<'_>,
    values: &[f32],
    cols: usize,
    width: usize,
    spec: &Spec,
) -> Result<(Vec<f32>, Codes)> {
    let spec = product::Spec {
        width,
        centroids: spec.centroids,
        seed: spec.seed,
        dtype: spec.dtype,
    };
    let book = product::fit(values, cols, task.importance, &spec, task.stop)?;
    let assigned = product::assign(values, cols, task.importance, &book)?;
    Ok((book.centroids, assigned.codes))
}

fn wide(codes: Codes) -> Vec<u16> {
    match codes {
        Codes::Narrow(codes) => codes.into_iter().map(u16::from).collect(),
        Codes::Wide(codes) => codes,
    }
}

/// Tables of their planned size: where fewer centroids are needed, the last one stands again.
fn filled(table: &[f32], tables: usize, centroids: usize, width: usize) -> Vec<f32> {
    let each = table.len() / tables.max(1);
    let fill = |own: &[f32]| {
        let last = own.len().saturating_sub(width);
        let mut own = own.to_vec();
        while own.len() < centroids * width {
            own.extend_from_within(last..last + width);
        }
        own
    };
    table.chunks(each.max(1)).flat_map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tables_repeat_their_last_centroid() {
        assert_eq!(filled(&[1.0, 2.0], 1, 4, 1), [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(filled(&[1.0, 2.0, 3.0, 4.0], 2, 2, 1), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(filled(&[1.0, 2.0], 1, 2, 2), [1.0, 2.0, 1.0, 2.0]);
    }
}
