//! ggml block types and llama.cpp's mixes of them.
//!
//! Owns: which tensor gets which type. Must not know: GGUF, block layouts.
//! Invariant: given the same model and mix, every tensor gets the type llama.cpp's quantizer gives it.

use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::ggml::quantize_rows;
use crate::models::{Facts, Role};
use crate::plan::{Context, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, GgmlType, Rows, chunk_rows, encode_rows};
use crate::weight::{Block, Dense, Kind, Weight};
use rayon::prelude::*;
use serde_json::{Value, json};

/// The technique.
pub(super) struct Ggml;

/// Mix, its base type.
const MIXES: &[(&str, GgmlType)] = &[
    ("F16", GgmlType::F16),
    ("BF16", GgmlType::BF16),
    ("Q8_0", GgmlType::Q8_0),
    ("Q6_K", GgmlType::Q6_K),
    ("Q5_K_M", GgmlType::Q5_K),
    ("Q5_K_S", GgmlType::Q5_K),
    ("Q5_1", GgmlType::Q5_1),
    ("Q5_0", GgmlType::Q5_0),
    ("Q4_K_M", GgmlType::Q4_K),
    ("Q4_K_S", GgmlType::Q4_K),
    ("Q4_1", GgmlType::Q4_1),
    ("Q4_0", GgmlType::Q4_0),
    ("IQ4_NL", GgmlType::IQ4_NL),
    ("IQ4_XS", GgmlType::IQ4_XS),
    ("Q3_K_L", GgmlType::Q3_K),
    ("Q3_K_M", GgmlType::Q3_K),
    ("Q3_K_S", GgmlType::Q3_K),
    ("Q2_K", GgmlType::Q2_K),
];

impl Technique for Ggml {
    fn name(&self) -> &'static str {
        "ggml"
    }

    fn summary(&self) -> &'static str {
        "ggml block types (legacy, k-quants, IQ4) in the mixes llama.cpp names, with its search. Needs no data. \
         ggml-org/llama.cpp."
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

/// Tensors that are never quantized: vectors and norms as F32, odd matrices as they are or F16.
fn plain(tensor: &TensorPlan) -> GgmlType {
    match tensor.source_dtype {
        _ if tensor.shape.len() < 2 || matches!(tensor.role, Role::Norm | Role::Bias | Role::Router) => {
            GgmlType::F32
        }
        DType::F32 | DType::BF16 => tensor.source_dtype.to_ggml().unwrap_or(GgmlType::F16),
        _ => GgmlType::F16,
    }
}

struct Mix {
    name: &'static str,
    base: GgmlType,
    facts: Facts,
    tied: bool,
    pure: bool,
}

impl Mix {
    fn type_of(&self, tensor: &TensorPlan) -> GgmlType {
        let vector = tensor.shape.len() < 2;
        let never = matches!(
            tensor.role,
            Role::Norm | Role::Bias | Role::Router | Role::PositionEmbedding
        );
        if vector || never || !tensor.name.ends_with("weight") {
            return plain(tensor);
        }
        if !self.base.is_quantized() {
            return self.base;
        }
        let chosen = if self.pure { self.base } else { self.chosen(tensor) };
        fit(chosen, tensor.cols())
    }

    fn chosen(&self, tensor: &TensorPlan) -> GgmlType {
        use GgmlType as G;
        let head = tensor.role == Role::Output || (self.tied && tensor.role == Role::TokenEmbedding);
        if head {
            let whole = fit(G::Q6_K, tensor.cols()) == G::Q6_K;
            return if self.base == G::Q8_0 || !whole {
                G::Q8_0
            } else {
                G::Q6_K
            };
        }
        let (layer, layers) = (tensor.layer.unwrap_or(0), self.facts.layers);
        let more = more_bits(layer, layers);
        let groups = self.facts.heads.checked_div(self.facts.kv_heads).unwrap_or(1);
        let eight = self.facts.experts == 8;
        let chosen = match (tensor.role, self.name) {
            (Role::AttnV | Role::AttnK, _) if eight && self.base != G::Q8_0 => G::Q8_0,
            (Role::AttnOutput, "Q2_K" | "IQ4_NL" | "IQ4_XS" | "Q3_K_S" | "Q3_K_M" | "Q4_K_S" | "Q4_K_M")
                if eight =>
            {
                G::Q5_K
            }
            (Role::AttnV | Role::AttnQkv, name) => self.value_type(name, layer, more, groups),
            (Role::FfnDown, name) => self.down_type(name, layer, layers, more),
            (Role::AttnOutput, "Q2_K") => G::Q3_K,
            (Role::AttnOutput, "Q3_K_M") => G::Q4_K,
            (Role::AttnOutput, "Q3_K_L") => G::Q5_K,
            _ => self.base,
        };
        let seventy_b = layers == 80 && tensor.role == Role::AttnV;
        if seventy_b && matches!(chosen, G::Q3_K | G::Q4_K) {
            G::Q5_K
        } else {
            chosen
        }
    }

    fn value_type(&self, name: &str, layer: usize, more: bool, groups: usize) -> GgmlType {
        use GgmlType as G;
        match name {
            "Q2_K" if groups >= 4 => G::Q4_K,
            "Q2_K" => G::Q3_K,
            "Q3_K_M" if layer < 2 => G::Q5_K,
            "Q3_K_M" => G::Q4_K,
            "Q3_K_L" => G::Q5_K,
            "IQ4_NL" | "IQ4_XS" if groups >= 4 => G::Q5_K,
            "Q4_K_M" | "Q5_K_M" if more => G::Q6_K,
            "Q4_K_S" if layer < 4 => G::Q5_K,
            _ => self.base,
        }
    }

    fn down_type(&self, name: &str, layer: usize, layers: usize, more: bool) -> GgmlType {
        use GgmlType as G;
        match name {
            "Q2_K" => G::Q3_K,
            "Q3_K_M" if layer < layers / 16 => G::Q5_K,
            "Q3_K_M" => G::Q4_K,
            "Q3_K_L" => G::Q5_K,
            "Q4_K_M" | "Q5_K_M" if more => G::Q6_K,
            "Q4_K_S" | "IQ4_NL" | "IQ4_XS" if layer < layers / 8 => G::Q5_K,
            _ => self.base,
        }
    }
}

/// First and last eighth of the blocks, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type itself where rows are whole blocks, else what llama.cpp falls back to.
fn fit(ty: GgmlType, cols: usize) -> GgmlType {
    use GgmlType as G;
    if cols.is_multiple_of(ty.block_size()) {
        return ty;
    }
    let smaller = match ty {
        G::Q2_K | G::Q3_K => G::Q4_0,
        G::Q4_K => G::Q5_0,
        G::Q5_K => G::Q5_1,
        G::Q6_K => G::Q8_0,
        G::IQ4_XS => G::IQ4_NL,
        _ => G::F16,
    };
    if smaller == G::F16 || cols.is_multiple_of(smaller.block_size()) {
        smaller
    } else {
        G::F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bits_go_to_the_ends_and_every_third_layer_between() {
        let chosen: Vec<usize> = (0..30).filter(|l| more_bits(*l, 30)).collect();
        assert_eq!(chosen, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
    }

    #[test]
    fn rows_that_are_no_multiple_of_256_fall_back_as_in_llama_cpp() {
        assert_eq!(fit(GgmlType::Q4_K, 576), GgmlType::Q5_0);
        assert_eq!(fit(GgmlType::Q6_K, 576), GgmlType::Q8_0);
        assert_eq!(fit(GgmlType::Q4_K, 1536), GgmlType::Q4_K);
        assert_eq!(fit(GgmlType::Q4_0, 100), GgmlType::F16);
    }
}
