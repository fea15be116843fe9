//! The GPTQ layout (`AutoGPTQ`, GPTQModel): packed down the inputs, loaded by vLLM, transformers and `ExLlama`.
//!
//! Owns: its tensors and both copies of its configuration. Must not know: how codes were chosen.
//! Invariant: `checkpoint_format` v1 (zeros stored minus one) is used only for symmetric weights, where no zero
//! can borrow from its neighbour; asymmetric weights are `gptq_v2`.

use super::container::{Entry, Layout};
use super::hf_output::{self, Part, pretty};
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
pub struct Gptq;

impl Writer for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn summary(&self) -> &'static str {
        "Safetensors in the GPTQ layout (qweight, qzeros, scales, g_idx) for vLLM, transformers and ExLlama"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["vLLM", "transformers", "ExLlamaV2"]
    }

    fn loading(&self) -> Loading {
        Loading::with_transformers("`vllm serve .`, or in Python:", Some("gptqmodel"))
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let quantization = quantization_config(request)?;
        let config = hf_output::with_quantization(request, quantization.clone())?;
        let mut layout = hf_output::layout(request, Some(config), &|index| parts(&request.tensors[index]))?;
        layout.push_bytes("quantize_config.json", pretty(&quantization));
        Ok(layout)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let w = match weight {
            Weight::Dense(dense) => return Ok(vec![dense.bytes.clone()]),
            Weight::Affine(w) => w,
            other => return Err(Error::internal(format!("gptq was given {other:?}"))),
        };
        let groups = w.granularity.groups(w.cols).0;
        let scales = pack::transpose(&w.scales, groups);
        if let Some(bad) = scales.iter().find(|s| !f16::from_f32(**s).is_normal()) {
            return Err(Error::numeric(
                "scale_out_of_range",
                format!(
                    "{}: scale {bad:e} does not fit float16, which GPTQ stores",
                    request.tensors[index].name
                ),
            ));
        }
        let mut half = Vec::new();
        let _ = encode_dense(DType::F16, &scales, &mut half);
        let mask = ((1u16 << w.n_bits) - 1) as u8;
        let shift = u8::from(w.symmetric);
        let zeros: Vec<u8> = pack::transpose(&w.zeros, groups)
            .iter()
            .map(|z| z.wrapping_sub(shift) & mask)
            .collect();
        let size = w.cols / groups;
        let group = |i: usize| w.g_idx.get(i).map_or((i / size) as i32, |g| *g as i32);
        let g_idx = (0..w.cols).flat_map(|i| group(i).to_le_bytes()).collect();
        let codes = pack::transpose(&w.codes, w.cols);
        Ok(vec![
            pack::columns(&codes, w.rows, w.n_bits),
            pack::rows(&zeros, w.rows, w.n_bits),
            half,
            g_idx,
        ])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

fn parts(tensor: &TensorPlan) -> Vec<Part> {
    let Kind::Affine {
        n_bits, granularity, ..
    } = tensor.kind
    else {
        return vec![Part {
            name: tensor.name.clone(),
            dtype: tensor.source_dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            bytes: tensor.source_bytes,
        }];
    };
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let groups = granularity.groups(cols).0;
    let part = |suffix: &str, dtype: &str, shape: Vec<usize>, width: usize| {
        let bytes = (shape.iter().product::<usize>() * width) as u64;
        Part {
            name: format!("{}.{suffix}", tensor.module()),
            dtype: dtype.to_owned(),
            shape,
            bytes,
        }
    };
    vec![
        part("qweight", "I32", vec![pack::words(cols, n_bits), rows], 4),
        part("qzeros", "I32", vec![groups, pack::words(rows, n_bits)], 4),
        part("scales", "F16", vec![groups, rows], 2),
        part("g_idx", "I32", vec![cols], 4),
    ]
}

fn quantization_config(request: &Request<'_>) -> std::result::Result<Value, Vec<Refusal>> {
    let refuse = |detail: String| Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
    let mut scheme: Option<(u8, bool, Granularity, bool)> = None;
    for tensor in request.tensors.iter().filter(|t| t.kind.is_compressed()) {
        let (name, rows, cols) = (&tensor.name, tensor.rows(), tensor.cols());
        let Kind::Affine {
            n_bits,
            symmetric,
            granularity,
            scale_dtype,
            activations,
            act_order,
        } = tensor.kind
        else {
            return refuse(format!(
                "{name} is {}: the GPTQ layout holds integer weights",
                tensor.kind.label()
            ));
        };
        if activations != Activations::None {
            return refuse(format!(
                "{name}: the GPTQ layout is weight-only; set activations to \"none\""
            ));
        }
        if ![2, 3, 4, 8].contains(&n_bits) {
            return refuse(format!(
                "{name}: the GPTQ layout holds 2, 3, 4 or 8 bits, not {n_bits}"
            ));
        }
        if granularity == Granularity::Tensor {
            return refuse(format!(
                "{name}: the GPTQ layout has a scale a channel or group; set granularity"
            ));
        }
        if rows % 32 != 0 || cols % 32 != 0 {
            return refuse(format!(
                "{name} is {rows} × {cols}: the GPTQ layout needs multiples of 32"
            ));
        }
        if scale_dtype == DType::F32 {
            return refuse(format!(
                "{name}: GPTQ stores float16 scales; set the option scale_dtype to \"F16\""
            ));
        }
        let this = (n_bits, symmetric, granularity, act_order);
        if scheme.get_or_insert(this) != &this {
            return refuse("the GPTQ layout holds one scheme for all layers".into());
        }
    }
    let Some((n_bits, symmetric, granularity, act_order)) = scheme else {
        return refuse("no tensor is quantized: ask for the format safetensors instead".into());
    };
    let group_size = match granularity {
        Granularity::Group(size) => size as i64,
        _ => -1,
    };
    let version = if symmetric { "gptq" } else { "gptq_v2" };
    let skipped: serde_json::Map<String, Value> = request
        .tensors
        .iter()
        .filter(|t| t.role.is_linear() && !t.kind.is_compressed() && t.module() != "lm_head")
        .map(|t| (format!("-:^{}$", regex::escape(t.module())), json!({})))
        .collect();
    // Without "meta", which names the tool: transformers does not load a folder that has it through auto-round.
    let mut config = json!({
        "bits": n_bits, "group_size": group_size, "desc_act": act_order, "sym": symmetric, "lm_head": false,
        "quant_method": "gptq", "checkpoint_format": version, "format": version, "pack_dtype": "int32"
    });
    if !skipped.is_empty() {
        config["dynamic"] = Value::Object(skipped);
    }
    Ok(config)
}
