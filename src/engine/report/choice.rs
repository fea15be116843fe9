//! The report's section on a budget: what was chosen, tensor by tensor, and what other sizes would lose.
//!
//! Owns: this section. Must not know: how a choice was found.
//! Invariant: every mark has its numbers as text under the pointer.

use super::html::{bytes, escape, grouped};
use super::map::{Cell, map};
use super::{Allocation, CurvePoint, Report, TensorScheme};
use crate::recipe::Budget;
use std::fmt::Write as _;

/// The section.
pub(super) fn section(out: &mut String, allocation: &Allocation) {
    let chosen = allocation.rounds.iter().find(|round| round.kept);
    let size = chosen.map_or_else(String::new, |round| {
        format!(
            "{} bytes, {:.3} bits a weight. ",
            grouped(round.bytes),
            round.bits_per_weight
        )
    });
    let [low, high] = allocation.predicted_kl_interval;
    let held = if allocation.held {
        "It holds."
    } else {
        "No choice that was tried keeps it."
    };
    let _ = write!(
        out,
        "<h2>Choice within the budget</h2><p>Asked: {}. {held} Chosen from {}: {size}A divergence of {:.3e} nats a token was \
         expected, {low:.1e} to {high:.1e} in 95 of 100 cases; what was measured is above.</p>",
        escape(&asked(allocation.budget.limit)),
        escape(&allocation.candidates.join(", ")),
        allocation.predicted_kl,
    );
    curve(out, allocation);
    chosen_bits(out, &allocation.tensors);
    parts(out, allocation);
    rounds(out, allocation);
}

fn asked(limit: Budget) -> String {
    match limit {
        Budget::TargetBytes(most) => format!("at most {} bytes", grouped(most)),
        Budget::TargetBitsPerWeight(bits) => format!("at most {bits} bits a weight"),
        Budget::MaxPerplexityIncrease(share) => format!("perplexity at most {} % higher", 100.0 * share),
        Budget::MaxKl(kl) => format!("a divergence of at most {kl} nats"),
        Budget::MaxAccuracyDrop(share) => format!("accuracy at most {} points lower", 100.0 * share),
    }
}

/// Sizes on the one axis, divergences on the other, which is logarithmic.
fn curve(out: &mut String, allocation: &Allocation) {
    let shown: Vec<&CurvePoint> = allocation.curve.iter().filter(|p| p.predicted_kl > 0.0).collect();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return;
    };
    let lows = shown.iter().map(|p| p.predicted_kl_interval[0].log10());
    let highs = shown.iter().map(|p| p.predicted_kl_interval[1].log10());
    let (bottom, top) = (
        lows.fold(f64::INFINITY, f64::min).floor(),
        highs.fold(f64::NEG_INFINITY, f64::max).ceil(),
    );
    let width = last.bytes.saturating_sub(first.bytes).max(1) as f64;
    let x = |bytes: u64| 60.0 + (bytes as f64 - first.bytes as f64) / width * 820.0;
    let y = |kl: f64| 20.0 + (top - kl.log10()) / (top - bottom).max(1.0) * 260.0;
    out.push_str(
        "<div class=scroll><svg viewBox=\"0 0 900 320\" role=\"img\" aria-label=\"divergence that each size is expected to \
         cost\">",
    );
    for power in (bottom as i32)..=(top as i32) {
        let at = y(10f64.powi(power));
        let _ = write!(
            out,
            "<line x1=\"60\" x2=\"880\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line)\"/><text x=\"0\" y=\"{:.1}\">1e{power}</text>",
            at + 4.0
        );
    }
    let place = |bytes: u64, kl: f64| format!("{:.1},{:.1}", x(bytes), y(kl));
    let upper = shown.iter().map(|p| place(p.bytes, p.predicted_kl_interval[1]));
    let lower = shown
        .iter()
        .rev()
        .map(|p| place(p.bytes, p.predicted_kl_interval[0]));
    let band: Vec<String> = upper.chain(lower).collect();
    let line: Vec<String> = shown.iter().map(|p| place(p.bytes, p.predicted_kl)).collect();
    let _ = write!(
        out,
        "<polygon points=\"{}\" fill=\"var(--bar)\" opacity=\"0.15\" /><polyline points=\"{}\" fill=\"none\" stroke=\"var(--bar)\"/>",
        band.join(" "),
        line.join(" ")
    );
    for point in &shown {
        let _ = write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"var(--bar)\"><title>{} bytes, {:.3} bits a weight: {:.3e} nats expected, \
             {:.1e} to {:.1e}</title></circle>",
            x(point.bytes),
            y(point.predicted_kl),
            grouped(point.bytes),
            point.bits_per_weight,
            point.predicted_kl,
            point.predicted_kl_interval[0],
            point.predicted_kl_interval[1]
        );
    }
    if let Some(chosen) = allocation
        .rounds
        .iter()
        .find(|r| r.kept && allocation.predicted_kl > 0.0)
    {
        let _ = write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\" fill=\"none\" stroke=\"var(--two)\" stroke-width=\"3\"><title>chosen: {} bytes</title>\
             </circle>",
            x(chosen.bytes),
            y(allocation.predicted_kl),
            grouped(chosen.bytes)
        );
    }
    let _ = write!(
        out,
        "<text x=\"60\" y=\"310\">{}</text><text x=\"880\" y=\"310\" text-anchor=\"end\">{}</text><text x=\"470\" y=\"310\" text-anchor=\"middle\">all \
         files; divergence in nats a token, 95 % interval, the ring is the choice</text></svg></div>",
        bytes(first.bytes),
        bytes(last.bytes)
    );
}

/// Bits a weight of every tensor that a scheme was chosen for.
fn chosen_bits(out: &mut String, tensors: &[TensorScheme]) {
    let bits = |tensor: &TensorScheme| tensor.bytes as f64 * 8.0 / tensor.parameters.max(1) as f64;
    let all = tensors.iter().map(bits);
    let (least, most) = (all.clone().fold(f64::INFINITY, f64::min), all.fold(0.0, f64::max));
    let cells: Vec<Cell<'_>> = tensors
        .iter()
        .map(|tensor| Cell {
            name: &tensor.name,
            value: bits(tensor),
            text: format!(
                "{}, {:.2} bits a weight, {:.2e} nats expected",
                tensor.scheme,
                bits(tensor),
                tensor.predicted_kl
            ),
        })
        .collect();
    let _ = write!(
        out,
        "<p>Bits of each tensor's weights, {least:.2} (pale) to {most:.2} (full): parts down, blocks across.</p>"
    );
    map(out, "bits of each tensor's weights", "--bar", &cells);
}

/// The curve of a report that has one.
pub(super) fn rate_distortion(out: &mut String, report: &Report) {
    if let Some(allocation) = &report.allocation {
        curve(out, allocation);
    }
}

fn parts(out: &mut String, allocation: &Allocation) {
    if allocation.classes.is_empty() {
        return;
    }
    out.push_str(
        "<p>The first choice part by part, the rest of the model left as it is: what the gradients said, and what was \
         measured on calibration data.</p><div class=scroll><table><tr><th>part<th>tensors<th>weights<th>expected, nats\
         <th>measured, nats<th>corrected by</tr>",
    );
    for class in &allocation.classes {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{:.3e}<td>{:.3e}<td>{:.3}</tr>",
            escape(&class.class),
            class.tensors,
            grouped(class.parameters),
            class.predicted_kl,
            class.measured_kl,
            class.factor
        );
    }
    out.push_str("</table></div>");
}

fn rounds(out: &mut String, allocation: &Allocation) {
    out.push_str(
        "<div class=scroll><table><tr><th>tried, bytes<th>bits a weight<th>expected, nats<th>measured<th>value<th>interval\
         <th></tr>",
    );
    for round in &allocation.rounds {
        let value = |v: f64| match round.metric.as_str() {
            "perplexity" => format!("{:+.2} %", 100.0 * v),
            "accuracy" => format!("{:+.2} points", -100.0 * v),
            _ => format!("{v:.5}"),
        };
        let interval = round.interval.map_or_else(
            || "–".to_owned(),
            |[low, high]| format!("{} to {}", value(low), value(high)),
        );
        let _ = write!(
            out,
            "<tr><td>{}<td>{:.3}<td>{:.3e}<td>{}<td>{}<td>{interval}<td>{}</tr>",
            grouped(round.bytes),
            round.bits_per_weight,
            round.predicted_kl,
            escape(super::quality::words(&round.metric)),
            value(round.measured),
            if round.kept { "kept" } else { "" }
        );
    }
    out.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::BudgetSpec;
    use crate::report::map::split;
    use crate::report::{ClassLoss, Round};

    fn allocation() -> Allocation {
        let point = |bytes: u64, kl: f64| CurvePoint {
            bytes,
            bits_per_weight: bytes as f64 / 1000.0,
            predicted_kl: kl,
            predicted_kl_interval: [kl / 2.0, kl * 2.0],
        };
        let tensor = |name: &str, bytes: u64| TensorScheme {
            name: name.to_owned(),
            scheme: "<Q>".into(),
            parameters: 1000,
            bytes,
            predicted_kl: 0.001,
        };
        let round = |bytes: u64, kept: bool| Round {
            bytes,
            bits_per_weight: 4.5,
            predicted_kl: 0.012,
            metric: "perplexity".into(),
            measured: 0.0123,
            interval: Some([0.01, 0.015]),
            kept,
        };
        Allocation {
            budget: BudgetSpec {
                limit: Budget::MaxPerplexityIncrease(0.02),
                candidates: Vec::new(),
                max_rounds: 6,
            },
            candidates: vec!["A".into(), "B".into()],
            held: true,
            predicted_kl: 0.01,
            predicted_kl_interval: [0.005, 0.02],
            smallest_bytes: 1000,
            largest_bytes: 9000,
            classes: vec![ClassLoss {
                class: "down".into(),
                tensors: 2,
                parameters: 2000,
                predicted_kl: 0.01,
                measured_kl: 0.02,
                factor: 2.0,
            }],
            rounds: vec![round(4000, false), round(5000, true)],
            curve: vec![point(1000, 1.0), point(5000, 0.01), point(9000, 0.0001)],
            tensors: vec![
                tensor("model.layers.0.mlp.down_proj.weight", 500),
                tensor("model.layers.1.mlp.down_proj.weight", 1000),
                tensor("model.embed_tokens.weight", 750),
            ],
        }
    }

    #[test]
    fn the_choice_is_on_the_curve_and_every_tensor_in_its_place() {
        let mut page = String::new();
        section(&mut page, &allocation());
        for text in [
            "perplexity at most 2 % higher",
            "It holds.",
            // Halfway along the sizes, on the curve.
            "cx=\"470.0\"",
            "chosen: 5,000 bytes",
            "<text x=\"0\" y=\"16\">mlp.down_proj</text><rect x=\"220.0\"",
            "<rect x=\"550.0\" y=\"0\" width=\"329.0\" height=\"20\" fill=\"var(--bar)\" opacity=\"1.00\">",
            "&lt;Q&gt;, 8.00 bits",
            "<td>down<td>2<td>2,000<td>1.000e-2<td>2.000e-2<td>2.000",
            "<td>5,000<td>4.500<td>1.200e-2<td>perplexity<td>+1.23 %<td>+1.00 % to +1.50 %<td>kept",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("<Q>"), "{page}");
    }

    #[test]
    fn names_are_parted_at_their_block() {
        assert_eq!(
            split("model.layers.12.mlp.up_proj.weight"),
            ("mlp.up_proj".into(), Some(12))
        );
        assert_eq!(split("lm_head.weight"), ("lm_head".into(), None));
    }
}
