//! bitsandbytes NF4 in safetensors.
//!
//! Owns: its tensor names and `quant_state` JSON. Must not know: how codes were chosen.
//! Invariant: the even element is in the HIGH nibble; `quant_state` is spelled as Python's json.dumps spells it.

use super::container::{Entry, Layout};
use super::hf_output::{self, Part};
use super::{Request, Writer};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Kind, NF4_TABLE, Weight};
use serde_json::{Value, json};

/// The writer.
pub struct Bitsandbytes;

impl Writer for Bitsandbytes {
    fn name(&self) -> &'static str {
        "bitsandbytes"
    }

    fn summary(&self) -> &'static str {
        "Safetensors with NF4 weights as bitsandbytes stores them, for transformers and QLoRA"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers", "PEFT", "vLLM"]
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let mut dtype = DType::BF16;
        let mut any = false;
        for tensor in request.tensors.iter().filter(|t| t.kind.is_compressed()) {
            let Kind::Nf4 { value_dtype, .. } = tensor.kind else {
                let detail = format!(
                    "{} is {}: bitsandbytes holds NF4 weights",
                    tensor.name,
                    tensor.kind.label()
                );
                return Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
            };
            (dtype, any) = (value_dtype, true);
        }
        if !any {
            let detail = "no tensor is quantized: ask for the format safetensors instead";
            return Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
        }
        let mut skip: Vec<&str> = request
            .tensors
            .iter()
            .filter(|t| t.role.is_linear() && !t.kind.is_compressed())
            .map(TensorPlan::module)
            .collect();
        if !skip.contains(&"lm_head") {
            skip.push("lm_head");
        }
        let config = hf_output::with_quantization(request, quantization_config(dtype, &skip))?;
        hf_output::layout(request, Some(config), &|index| parts(&request.tensors[index]))
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let w = match weight {
            Weight::Dense(dense) => return Ok(vec![dense.bytes.clone()]),
            Weight::Nf4(w) => w,
            other => return Err(Error::internal(format!("bitsandbytes was given {other:?}"))),
        };
        let packed = w
            .codes
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0))
            .collect();
        let (mut absmax, mut table) = (Vec::new(), Vec::new());
        let _ = encode_dense(DType::F32, &w.absmax, &mut absmax);
        let _ = encode_dense(DType::F32, &NF4_TABLE, &mut table);
        Ok(vec![
            packed,
            absmax,
            table,
            state(&request.tensors[index]).into_bytes(),
        ])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
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

fn state(tensor: &TensorPlan) -> String {
    let Kind::Nf4 {
        block_size,
        value_dtype,
    } = tensor.kind
    else {
        return String::new();
    };
    format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": {block_size}, \"dtype\": \"{}\", \"shape\": [{}, {}]}}",
        torch_name(value_dtype),
        tensor.rows(),
        tensor.cols()
    )
}

fn parts(tensor: &TensorPlan) -> Vec<Part> {
    let Kind::Nf4 {
        block_size,
        value_dtype: _,
    } = tensor.kind
    else {
        return vec![Part {
            name: tensor.name.clone(),
            dtype: tensor.source_dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            bytes: tensor.source_bytes,
        }];
    };
    let n = tensor.elements();
    let (half, blocks, state) = (n.div_ceil(2), n.div_ceil(block_size), state(tensor).len());
    let part = |suffix: &str, dtype: &str, shape: Vec<usize>, bytes: usize| Part {
        name: format!("{}{suffix}", tensor.name),
        dtype: dtype.to_owned(),
        shape,
        bytes: bytes as u64,
    };
    vec![
        part("", "U8", vec![half, 1], half),
        part(".absmax", "F32", vec![blocks], blocks * 4),
        part(".quant_map", "F32", vec![16], 64),
        part(".quant_state.bitsandbytes__nf4", "U8", vec![state], state),
    ]
}

fn quantization_config(dtype: DType, skip: &[&str]) -> Value {
    json!({
        "quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false, "_load_in_4bit": true,
        "_load_in_8bit": false, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": false,
        "bnb_4bit_compute_dtype": torch_name(dtype), "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": skip, "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false
    })
}
