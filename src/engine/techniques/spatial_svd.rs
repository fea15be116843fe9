//! Spatial SVD: a kernel down, then one across.
//!
//! Owns: its options. Must not know: how the layers are found.
//! Invariant: no pair of such layers with as many channels between them is nearer to the kernel.

use super::convolving::{self, Method};
use super::options::Planned;
use super::{Decision, Each, Task, Technique, Work};
use crate::error::Result;
use crate::kernels::factor::{Truncation, rank_for_ratio, spatial, svd};
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Form, Weight};
use serde_json::Value;

/// The technique.
pub(super) struct SpatialSvd;

const METHOD: Method = Method {
    ranks: &[("rank", "Channels between the two layers", 32)],
    pointwise: true,
    by_ratio: |shape, ratio| {
        let (rows, cols) = sides(shape);
        Form::Spatial {
            rank: rank_for_ratio(rows, cols, ratio),
        }
    },
    by_ranks: |shape, ranks| {
        let (rows, cols) = sides(shape);
        Form::Spatial {
            rank: ranks.first().copied().unwrap_or(1).min(rows.min(cols)),
        }
    },
};

/// Those of the matrix that is decomposed.
fn sides([outputs, inputs, height, width]: [usize; 4]) -> (usize, usize) {
    (inputs * height, outputs * width)
}

impl Technique for SpatialSvd {
    fn name(&self) -> &'static str {
        "spatial_svd"
    }

    fn summary(&self) -> &'static str {
        "Singular value decomposition of a kernel over (inputs, rows) and (outputs, columns): a convolution down, then one \
         across, the nearest there is. Jaderberg et al. 2014; Tai et al. 2016."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/spatial_svd.md")
    }

    fn schema(&self) -> Value {
        METHOD.schema()
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        METHOD.decide(context)
    }

    fn work(&self) -> Work {
        Work::Each(&SpatialSvd)
    }

    fn layers(&self) -> &'static str {
        "Conv2d"
    }
}

impl Each for SpatialSvd {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let options = svd::Options {
            seed: task.seed,
            ..svd::Options::default()
        };
        convolving::run(task, input, &|kernel, form| match form {
            Form::Spatial { rank } => spatial::factorize(kernel, Truncation::Rank(rank), &options, task.stop),
            _ => Err(convolving::wrong(task)),
        })
    }
}
