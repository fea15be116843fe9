//! Truncated singular value decomposition: a matrix as a product of two narrow ones.
//!
//! Owns: its options. Must not know: how it is decomposed.
//! Invariant: no product of that rank is nearer to the matrix.

use super::factoring::{self, Ratios};
use super::options::{self, Options, Planned};
use super::{Decision, Each, Look, Schemes, Settles, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::factor::{Truncation, svd};
use crate::network::read_all;
use crate::plan::{Context, TensorPlan};
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

    fn keeps_zeros(&self, kind: &Kind) -> bool {
        !kind.is_compressed()
    }

    fn settles(&self) -> Option<&'static dyn Settles> {
        Some(&Svd)
    }

    fn schemes(&self) -> Option<&'static dyn Schemes> {
        Some(&Ratios)
    }
}

impl Settles for Svd {
    fn looks(&self) -> Look {
        Look::Each(losses)
    }

    fn settle(&self, options: &Value, seen: &[(&TensorPlan, Vec<f64>)]) -> Result<Value> {
        factoring::settle(options, &Options::of(options, self.schema()), seen)
    }
}

/// What every rank would lose.
fn losses(task: &Task<'_>, input: &dyn Rows) -> Result<Vec<f64>> {
    let (rows, cols) = (input.rows(), input.cols());
    if !factoring::is_open(task.kind, rows, cols) {
        return Ok(Vec::new());
    }
    let options = svd::Options {
        seed: task.seed,
        ..svd::Options::default()
    };
    Ok(svd::decompose(&read_all(input)?, rows, cols, &options, task.stop)?.losses())
}

impl Each for Svd {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let (rank, dtype) = match task.kind {
            Kind::LowRank { rank, dtype } => (rank, dtype),
            Kind::Dense { dtype } => return factoring::whole(input, dtype),
            other => return Err(Error::internal(format!("svd was planned as {}", other.label()))),
        };
        let values = read_all(input)?;
        let options = svd::Options {
            seed: task.seed,
            ..svd::Options::default()
        };
        let (rows, cols) = (input.rows(), input.cols());
        let factors = svd::factorize(&values, rows, cols, Truncation::Rank(rank), &options, task.stop)?;
        Ok(Weight::LowRank(factoring::weight(factors, rank, dtype)))
    }
}
