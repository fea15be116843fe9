//! An analysis as one self-contained page.
//!
//! Owns: the page, the rate–distortion plot. Must not know: how figures were found.
//! Invariant: every text from a model is escaped.

use super::html::{begin, bytes, escape, grouped};
use super::map::{Cell, map};
use crate::analyze::{Analysis, Arithmetic, PresetOutlook, TensorAnalysis};
use std::fmt::Write as _;

/// Of the plot.
const WIDTH: f64 = 1000.0;
/// Of the plot.
const HEIGHT: f64 = 380.0;
/// Around it, for the numbers.
const MARGIN: f64 = 44.0;

/// The page.
pub fn analysis_html(analysis: &Analysis) -> String {
    let mut out = String::new();
    begin(&mut out, "analysis — modelpress");
    let _ = write!(
        out,
        "<h1>Analysis</h1><p>{} weights in {} tensors, engine {}</p>",
        grouped(analysis.model.parameters),
        analysis.tensors.len(),
        escape(&analysis.engine_version),
    );
    cards(&mut out, analysis);
    plane(&mut out, analysis);
    presets(&mut out, analysis);
    sensitivity(&mut out, analysis);
    near(&mut out, analysis);
    tensors(&mut out, &analysis.tensors);
    out.push_str("</body></html>\n");
    out
}

fn cards(out: &mut String, analysis: &Analysis) {
    let model = &analysis.model;
    out.push_str("<div class=cards>");
    let mut card = |value: String, label: &str| {
        let _ = write!(out, "<div class=card><b>{value}</b><span>{label}</span></div>");
    };
    card(bytes(model.bytes), "stored");
    for (name, size) in [
        ("as FP32", model.memory.fp32_bytes),
        ("as FP16", model.memory.fp16_bytes),
        ("as INT8, without scales", model.memory.int8_bytes),
        ("as INT4, without scales", model.memory.int4_bytes),
    ] {
        card(bytes(size), name);
    }
    if let Some(compute) = &model.compute {
        card(
            format!("{:.3} GFLOP", compute.flops_per_token as f64 / 1e9),
            "for each token, without attention",
        );
        let read = &compute.bytes_per_token;
        card(
            format!("{} / {}", bytes(read.fp16_bytes), bytes(read.int4_bytes)),
            "read for each token, as FP16 / INT4",
        );
    }
    if let Some(least) = model.lossless_bytes {
        card(bytes(least), "lossless bound: entropy of the stored symbols");
    }
    if model.duplicate_bytes > 0 {
        card(bytes(model.duplicate_bytes), "in tensors that are there twice");
    }
    out.push_str("</div>");
}

/// Presets on the rate–distortion plane, below the Gaussian bound.
pub(super) fn plane(out: &mut String, analysis: &Analysis) {
    let points: Vec<(f64, f64, &PresetOutlook)> = analysis
        .presets
        .iter()
        .filter_map(|told| told.snr_db.map(|snr| (told.bits_per_weight, snr, told)))
        .collect();
    let bound = &analysis.model.gaussian_bound;
    if bound.is_empty() {
        return;
    }
    let widest = points.iter().map(|(bits, ..)| *bits).fold(8.0, f64::max).ceil();
    let highest = points.iter().map(|(_, snr, _)| *snr).fold(0.0, f64::max);
    let highest = bound.iter().map(|point| point.snr_db).fold(highest, f64::max);
    let x = |bits: f64| MARGIN + bits / widest * (WIDTH - 2.0 * MARGIN);
    let y = |snr: f64| HEIGHT - MARGIN - snr.max(0.0) / highest.max(1.0) * (HEIGHT - 2.0 * MARGIN);
    let _ = write!(
        out,
        "<h2>Rate and distortion</h2><p>Signal to noise of the weights, dB, over stored bits per weight: the line is the bound for \
         Gaussian weights of these variances, points are presets that need no data. Six decibels are one bit. A point \
         above the line says that the weights are no such source: they may have been quantized that way before.</p>\
         <div class=scroll><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"rate–distortion plane\">"
    );
    for bits in 0..=widest as u32 {
        let at = x(f64::from(bits));
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"var(--line)\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{bits}</text>",
            MARGIN,
            HEIGHT - MARGIN,
            HEIGHT - MARGIN + 16.0
        );
    }
    for snr in (0..=highest as u32).step_by(10) {
        let at = y(f64::from(snr));
        let _ = write!(
            out,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line)\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{snr}</text>",
            MARGIN,
            WIDTH - MARGIN,
            MARGIN - 6.0,
            at + 4.0
        );
    }
    let line: Vec<String> = bound
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.bits_per_weight), y(point.snr_db)))
        .collect();
    let _ = write!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--two)\" stroke-width=\"2\" />",
        line.join(" ")
    );
    for (bits, snr, told) in &points {
        let _ = write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"var(--bar)\"><title>{}: {bits:.3} bits, {snr:.1} dB</title></circle>",
            x(*bits),
            y(*snr),
            escape(&told.preset)
        );
    }
    out.push_str("</svg></div>");
}

fn decibels(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

fn presets(out: &mut String, analysis: &Analysis) {
    let mut sorted: Vec<&PresetOutlook> = analysis.presets.iter().collect();
    sorted.sort_by_key(|told| told.bytes);
    out.push_str(
        "<h2>Presets on this model</h2><p>Sizes are exact; errors are estimated from samples, where no calibration is needed.</p>\
         <div class=scroll><table><tr><th>preset<th>format<th>size<th>bits per weight<th>ratio<th>SNR, dB<th>to the bound, dB<th>memory of the job<th>read for a token<th>multiplied in</tr>",
    );
    for told in sorted {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td title=\"{} bytes\">{}<td>{:.3}<td>{:.2}×<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&told.preset),
            escape(&told.format),
            grouped(told.bytes),
            bytes(told.bytes),
            told.bits_per_weight,
            told.compression_ratio,
            if told.calibrated {
                "calibrated".to_owned()
            } else {
                decibels(told.snr_db)
            },
            decibels(told.gap_db),
            bytes(told.peak_memory_bytes),
            bytes(told.bytes_per_token),
            match told.arithmetic {
                Arithmetic::Float16 => "FP16",
                Arithmetic::Int8 => "INT8",
                Arithmetic::Float8 => "FP8",
            },
        );
    }
    out.push_str("</table></div>");
    if !analysis.refused_presets.is_empty() {
        out.push_str("<details><summary>Not for this model</summary><table>");
        for refusal in &analysis.refused_presets {
            let (name, why) = (escape(&refusal.preset), escape(&refusal.detail));
            let _ = write!(out, "<tr><td>{name}<td style=\"white-space:normal\">{why}</tr>");
        }
        out.push_str("</table></details>");
    }
}

/// How much each tensor minds being compressed, on a map, and what each scheme costs in all.
pub(super) fn sensitivity(out: &mut String, analysis: &Analysis) {
    let Some(found) = &analysis.sensitivity else {
        return;
    };
    let _ = write!(
        out,
        "<h2>Sensitivity</h2><p>Divergence that each scheme of {} is expected to cost, by the gradients on {} tokens of {}. The map \
         has each tensor's at its scheme nearest 4.5 bits, a weight, logarithmic: the fuller, the more sensitive. Parts down, blocks \
         across.</p>",
        escape(&found.format),
        grouped(found.tokens as u64),
        escape(&found.dataset)
    );
    let units = found.most_sensitive();
    let cells: Vec<Cell<'_>> = units
        .iter()
        .flat_map(|(unit, scheme)| {
            let a_weight = scheme.predicted_kl / unit.parameters.max(1) as f64;
            unit.tensors.iter().map(move |name| Cell {
                name,
                value: a_weight.max(f64::MIN_POSITIVE).log10(),
                text: format!("{}: {:.3e} nats a million weights", scheme.scheme, 1e6 * a_weight),
            })
        })
        .collect();
    map(out, "sensitivity of each tensor", "--two", &cells);
    out.push_str(
        "<div class=scroll><table><tr><th>scheme, of all tensors that can have it<th>weights<th>bytes\
         <th>bits per weight<th>nats a token</tr>",
    );
    for total in found.totals() {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{:.3}<td>{:.3e}</tr>",
            escape(total.scheme),
            grouped(total.parameters),
            grouped(total.bytes),
            total.bits_per_weight(),
            total.predicted_kl
        );
    }
    out.push_str("</table></div>");
}

fn near(out: &mut String, analysis: &Analysis) {
    if analysis.near_layers.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Layers that are nearly the same</h2><div class=scroll><table><tr><th>tensor<th>like<th>relative distance<th>cosine</tr>",
    );
    for pair in analysis.near_layers.iter().take(50) {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{:.4}<td>{:.4}</tr>",
            escape(&pair.tensor),
            escape(&pair.like),
            pair.relative_distance,
            pair.cosine
        );
    }
    out.push_str("</table></div>");
}

fn tensors(out: &mut String, tensors: &[TensorAnalysis]) {
    out.push_str(
        "<h2>Tensors</h2><div class=scroll><table><tr><th>tensor<th>shape<th>type<th>σ<th>excess kurtosis<th>outliers<th>zeros\
         <th>entropy, bits<th>below a Gaussian, bits<th>effective rank<th>rank for 90 %<th>same as</tr>",
    );
    let rank = |found: Option<(usize, usize)>| {
        found.map_or_else(|| "–".to_owned(), |(rank, of)| format!("{rank} of {of}"))
    };
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    for tensor in tensors {
        let _ = write!(
            out,
            "<tr><td>{}<td>{:?}<td>{}<td>{:.3e}<td>{}<td>{}<td>{:.2} %<td>{:.3}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&tensor.name),
            tensor.shape,
            escape(&tensor.dtype),
            tensor.std,
            figure(tensor.excess_kurtosis),
            grouped(tensor.outliers),
            100.0 * tensor.sparsity,
            tensor.symbol_entropy_bits,
            figure(tensor.non_gaussian_bits),
            rank(
                tensor
                    .spectrum
                    .as_ref()
                    .map(|s| (s.effective_rank.round() as usize, s.full_rank))
            ),
            rank(
                tensor
                    .spectrum
                    .as_ref()
                    .and_then(|s| Some((s.energy.get(1)?.rank, s.full_rank)))
            ),
            tensor.duplicate_of.as_deref().map_or_else(String::new, escape),
        );
    }
    out.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::{Memory, ModelAnalysis, PresetRefusal, RatePoint};

    fn analysis() -> Analysis {
        let point = |bits_per_weight: f64| RatePoint {
            bits_per_weight,
            mse: 1.0,
            snr_db: 6.0 * bits_per_weight,
        };
        let told = PresetOutlook {
            preset: "<four>".into(),
            format: "gguf".into(),
            bytes: 1_234_567,
            weight_bytes: 1_234_000,
            bits_per_weight: 4.5,
            compression_ratio: 3.5,
            peak_memory_bytes: 1 << 28,
            flops_per_token: 0,
            bytes_per_token: 0,
            arithmetic: Arithmetic::Int8,
            calibrated: false,
            snr_db: Some(22.0),
            bound_db: Some(27.0),
            gap_db: Some(5.0),
        };
        Analysis {
            object: "analysis".into(),
            version: 1,
            engine_version: "1".into(),
            tensors: Vec::new(),
            model: ModelAnalysis {
                parameters: 2_000_000,
                bytes: 4_000_000,
                memory: Memory {
                    fp32_bytes: 8_000_000,
                    fp16_bytes: 4_000_000,
                    int8_bytes: 2_000_000,
                    int4_bytes: 1_000_000,
                },
                compute: None,
                lossless_bytes: None,
                duplicate_bytes: 0,
                gaussian_bound: vec![point(1.0), point(8.0)],
            },
            near_layers: Vec::new(),
            presets: vec![told],
            refused_presets: vec![PresetRefusal {
                preset: "other".into(),
                code: "no".into(),
                detail: "<script>".into(),
            }],
            sensitivity: None,
        }
    }

    /// Halfway along the axis of rates and at 22 of 48 decibels.
    #[test]
    fn a_preset_lies_at_its_rate_and_ratio() {
        let page = analysis_html(&analysis());
        let (x, y) = (44.0 + 4.5 / 8.0 * 912.0, 380.0 - 44.0 - 22.0 / 48.0 * 292.0);
        assert!(
            page.contains(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"")),
            "{page}"
        );
        assert!(
            page.contains("1.23 MB") && page.contains("title=\"1,234,567 bytes\""),
            "{page}"
        );
    }

    #[test]
    fn texts_are_escaped() {
        let page = analysis_html(&analysis());
        assert!(
            page.contains("&lt;four&gt;") && page.contains("&lt;script&gt;"),
            "{page}"
        );
        assert!(!page.contains("<script") && !page.contains("<four"), "{page}");
    }
}
