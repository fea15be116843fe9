//! Which files each format makes of a plan.
//!
//! Owns: what a writer is given, sizes of its files. Must not know: how a format lays out bytes.
//! Invariant: the layout is the same at plan time and when it is written.

use super::{FilePlan, FormatPlan, StagePlan, TensorPlan, check_options};
use crate::checkpoint::Checkpoint;
use crate::formats::{self, Request, container::Layout};
use crate::recipe::{FormatSpec, Refusal};
use serde_json::Value;

/// The format, and the bytes of every tensor in it.
pub(super) fn plan_format(
    index: usize,
    spec: &FormatSpec,
    stages: &[StagePlan],
    tensors: &[TensorPlan],
    model: &Checkpoint,
) -> Result<(FormatPlan, Vec<u64>), Vec<Refusal>> {
    let pointer = format!("/formats/{index}");
    let (layout, memory_bytes) = layout_of(spec, &pointer, stages, tensors, model)?;
    let weight_bytes = layout.weight_bytes();
    let known = request(&spec.options, &pointer, stages, tensors, model);
    let parameters = formats::writer(&spec.format).map_or(0, |writer| writer.parameters(&known));
    let plan = FormatPlan {
        format: spec.format.clone(),
        options: spec.options.clone(),
        bytes: layout.bytes(),
        at_most: layout.is_bound() || stages.iter().any(|stage| stage.is_open),
        weight_bytes,
        memory_bytes,
        bits_per_weight: weight_bytes as f64 * 8.0 / parameters.max(1) as f64,
        compression_ratio: model.tensor_bytes() as f64 / weight_bytes.max(1) as f64,
        files: layout
            .files
            .iter()
            .map(|f| FilePlan {
                name: f.name.clone(),
                bytes: f.bytes,
            })
            .collect(),
    };
    Ok((plan, layout.tensor_bytes(tensors.len())))
}

/// The layout of one format, the same at plan time and when it is written, and what is held of it in memory.
fn layout_of(
    spec: &FormatSpec,
    pointer: &str,
    stages: &[StagePlan],
    tensors: &[TensorPlan],
    model: &Checkpoint,
) -> Result<(Layout, u64), Vec<Refusal>> {
    let Some(writer) = formats::writer(&spec.format) else {
        let names: Vec<_> = formats::WRITERS.iter().map(|w| w.name()).collect();
        let detail = format!(
            "no format that can be written is called {:?}; those that can are {}",
            spec.format,
            names.join(", ")
        );
        return Err(vec![Refusal::new(pointer, "unknown_format", detail)]);
    };
    check_options(&spec.options, &writer.schema(), &format!("{pointer}/options"))?;
    if !writer.holds_caches() && tensors.iter().any(|t| t.cache.is_some()) {
        let detail = format!(
            "{} cannot hold scales of key/value caches; compressed-tensors can",
            spec.format
        );
        return Err(vec![Refusal::new(pointer, "format_cannot_hold", detail)]);
    }
    let request = request(&spec.options, pointer, stages, tensors, model);
    let layout = writer.layout(&request)?;
    distinct(&layout, pointer)?;
    let memory_bytes = writer.memory_bytes(&request, &layout);
    Ok((layout, memory_bytes))
}

/// A tensor that the format adds, such as `x.weight_scale`, must not have the name of one that the model brings.
fn distinct(layout: &Layout, pointer: &str) -> Result<(), Vec<Refusal>> {
    let mut seen = std::collections::HashSet::new();
    match layout.entries().find(|entry| !seen.insert(entry.name.as_str())) {
        None => Ok(()),
        Some(twice) => Err(vec![Refusal::new(
            pointer,
            "name_clash",
            format!(
                "two tensors would be called {}: rename or remove the model's own",
                twice.name
            ),
        )]),
    }
}

/// What a writer is given.
pub(crate) fn request<'a>(
    options: &'a Value,
    pointer: &'a str,
    stages: &'a [StagePlan],
    tensors: &'a [TensorPlan],
    model: &'a Checkpoint,
) -> Request<'a> {
    Request {
        model,
        tensors,
        label: stages.iter().rev().find_map(|s| s.label.as_deref()),
        importance: stages.iter().rev().find_map(StagePlan::importance),
        squares: None,
        scales: None,
        options,
        pointer,
    }
}
