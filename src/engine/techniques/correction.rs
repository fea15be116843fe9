//! What the techniques share that quantize weights and add a product for what that lost.
//!
//! Owns: their options, kinds, the weight that they make. Must not know: what data says of inputs.
//! Invariant: the base is NF4 as `nf4` makes it; the product has the planned rank.

use super::Decision;
use super::factoring::{self, TENSOR_RANK};
use super::options::{self, Options, Planned};
use crate::error::{Error, Result};
use crate::kernels::factor::residual::alternate;
use crate::kernels::factor::whitened::Whitening;
use crate::kernels::factor::{Stop, Truncation, svd};
use crate::kernels::nf4;
use crate::network::read_all;
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::MemoryRows;
use crate::weight::{Corrected, Kind, Nf4, Weight};
use serde_json::{Value, json};

/// A schema of these options, with so many rounds unless the user says otherwise, and the technique's own.
pub(super) fn schema(rounds: usize, own: &Value) -> Value {
    let mut properties = json!({
        "rank": {"type": "integer", "minimum": 1, "maximum": 65_536, "default": 32, "examples": [32],
            "description": "Rank of the product beside every matrix."},
        "tensor_rank": factoring::tensor_rank(),
        "iterations": {"type": "integer", "minimum": 1, "maximum": 100, "default": rounds, "examples": [rounds],
            "description": "Rounds: each quantizes what the product of the one before leaves, and factors what that loses. The best round is kept."},
        "block_size": {"type": "integer", "enum": [64, 128, 256, 512, 1024, 2048, 4096], "default": 64, "examples": [64],
            "description": "Consecutive weights that share an absmax."},
        "double_quant": {"type": "boolean", "default": false, "examples": [true],
            "description": "Quantize the absmax values to 8 bits too: 0.37 bits per weight less at block size 64."}});
    for (name, property) in own.as_object().into_iter().flatten() {
        properties[name] = property.clone();
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// What becomes of these tensors, by options that were checked.
pub(super) fn decide(
    context: &Context<'_>,
    options: &Options<'_>,
    tensors: &[(usize, &TensorPlan)],
) -> Planned<Decision> {
    let own = factoring::own_ranks(context, options)?;
    let mut decision = Decision::default();
    for (index, tensor) in tensors {
        let (rank, option) = match own.get(index) {
            Some(rank) => (*rank, TENSOR_RANK),
            None => (options.number("rank"), "rank"),
        };
        let most = tensor.rows().min(tensor.cols());
        if rank > most {
            let detail = format!(
                "rank {rank} is more than {} has: its shape is {} × {}, so that the rank is at most {most}",
                tensor.name,
                tensor.rows(),
                tensor.cols()
            );
            let pointer = options::pointer(context, option);
            return Err(vec![Refusal::new(pointer, "rank_too_large", detail)]);
        }
        let own = options::scale_dtype("auto", tensor);
        let kind = Kind::Corrected {
            rank,
            dtype: own,
            block_size: options.number("block_size"),
            value_dtype: own,
            double_quant: options.flag("double_quant"),
        };
        decision.kinds.push((*index, kind));
    }
    Ok(decision)
}

/// A matrix that is to be quantized and corrected.
pub(super) struct Matrix<'a> {
    /// `[rows, cols]`.
    pub values: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub kind: Kind,
    pub rounds: usize,
    /// How errors in its columns count.
    pub whitening: &'a Whitening,
    pub seed: u64,
    pub stop: Stop<'a>,
}

impl Matrix<'_> {
    /// The planned weight.
    pub(super) fn corrected(&self) -> Result<Weight> {
        let (Some(Kind::LowRank { rank, dtype }), base) = (self.kind.product(), self.kind.base()) else {
            let planned = self.kind.label();
            return Err(Error::internal(format!("a correction was planned as {planned}")));
        };
        let quantize = |values: &[f32]| {
            let quantized = quantized(values, self.cols, base)?;
            let read = read_all(&quantized)?;
            Ok((quantized, read))
        };
        let options = svd::Options {
            seed: self.seed,
            ..svd::Options::default()
        };
        let found = alternate(
            self.values,
            self.rows,
            self.whitening,
            Truncation::Rank(rank),
            self.rounds,
            &quantize,
            &options,
            self.stop,
        )?;
        Ok(Weight::Corrected(Corrected {
            base: found.quantized,
            product: factoring::weight(found.factors, rank, dtype),
        }))
    }
}

fn quantized(values: &[f32], cols: usize, base: Kind) -> Result<Nf4> {
    let Kind::Nf4 {
        block_size,
        value_dtype,
        double_quant,
    } = base
    else {
        let planned = base.label();
        return Err(Error::internal(format!("a base was planned as {planned}")));
    };
    let plain = nf4::quantize(&MemoryRows { values, cols }, block_size, value_dtype)?;
    Ok(if double_quant { nf4::nest(plain) } else { plain })
}
