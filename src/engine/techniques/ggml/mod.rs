//! ggml block types in llama.cpp's mixes.
//!
//! Owns: planning a mix, making the blocks. Must not know: GGUF, block layouts.
//! Invariant: what llama.cpp does not write without column importance is refused without it.

mod mix;

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::ggml::quantize_rows;
use crate::models::Role;
use crate::plan::Context;
use crate::recipe::Refusal;
use crate::tensor::{DType, GgmlType, Rows, chunk_rows, encode_rows};
use crate::weight::{Block, Dense, Kind, Weight};
use mix::{MIXES, Mix, plain};
use rayon::prelude::*;
use serde_json::{Value, json};

/// The technique.
pub(super) struct Ggml;

impl Technique for Ggml {
    fn name(&self) -> &'static str {
        "ggml"
    }

    fn summary(&self) -> &'static str {
        "ggml block types (legacy, k-quants, IQ2 to IQ4) in the mixes llama.cpp names, with its search. Needs no data, \
         but for mixes below three bits. ggml-org/llama.cpp."
    }

    fn schema(&self) -> Value {
        let names: Vec<_> = MIXES.iter().map(|m| m.0).collect();
        json!({"type": "object", "additionalProperties": false, "properties": {
            "type": {"type": "string", "enum": names, "default": "Q4_K_M",
                "description": "The mix: a base type and llama.cpp's rules for which tensors get more bits.", "examples": ["Q4_K_M"]},
            "pure": {"type": "boolean", "default": false,
                "description": "Give every matrix the base type, output head and embedding too.", "examples": [false]}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let name = options.text("type");
        let Some((label, base)) = MIXES.iter().find(|m| m.0 == name) else {
            return Err(vec![Refusal::new(
                options::pointer(context, "type"),
                "invalid_option",
                format!("no mix {name}"),
            )]);
        };
        let tied = !context.tensors.iter().any(|t| t.role == Role::Output);
        let mix = Mix {
            name: label,
            base: *base,
            facts: context.facts,
            tied,
            pure: options.flag("pure"),
            has_importance: false,
        };
        let mut kinds = Vec::new();
        for (index, tensor) in context.tensors.iter().enumerate() {
            if tensor.kind.is_compressed() || !tensor.source_dtype.is_float() || tensor.elements() == 0 {
                continue;
            }
            let ty = if context.targeted[index] {
                mix.type_of(tensor)
            } else {
                plain(tensor)
            };
            if context.targeted[index] && !mix.has_importance && mix.requires_importance(tensor, ty) {
                return Err(vec![Refusal::new(
                    options::pointer(context, "type"),
                    "needs_importance",
                    format!(
                        "{label} makes {} {ty}, which llama.cpp writes only with an importance matrix: without one the \
                         result is no use",
                        tensor.name
                    ),
                )]);
            }
            kinds.push((index, kind_of(ty)));
        }
        Ok(Decision {
            kinds,
            label: Some((*label).to_owned()),
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Ggml)
    }
}

impl Each for Ggml {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let (rows, cols) = (input.rows(), input.cols());
        match task.kind {
            Kind::Dense { dtype } => Ok(Weight::Dense(Dense {
                rows,
                cols,
                dtype,
                bytes: encode_rows(input, dtype)?,
            })),
            Kind::Block { ggml_type } => {
                let row = ggml_type
                    .row_bytes(cols)
                    .ok_or_else(|| Error::internal("row of broken blocks"))?;
                let mut blocks = vec![0; rows * row];
                let step = chunk_rows(cols);
                blocks.par_chunks_mut(step * row).enumerate().try_for_each_init(
                    Vec::new,
                    |buffer: &mut Vec<f32>, (i, out)| {
                        buffer.resize(out.len() / row * cols, 0.0);
                        input.read(i * step, buffer)?;
                        crate::kernels::check_finite(buffer, i * step * cols)?;
                        quantize_rows(ggml_type, buffer, cols, None, out);
                        Ok::<_, Error>(())
                    },
                )?;
                Ok(Weight::Block(Block {
                    rows,
                    cols,
                    ggml_type,
                    blocks,
                }))
            }
            other => Err(Error::internal(format!("ggml was planned as {}", other.label()))),
        }
    }
}

fn kind_of(ty: GgmlType) -> Kind {
    match DType::from_ggml(ty) {
        DType::Ggml(ggml_type) => Kind::Block { ggml_type },
        dtype => Kind::Dense { dtype },
    }
}
