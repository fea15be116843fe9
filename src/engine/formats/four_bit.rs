//! 4-bit `NormalFloat` weights in a Hugging Face folder, as bitsandbytes stores them.
//!
//! Owns: names of their tensors, `quant_state` JSON, what config.json says of them. Must not know: how codes were chosen.
//! Invariant: the even element is in the HIGH nibble; `quant_state` is spelled as Python's json.dumps spells it.

use super::Request;
use super::hf_output::{self, Part};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Kind, NESTED_BLOCK, NF4_TABLE, Nf4, dynamic_map};
use serde_json::{Value, json};

/// Architectures whose linear layers are transformers' `Conv1D`.
const TRANSPOSED: &str = "GPT2";

/// The source's config.json with what transformers must know of codes, or why these tensors cannot lie in such a folder.
/// `format` is what it is called in refusals.
pub(super) fn config(request: &Request<'_>, format: &str) -> std::result::Result<Value, Vec<Refusal>> {
    let refuse = |detail: String| Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
    let mut first = None;
    for tensor in request.tensors.iter().filter(|t| t.kind.is_compressed()) {
        let Kind::Nf4 {
            value_dtype,
            double_quant,
            ..
        } = tensor.kind.base()
        else {
            return refuse(format!(
                "{} is {}: {format} holds NF4 weights",
                tensor.name,
                tensor.kind.label()
            ));
        };
        if first.is_some_and(|(_, nested)| nested != double_quant) {
            return refuse(format!(
                "{} and a weight before it differ in double_quant: config.json says it once for all",
                tensor.name
            ));
        }
        first = Some((value_dtype, double_quant));
    }
    let architecture = request.model.architecture().unwrap_or_default();
    if architecture.starts_with(TRANSPOSED) {
        return refuse(format!(
            "{architecture} stores its layers as [in, out], and transformers reads codes as those of [out, in]: ask for the \
             format safetensors instead"
        ));
    }
    let Some((dtype, nested)) = first else {
        return refuse("no tensor is quantized: ask for the format safetensors instead".to_owned());
    };
    let mut skip: Vec<&str> = request
        .tensors
        .iter()
        .filter(|t| t.role.is_linear() && !t.kind.is_compressed())
        .map(TensorPlan::module)
        .collect();
    if !skip.contains(&"lm_head") {
        skip.push("lm_head");
    }
    hf_output::with_quantization(request, quantization_config(dtype, nested, &skip))
}

/// The bytes of a weight's entries.
pub(super) fn encode(tensor: &TensorPlan, w: &Nf4) -> Vec<Vec<u8>> {
    let packed = w
        .codes
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0))
        .collect();
    let f32s = |values: &[f32]| {
        let mut bytes = Vec::new();
        let _ = encode_dense(DType::F32, values, &mut bytes);
        bytes
    };
    let offset = w.nested.as_ref().map(|nested| nested.offset);
    let state = state(tensor, offset).into_bytes();
    match &w.nested {
        None => vec![packed, f32s(&w.absmax), f32s(&NF4_TABLE), state],
        Some(nested) => vec![
            packed,
            nested.codes.clone(),
            f32s(&NF4_TABLE),
            f32s(&nested.absmax),
            f32s(&dynamic_map()),
            state,
        ],
    }
}

/// `str(torch.dtype)` without its prefix.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::F32 => "float32",
        _ => "bfloat16",
    }
}

/// Most characters of the offset: a sign, seventeen digits, a point and an exponent.
const OFFSET: usize = 24;

/// What bitsandbytes needs to know of a weight. An offset takes more or fewer digits, but how long the file is was
/// settled before it was known: blanks behind the object, which JSON allows, make up for it.
fn state(tensor: &TensorPlan, offset: Option<f32>) -> String {
    let Kind::Nf4 {
        block_size,
        value_dtype,
        double_quant,
    } = tensor.kind.base()
    else {
        return String::new();
    };
    let plain = format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": {block_size}, \"dtype\": \"{}\", \"shape\": [{}, {}]",
        torch_name(value_dtype),
        tensor.rows(),
        tensor.cols()
    );
    if !double_quant {
        return plain + "}";
    }
    let nested = format!("{plain}, \"nested_blocksize\": {NESTED_BLOCK}, \"nested_dtype\": \"float32\", ");
    let length = nested.len() + "\"nested_offset\": }".len() + OFFSET;
    let text = format!(
        "{nested}\"nested_offset\": {:?}}}",
        f64::from(offset.unwrap_or(0.0))
    );
    format!("{text:<length$}")
}

/// The entries of a tensor: codes and what they need, or its plain values.
pub(super) fn parts(tensor: &TensorPlan) -> Vec<Part> {
    let Kind::Nf4 {
        block_size,
        value_dtype: _,
        double_quant,
    } = tensor.kind.base()
    else {
        return vec![Part {
            name: tensor.name.clone(),
            dtype: tensor.source_dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            bytes: tensor.source_bytes,
        }];
    };
    let n = tensor.elements();
    let (half, blocks, state) = (n.div_ceil(2), n.div_ceil(block_size), state(tensor, None).len());
    let part = |suffix: &str, dtype: &str, shape: Vec<usize>, bytes: usize| Part {
        name: format!("{}{suffix}", tensor.name),
        dtype: dtype.to_owned(),
        shape,
        bytes: bytes as u64,
    };
    let codes = part("", "U8", vec![half, 1], half);
    let table = part(".quant_map", "F32", vec![16], 64);
    let state = part(".quant_state.bitsandbytes__nf4", "U8", vec![state], state);
    if !double_quant {
        let absmax = part(".absmax", "F32", vec![blocks], blocks * 4);
        return vec![codes, absmax, table, state];
    }
    let outer = blocks.div_ceil(NESTED_BLOCK);
    vec![
        codes,
        part(".absmax", "U8", vec![blocks], blocks),
        table,
        part(".nested_absmax", "F32", vec![outer], outer * 4),
        part(".nested_quant_map", "F32", vec![256], 1024),
        state,
    ]
}

fn quantization_config(dtype: DType, nested: bool, skip: &[&str]) -> Value {
    json!({
        "quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false, "_load_in_4bit": true,
        "_load_in_8bit": false, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": nested,
        "bnb_4bit_compute_dtype": torch_name(dtype), "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": skip, "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false
    })
}
