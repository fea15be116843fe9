//! compressed-tensors: the format of vLLM and llm-compressor.
//!
//! Owns: its tensor names and `quantization_config`; of pruned plain weights, on request, those of its older sparse
//! checkpoints. Must not know: how codes were chosen.
//! Invariant: symmetric schemes carry no zero points (vLLM refuses them); unknown keys are never written
//! (its readers forbid them).

mod sparse;

use super::container::{Entry, Layout};
use super::hf_output::{self, Part};
use super::{Loading, Request, Writer, pack};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::{CacheDtype, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::{DType, encode_dense};
use crate::weight::{Activations, Affine, Granularity, Kind, Scale, Weight};
use serde_json::{Value, json};
use sparse::Form;

/// The writer.
pub struct CompressedTensors;

impl Writer for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn summary(&self) -> &'static str {
        "Safetensors with quantization_config for vLLM and transformers: pack-quantized (W2–W8 weight-only), \
         int-quantized (W8A8), float-quantized (FP8); on request sparse-24-bitmask and sparse-bitmask, which only \
         compressed-tensors up to 0.14 reads"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["vLLM", "transformers"]
    }

    fn loading(&self) -> Loading {
        Loading::with_transformers("`vllm serve .`, or in Python:", Some("compressed-tensors"))
    }

    fn loaded_by(&self, options: &Value) -> (&'static [&'static str], Loading) {
        match Form::of(options) {
            None => (self.engines(), self.loading()),
            Some(form) => form.loaded_by(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {sparse::OPTION: sparse::schema()}})
    }

    fn memory_bytes(&self, request: &Request<'_>, layout: &Layout) -> u64 {
        match Form::of(request.options) {
            None => layout.weight_bytes(),
            Some(_) => request.tensors.iter().map(|t| t.source_bytes).sum(),
        }
    }

    fn holds_caches(&self) -> bool {
        true
    }

    /// vLLM multiplies by queries, keys and values at once, by gate and up, and by all experts of a block.
    fn fuses(&self, tensor: &TensorPlan) -> Option<&'static str> {
        let module = tensor.module();
        let ends = |parts: &[&str]| parts.iter().any(|part| module.ends_with(part));
        if module.contains(".experts.") {
            Some("experts")
        } else if ends(&[".q_proj", ".k_proj", ".v_proj"]) {
            Some("qkv")
        } else {
            ends(&[".gate_proj", ".up_proj"]).then_some("gate_up")
        }
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let form = Form::of(request.options);
        let described = match form {
            None => quantization_config(request)?,
            Some(form) => {
                sparse::check(request, form)?;
                sparse::config(request, form)
            }
        };
        let config = hf_output::with_quantization(request, described)?;
        hf_output::layout(request, Some(config), &|index| {
            let tensor = &request.tensors[index];
            let sparse = form.and_then(|form| sparse::parts(form, tensor));
            sparse.unwrap_or_else(|| parts(tensor))
        })
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        if let (Some(form), Weight::Dense(dense)) = (Form::of(request.options), weight)
            && let Some(parts) = sparse::encode(form, &request.tensors[index], dense)?
        {
            return Ok(parts);
        }
        let mut parts = weight_parts(request, index, weight)?;
        if request.tensors[index].cache.is_some() {
            let scale = request.scale(index, Scale::Cache)?;
            parts.push(scale.to_le_bytes().to_vec());
        }
        Ok(parts)
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

fn weight_parts(request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
    let tensor = &request.tensors[index];
    match weight {
        Weight::Dense(dense) => Ok(vec![dense.bytes.clone()]),
        Weight::Affine(w) if tensor.kind.activations() != Activations::None => {
            let middle = 1u8 << (w.n_bits - 1);
            let mut parts = vec![
                w.codes.iter().map(|c| c.wrapping_sub(middle)).collect(),
                dense(w.scale_dtype, &w.scales)?,
            ];
            if !w.symmetric {
                parts.push(w.zeros.iter().map(|z| z.wrapping_sub(middle)).collect());
            }
            parts.extend(input_scale(request, index)?);
            Ok(parts)
        }
        Weight::Affine(w) => packed(w),
        Weight::Float8(w) => {
            let mut parts = vec![w.codes.clone(), dense(w.scale_dtype, &w.scales)?];
            parts.extend(input_scale(request, index)?);
            Ok(parts)
        }
        other => Err(Error::internal(format!(
            "{} reached compressed-tensors as {other:?}",
            tensor.name
        ))),
    }
}

/// The scale of a layer's inputs, where one is stored.
fn input_scale(request: &Request<'_>, index: usize) -> Result<Option<Vec<u8>>> {
    if request.tensors[index].kind.activations() != Activations::StaticTensor {
        return Ok(None);
    }
    let scale = request.scale(index, Scale::Input)?;
    Ok(Some(scale.to_le_bytes().to_vec()))
}

fn dense(dtype: DType, values: &[f32]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if encode_dense(dtype, values, &mut out) {
        Ok(out)
    } else {
        Err(Error::internal(format!("scales in {dtype}")))
    }
}

fn packed(w: &Affine) -> Result<Vec<Vec<u8>>> {
    let shape = [w.rows as i64, w.cols as i64]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    let mut parts = vec![
        pack::rows(&w.codes, w.cols, w.n_bits),
        dense(w.scale_dtype, &w.scales)?,
        shape,
    ];
    if !w.symmetric {
        let groups = w.granularity.groups(w.cols).0;
        parts.push(pack::columns(&w.zeros, groups, w.n_bits));
    }
    Ok(parts)
}

/// What a tensor becomes in the file; the scales of inputs and of a cache come last.
fn parts(tensor: &TensorPlan) -> Vec<Part> {
    let scalar = |name: String| Part {
        name,
        dtype: "F32".to_owned(),
        shape: vec![1],
        bytes: 4,
    };
    let mut parts = of_weight(tensor);
    if tensor.kind.activations() == Activations::StaticTensor {
        parts.push(scalar(format!("{}.input_scale", tensor.module())));
    }
    if tensor.cache.is_some() {
        parts.push(scalar(cache_name(&tensor.name).unwrap_or_default()));
    }
    parts
}

/// `model.layers.0.self_attn.k_proj.weight` → `model.layers.0.self_attn.k_scale`, where vLLM looks for it.
fn cache_name(weight: &str) -> Option<String> {
    let (layer, projection) = weight.strip_suffix("_proj.weight")?.rsplit_once('.')?;
    Some(format!("{layer}.{projection}_scale"))
}

fn of_weight(tensor: &TensorPlan) -> Vec<Part> {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let part = |suffix: &str, dtype: &str, shape: Vec<usize>, width: usize| {
        let bytes = (shape.iter().product::<usize>() * width) as u64;
        Part {
            name: format!("{}.{suffix}", tensor.module()),
            dtype: dtype.to_owned(),
            shape,
            bytes,
        }
    };
    let scales = |granularity: Granularity, dtype: DType| {
        let shape = match granularity {
            Granularity::Tensor => vec![1],
            other => vec![rows, other.groups(cols).0],
        };
        part(
            "weight_scale",
            dtype.name(),
            shape,
            dtype.row_bytes(1).unwrap_or(4),
        )
    };
    match tensor.kind {
        Kind::Affine {
            symmetric,
            granularity,
            scale_dtype,
            activations: Activations::DynamicToken | Activations::StaticTensor,
            n_bits: _,
            act_order: _,
        } => {
            let mut parts = vec![
                part("weight", "I8", tensor.shape.clone(), 1),
                scales(granularity, scale_dtype),
            ];
            if !symmetric {
                let shape = parts[1].shape.clone();
                parts.push(part("weight_zero_point", "I8", shape, 1));
            }
            parts
        }
        Kind::Affine {
            n_bits,
            symmetric,
            granularity,
            scale_dtype,
            activations: Activations::None,
            act_order: _,
        } => {
            let mut parts = vec![
                part("weight_packed", "I32", vec![rows, pack::words(cols, n_bits)], 4),
                scales(granularity, scale_dtype),
                part("weight_shape", "I64", vec![2], 8),
            ];
            if !symmetric {
                let shape = vec![pack::words(rows, n_bits), granularity.groups(cols).0];
                parts.push(part("weight_zero_point", "I32", shape, 4));
            }
            parts
        }
        Kind::Float8 {
            granularity,
            scale_dtype,
            activations: _,
        } => vec![
            part("weight", "F8_E4M3", tensor.shape.clone(), 1),
            scales(granularity, scale_dtype),
        ],
        _ => vec![Part {
            name: tensor.name.clone(),
            dtype: tensor.source_dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            bytes: tensor.source_bytes,
        }],
    }
}

/// One config group for each distinct scheme; everything else linear is ignored by name.
fn quantization_config(request: &Request<'_>) -> std::result::Result<Value, Vec<Refusal>> {
    let mut groups: Vec<(Kind, Vec<&str>)> = Vec::new();
    let mut refusals = Vec::new();
    for tensor in request.tensors.iter().filter(|t| t.kind.is_compressed()) {
        if let Err(why) = holds(tensor) {
            refusals.push(Refusal::new(request.pointer, "format_cannot_hold", why));
        } else if let Some((_, names)) = groups.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
            names.push(tensor.module());
        } else {
            groups.push((tensor.kind, vec![tensor.module()]));
        }
    }
    let unnamed = |t: &&TensorPlan| t.cache.is_some() && cache_name(&t.name).is_none();
    if let Some(tensor) = request.tensors.iter().find(unnamed) {
        let why = format!("no engine knows a name for the cache scale of {}", tensor.name);
        refusals.push(Refusal::new(request.pointer, "format_cannot_hold", why));
    }
    if !refusals.is_empty() {
        refusals.truncate(10);
        return Err(refusals);
    }
    let cache = request
        .tensors
        .iter()
        .find_map(|t| t.cache.map(|cache| cache.dtype));
    if groups.is_empty() && cache.is_none() {
        let detail = "no tensor is quantized: ask for the format safetensors instead, or of pruned weights for the option \
                      sparsity \"sparse-24-bitmask\"";
        return Err(vec![Refusal::new(request.pointer, "format_cannot_hold", detail)]);
    }
    let ignore: Vec<&str> = request
        .tensors
        .iter()
        .filter(|t| t.role.is_linear() && !t.kind.is_compressed())
        .map(TensorPlan::module)
        .chain(
            std::iter::once("lm_head").filter(|_| !request.tensors.iter().any(|t| t.module() == "lm_head")),
        )
        .collect();
    let single = groups.len() == 1;
    let mut config_groups = serde_json::Map::new();
    let mut formats = Vec::new();
    for (i, (kind, names)) in groups.iter().enumerate() {
        let targets = if single { json!(["Linear"]) } else { json!(names) };
        let (format, scheme) = scheme(kind, &targets);
        formats.push(format);
        config_groups.insert(format!("group_{i}"), scheme);
    }
    let format = match formats.as_slice() {
        [] => "dense",
        [first, rest @ ..] if rest.iter().all(|f| f == first) => first,
        _ => "mixed-precision",
    };
    Ok(json!({
        "config_groups": config_groups, "format": format, "global_compression_ratio": null, "ignore": ignore,
        "kv_cache_scheme": cache.map(cache_scheme), "quant_method": "compressed-tensors", "quantization_status": "compressed",
        "sparsity_config": {}, "transform_config": {}, "version": "0.12.2"
    }))
}

fn cache_scheme(dtype: CacheDtype) -> Value {
    let kind = match dtype {
        CacheDtype::Fp8 => "float",
        CacheDtype::Int8 => "int",
    };
    arguments(8, kind, true, "tensor", &Value::Null, false)
}

/// Arguments of one quantizer.
fn arguments(n_bits: u8, kind: &str, symmetric: bool, strategy: &str, group: &Value, dynamic: bool) -> Value {
    let observer = if dynamic { Value::Null } else { json!("minmax") };
    json!({"num_bits": n_bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group,
        "block_structure": null, "dynamic": dynamic, "actorder": null, "observer": observer, "observer_kwargs": {}})
}

fn holds(tensor: &TensorPlan) -> std::result::Result<(), String> {
    let name = &tensor.name;
    match tensor.kind {
        Kind::Affine {
            n_bits,
            activations: Activations::DynamicToken | Activations::StaticTensor,
            ..
        } if n_bits != 8 => Err(format!(
            "{name}: int-quantized (quantized activations) needs n_bits 8, not {n_bits}"
        )),
        // The library that reads this format gave up actorder "group" in 0.19.
        Kind::Affine { act_order: true, .. } => Err(format!(
            "{name}: compressed-tensors has no group index any more; set act_order to \"static\", or write the format gptq"
        )),
        Kind::Affine { .. } if !name.ends_with(".weight") => Err(format!("{name} is not a module's weight")),
        Kind::Affine {
            activations: Activations::DynamicToken | Activations::StaticTensor,
            granularity: Granularity::Group(_),
            ..
        } => Err(format!(
            "{name}: int-quantized holds a scale per tensor or channel; use granularity \"channel\""
        )),
        Kind::Float8 {
            activations: Activations::None,
            ..
        } => Err(format!(
            "{name}: float-quantized needs activations \"dynamic_token\""
        )),
        Kind::Affine { .. } | Kind::Float8 { .. } => Ok(()),
        other => Err(format!(
            "{name} is {}: compressed-tensors holds integer and FP8 weights",
            other.label()
        )),
    }
}

fn scheme(kind: &Kind, targets: &Value) -> (&'static str, Value) {
    let strategy = |g: Granularity| match g {
        Granularity::Tensor => ("tensor", Value::Null),
        Granularity::Channel => ("channel", Value::Null),
        Granularity::Group(size) => ("group", json!(size)),
    };

    let inputs = |kind: &str, activations: Activations| match activations {
        Activations::None => Value::Null,
        Activations::DynamicToken => arguments(8, kind, true, "token", &Value::Null, true),
        Activations::StaticTensor => arguments(8, kind, true, "tensor", &Value::Null, false),
    };
    let (format, weights, inputs) = match *kind {
        Kind::Affine {
            n_bits,
            symmetric,
            granularity,
            activations,
            scale_dtype: _,
            act_order: _,
        } => {
            let (name, group) = strategy(granularity);
            let weights = arguments(n_bits, "int", symmetric, name, &group, false);
            let format = if activations == Activations::None {
                "pack-quantized"
            } else {
                "int-quantized"
            };
            (format, weights, inputs("int", activations))
        }
        Kind::Float8 {
            granularity,
            activations,
            scale_dtype: _,
        } => {
            let (name, group) = strategy(granularity);
            let weights = arguments(8, "float", true, name, &group, false);
            ("float-quantized", weights, inputs("float", activations))
        }
        _ => ("dense", Value::Null, Value::Null),
    };
    let scheme = json!({"targets": targets, "format": format, "weights": weights, "input_activations": inputs, "output_activations": null});
    (format, scheme)
}
