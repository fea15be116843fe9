//! ggml block types in llama.cpp's mixes.
//!
//! Owns: planning a mix, making the blocks. Must not know: GGUF, block layouts.
//! Invariant: what llama.cpp does not write without column importance is refused without it.

mod mix;
mod types;

use super::options::{self, Options, Planned};
use super::{Decision, Each, Schemes, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::ggml::quantize_rows;
use crate::models::Role;
use crate::plan::{Context, ImportancePlan, ImportanceSource, Statistic, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, GgmlType, Rows, chunk_rows, encode_rows};
use crate::weight::{Block, Dense, Kind, Weight};
use mix::{MIXES, Mix, plain, takes_blocks};
use rayon::prelude::*;
use serde_json::{Value, json};

/// The technique.
pub(super) struct Ggml;

impl Technique for Ggml {
    fn name(&self) -> &'static str {
        "ggml"
    }

    fn summary(&self) -> &'static str {
        "ggml block types (legacy, k-quants, IQ2 to IQ4) in the mixes llama.cpp names, with its search, \
         weighed by an importance matrix where there is one: mixes below three bits need it. ggml-org/llama.cpp."
    }

    fn page(&self) -> &'static str {
        include_str!("../pages/ggml.md")
    }

    fn schema(&self) -> Value {
        let names: Vec<_> = MIXES.iter().map(|m| m.0).collect();
        json!({"type": "object", "additionalProperties": false, "properties": {
            "type": {"type": "string", "enum": names, "default": "Q4_K_M",
                "description": "The mix: a base type and llama.cpp's rules for which tensors get more bits.", "examples": ["Q4_K_M"]},
            "pure": {"type": "boolean", "default": false,
                "description": "Give every matrix the base type, output head and embedding too.", "examples": [false]},
            "tensor_types": types::property(),
            "imatrix": {"type": "string", "default": "none", "examples": ["calibration"],
                "anyOf": [{"enum": ["none", "calibration", "fisher"]}, {"format": "dataset"}],
                "description": "How much each column matters: all alike (none); the mean square of its inputs while the model runs over the calibration data (calibration); the mean square of the loss' gradients by its weights there (fisher: embedding and head have it too); or a dataset that is llama.cpp's importance matrix."}}})
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
        let importance = importance(context, &options)?;
        let tied = !context.tensors.iter().any(|t| t.role == Role::Output);
        let mix = Mix {
            name: label,
            base: *base,
            facts: context.facts,
            tied,
            pure: options.flag("pure"),
            has_importance: importance.is_some(),
        };
        let given = types::given(context, &options)?;
        let mut kinds = Vec::new();
        for (index, tensor) in context.tensors.iter().enumerate() {
            if tensor.kind.is_compressed() || !tensor.source_dtype.is_float() || tensor.elements() == 0 {
                continue;
            }
            let ty = match given.get(&index) {
                Some(ty) if context.targeted[index] && takes_blocks(tensor) => *ty,
                _ if context.targeted[index] => mix.type_of(tensor),
                _ => plain(tensor),
            };
            let known = importance.as_ref().is_some_and(|i| i.knows(index));
            if context.targeted[index] && !known && mix.requires_importance(tensor, ty) {
                return Err(vec![needs_importance(context, &mix, tensor, ty)]);
            }
            kinds.push((index, kind_of(ty)));
        }
        Ok(Decision {
            kinds,
            label: Some((*label).to_owned()),
            needs: importance.map(Statistic::Importance),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Ggml)
    }

    /// Types whose blocks have no minimum and a code for zero.
    fn keeps_zeros(&self, kind: &Kind) -> bool {
        use GgmlType::{Q3_K, Q4_0, Q5_0, Q6_K, Q8_0, TQ1_0, TQ2_0};
        match kind {
            Kind::Block { ggml_type } => {
                matches!(ggml_type, Q3_K | Q4_0 | Q5_0 | Q6_K | Q8_0 | TQ1_0 | TQ2_0)
            }
            _ => true,
        }
    }

    fn schemes(&self) -> Option<&'static dyn Schemes> {
        Some(&types::Types)
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
                        let place = Place {
                            first: i * step,
                            rows,
                            cols,
                        };
                        quantize(ggml_type, place, task.importance, buffer, out);
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

/// The importance that the options ask for.
fn importance(context: &Context<'_>, options: &Options<'_>) -> Planned<Option<ImportancePlan>> {
    let source = match options.text("imatrix") {
        "none" => return Ok(None),
        "calibration" => ImportanceSource::Calibration,
        "fisher" => ImportanceSource::Fisher,
        name => ImportanceSource::Dataset(name.to_owned()),
    };
    let pointer = options::pointer(context, "imatrix");
    context.importance(source, &pointer).map(Some)
}

fn needs_importance(context: &Context<'_>, mix: &Mix, tensor: &TensorPlan, ty: GgmlType) -> Refusal {
    let fix = if mix.has_importance {
        "the importance matrix says nothing of it: add it to ignore"
    } else {
        "set the option imatrix to \"calibration\", or to a dataset that is an importance matrix"
    };
    Refusal::new(
        options::pointer(context, "imatrix"),
        "needs_importance",
        format!(
            "{} makes {} {ty}, which llama.cpp writes only with the importance of its columns, since the result is no \
             use without; {fix}",
            mix.name, tensor.name
        ),
    )
}

/// Where rows lie in their tensor.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    /// Of the tensor.
    rows: usize,
    cols: usize,
}

/// Makes blocks of some rows of a tensor. Where it holds several matrices (experts), each has importance of its own.
fn quantize(ty: GgmlType, place: Place, importance: Option<&[f32]>, values: &[f32], out: &mut [u8]) {
    let Place { first, rows, cols } = place;
    let Some(importance) = importance.filter(|all| all.len() >= cols && cols > 0) else {
        return quantize_rows(ty, values, cols, None, out);
    };
    let height = rows / (importance.len() / cols).max(1);
    let row_bytes = out.len() * cols / values.len().max(1);
    let count = values.len() / cols;
    let mut done = 0;
    while done < count {
        let matrix = (first + done) / height.max(1);
        let end = count.min((matrix + 1) * height - first).max(done + 1);
        let columns = importance.get(matrix * cols..(matrix + 1) * cols);
        let (values, out) = (
            &values[done * cols..end * cols],
            &mut out[done * row_bytes..end * row_bytes],
        );
        quantize_rows(ty, values, cols, columns, out);
        done = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three experts of five rows, in chunks that begin and end anywhere.
    #[test]
    fn each_expert_is_weighed_by_its_own_columns() {
        let (rows, cols, ty) = (15, 64, GgmlType::Q4_0);
        let values: Vec<f32> = (0..rows * cols)
            .map(|i| ((i * 29) % 97) as f32 * 0.02 - 1.0)
            .collect();
        let importance: Vec<f32> = (0..3 * cols).map(|i| ((i * 13) % 17) as f32 + 0.1).collect();
        let row = ty.row_bytes(cols).unwrap();
        let mut alone = vec![0; rows * row];
        for (e, columns) in importance.chunks(cols).enumerate() {
            let (values, out) = (
                &values[e * 5 * cols..][..5 * cols],
                &mut alone[e * 5 * row..][..5 * row],
            );
            quantize_rows(ty, values, cols, Some(columns), out);
        }
        for step in [1, 4, 7, 15] {
            let mut blocks = vec![0; rows * row];
            for (i, out) in blocks.chunks_mut(step * row).enumerate() {
                let values = &values[i * step * cols..][..out.len() / row * cols];
                let first = i * step;
                quantize(ty, Place { first, rows, cols }, Some(&importance), values, out);
            }
            assert!(blocks == alone, "{step}");
        }
        let mut plain = vec![0; rows * row];
        quantize_rows(ty, &values, cols, None, &mut plain);
        assert!(plain != alone);
    }
}
