//! 4-bit `NormalFloat`.
//!
//! Owns: its options. Must not know: bitsandbytes. Invariant: blocks run over the flattened tensor.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::nf4;
use crate::plan::Context;
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct NormalFloat4;

impl Technique for NormalFloat4 {
    fn name(&self) -> &'static str {
        "nf4"
    }

    fn summary(&self) -> &'static str {
        "4-bit NormalFloat: sixteen quantiles of a normal distribution times the block's absmax. Needs no data. \
         Dettmers et al. 2023 (QLoRA)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/nf4.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "block_size": {"type": "integer", "enum": [64, 128, 256, 512, 1024, 2048, 4096], "default": 64,
                "description": "Consecutive weights that share an absmax.", "examples": [64]},
            "double_quant": {"type": "boolean", "default": false, "examples": [true],
                "description": "Quantize the absmax values to 8 bits too: 0.37 bits per weight less at block size 64."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let block_size = options.number("block_size");
        let kinds = options::matrices(context)?.into_iter().map(|(index, tensor)| {
            (
                index,
                Kind::Nf4 {
                    block_size,
                    value_dtype: options::scale_dtype("auto", tensor),
                    double_quant: options.flag("double_quant"),
                },
            )
        });
        Ok(Decision {
            kinds: kinds.collect(),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&NormalFloat4)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Each for NormalFloat4 {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let Kind::Nf4 {
            block_size,
            value_dtype,
            double_quant,
        } = task.kind
        else {
            return Err(Error::internal(format!(
                "nf4 was planned as {}",
                task.kind.label()
            )));
        };
        let weight = nf4::quantize(input, block_size, value_dtype)?;
        Ok(Weight::Nf4(if double_quant { nf4::nest(weight) } else { weight }))
    }
}
