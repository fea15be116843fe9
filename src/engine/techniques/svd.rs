//! Truncated singular value decomposition: a matrix as a product of two narrow ones.
//!
//! Owns: its options. Must not know: how it is decomposed.
//! Invariant: no product of that rank is nearer to the matrix.

use super::factoring;
use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::factor::{Truncation, svd};
use crate::network::read_all;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Svd;

impl Technique for Svd {
    fn name(&self) -> &'static str {
        "svd"
    }

    fn summary(&self) -> &'static str {
        "Truncated singular value decomposition: each matrix as a product of two narrow ones, the nearest there is. Needs no \
         data; whitened_svd loses less. Eckart and Young 1936; Denton et al. 2014."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/svd.md")
    }

    fn schema(&self) -> Value {
        factoring::schema(&json!({}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        factoring::decide(context, &options, &tensors)
    }

    fn work(&self) -> Work {
        Work::Each(&Svd)
    }
}

impl Each for Svd {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let Kind::LowRank { rank, dtype } = task.kind else {
            return Err(Error::internal(format!(
                "svd was planned as {}",
                task.kind.label()
            )));
        };
        let values = read_all(input)?;
        let options = svd::Options {
            seed: task.seed,
            ..svd::Options::default()
        };
        let (rows, cols) = (input.rows(), input.cols());
        let factors = svd::factorize(&values, rows, cols, Truncation::Rank(rank), &options, task.stop)?;
        Ok(factoring::weight(factoring::filled(factors, rank), dtype))
    }
}
