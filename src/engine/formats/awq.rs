//! The AWQ layout (`AutoAWQ`'s GEMM version): packed along the outputs, loaded by vLLM, transformers and `SGLang`.
//!
//! Owns: its tensors, its order of codes within a word, its configuration. Must not know: how codes were chosen.
//! Invariant: zero points are always stored, as they are: the layout has no symmetric variant, a symmetric weight has
//! the middle code everywhere.

use super::container::{Entry, Layout};
use super::hf_output::{self, Part};
use super::{Loading, Request, Writer, pack};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Activations, Granularity, Kind, Weight};
use half::f16;
use serde_json::{Value, json};

/// The writer.
pub struct Awq;

/// Bits of a code.
const BITS: u8 = 4;

/// Which of eight neighbouring outputs each nibble of a word holds, lowest first.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

impl Writer for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn summary(&self) -> &'static str {
        "Safetensors in the AWQ layout, GEMM version (qweight, qzeros, scales; 4 bits) for vLLM, transformers and SGLang"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["vLLM", "transformers", "SGLang"]
    }

    fn loading(&self) -> Loading {
        Loading::with_transformers("`vllm serve .`, or in Python:", Some("gptqmodel"))
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let config = hf_output::with_quantization(request, quantization_config(request)?)?;
        hf_output::layout(request, Some(config), &|index| parts(&request.tensors[index]))
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let w = match weight {
            Weight::Dense(dense) => return Ok(vec![dense.bytes.clone()]),
            Weight::Affine(w) => w,
            other => return Err(Error::internal(format!("awq was given {other:?}"))),
        };
        let groups = w.granularity.groups(w.cols).0;
        let scales = pack::transpose(&w.scales, groups);
        if let Some(bad) = scales.iter().find(|s| !f16::from_f32(**s).is_normal()) {
            let name = &request.tensors[index].name;
            return Err(Error::numeric(
                "scale_out_of_range",
                format!("{name}: scale {bad:e} does not fit float16, which AWQ stores"),
            ));
        }
        let mut half = Vec::new();
        let _ = encode_dense(DType::F16, &scales, &mut half);
        Ok(vec![
            packed(&pack::transpose(&w.codes, w.cols), w.rows),
            packed(&pack::transpose(&w.zeros, groups), w.rows),
            half,
        ])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

/// Rows of `cols` codes, eight to a word; `cols` is a multiple of eight.
fn packed(codes: &[u8], cols: usize) -> Vec<u8> {
    let (words, _) = codes.as_chunks::<8>();
    let ordered: Vec<u8> = words.iter().flat_map(|word| ORDER.map(|at| word[at])).collect();
    pack::rows(&ordered, cols, BITS)
}

fn parts(tensor: &TensorPlan) -> Vec<Part> {
    let Kind::Affine { granularity, .. } = tensor.kind else {
        return vec![Part {
            name: tensor.name.clone(),
            dtype: tensor.source_dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            bytes: tensor.source_bytes,
        }];
    };
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let groups = granularity.groups(cols).0;
    let part = |suffix: &str, dtype: &str, shape: Vec<usize>, width: usize| Part {
        name: format!("{}.{suffix}", tensor.module()),
        dtype: dtype.to_owned(),
        bytes: (shape.iter().product::<usize>() * width) as u64,
        shape,
    };
    vec![
        part("qweight", "I32", vec![cols, pack::words(rows, BITS)], 4),
        part("qzeros", "I32", vec![groups, pack::words(rows, BITS)], 4),
        part("scales", "F16", vec![groups, rows], 2),
    ]
}

/// The group size of a tensor, or why the layout cannot hold it.
fn group_size(tensor: &TensorPlan) -> std::result::Result<usize, String> {
    let name = &tensor.name;
    let Kind::Affine {
        n_bits,
        granularity,
        scale_dtype,
        activations,
        act_order,
        symmetric: _,
    } = tensor.kind
    else {
        let kind = tensor.kind.label();
        return Err(format!("{name} is {kind}: the AWQ layout holds integer weights"));
    };
    if n_bits != BITS {
        return Err(format!("{name}: the AWQ layout holds 4 bits, not {n_bits}"));
    }
    if act_order {
        return Err(format!(
            "{name}: the AWQ layout has no group index; set act_order to \"static\""
        ));
    }
    if activations != Activations::None {
        return Err(format!(
            "{name}: the AWQ layout is weight-only; set activations to \"none\""
        ));
    }
    let Granularity::Group(size) = granularity else {
        return Err(format!(
            "{name}: the AWQ layout has a scale a group; set granularity to \"group\""
        ));
    };
    let rows = tensor.rows();
    if !rows.is_multiple_of(8) {
        return Err(format!(
            "{name} has {rows} outputs: the AWQ layout needs a multiple of 8"
        ));
    }
    if scale_dtype == DType::F32 {
        return Err(format!(
            "{name}: AWQ stores float16 scales; set the option scale_dtype to \"F16\""
        ));
    }
    Ok(size)
}

fn quantization_config(request: &Request<'_>) -> std::result::Result<Value, Vec<Refusal>> {
    let refuse = |detail: String| vec![Refusal::new(request.pointer, "format_cannot_hold", detail)];
    let mut size = None;
    for tensor in request.tensors.iter().filter(|t| t.kind.is_compressed()) {
        let this = group_size(tensor).map_err(refuse)?;
        if *size.get_or_insert(this) != this {
            return Err(refuse(
                "the AWQ layout holds one group size for all layers".into(),
            ));
        }
    }
    let Some(size) = size else {
        return Err(refuse(
            "no tensor is quantized: ask for the format safetensors instead".into(),
        ));
    };
    let plain: Vec<&str> = request
        .tensors
        .iter()
        .filter(|t| t.role.is_linear() && !t.kind.is_compressed() && t.module() != "lm_head")
        .map(TensorPlan::module)
        .collect();
    let skipped = if plain.is_empty() {
        Value::Null
    } else {
        json!(plain)
    };
    Ok(json!({
        "quant_method": "awq", "version": "gemm", "bits": BITS, "group_size": size, "zero_point": true,
        "modules_to_not_convert": skipped
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    #[test]
    fn eight_outputs_lie_in_the_order_that_the_kernels_unpack() {
        assert_eq!(packed(&[0, 1, 2, 3, 4, 5, 6, 7], 8), 0x7531_6420u32.to_le_bytes());
    }

    /// Inputs of the golden file: `u = (31r + 17c + (rc) mod 7) mod 16`, `z = (5r + 3g + 1) mod 16`.
    #[test]
    fn golden_vectors() {
        let file: Value = serde_json::from_str(include_str!("golden/packing.json")).unwrap();
        let codes: Vec<u8> = (0..128u32)
            .flat_map(|c| (0..64u32).map(move |r| ((r * 31 + c * 17 + (r * c) % 7) & 15) as u8))
            .collect();
        let zeros: Vec<u8> = (0..4u32)
            .flat_map(|g| (0..64u32).map(move |r| ((r * 5 + g * 3 + 1) & 15) as u8))
            .collect();
        let want = &file["bits4"];
        assert_eq!(sha256(&packed(&codes, 64)), want["awq_gemm_qweight"]["sha256"]);
        assert_eq!(sha256(&packed(&zeros, 64)), want["awq_gemm_qzeros"]["sha256"]);
    }
}
