//! The report's section on quality: what the two models answer, and how far apart their blocks' outputs are.
//!
//! Owns: this section. Must not know: how anything was measured.
//! Invariant: what is small is not rounded to nothing.

use super::Report;
use super::html::escape;
use crate::evaluate::{LayerError, Measure, Quality};
use std::fmt::Write as _;

/// The section.
pub(super) fn section(out: &mut String, quality: &Quality) {
    let _ = write!(
        out,
        "<h2>Quality</h2><p>{} sequences of at most {} tokens, {} in all, from {}; the original and the compressed model \
         read the same ones. Intervals hold 95 % of what resampling the sequences gives.</p>",
        quality.sequences,
        quality.max_seq_length,
        quality.tokens,
        escape(&quality.dataset)
    );
    if !quality.measures.is_empty() {
        out.push_str(
            "<div class=scroll><table><tr><th>measure<th>before<th>after<th>interval<th>change<th>interval</tr>",
        );
        for measure in &quality.measures {
            row(out, measure);
        }
        out.push_str("</table></div>");
    }
    if !quality.stages.is_empty() {
        stages(out, quality);
    }
    if !quality.layers.is_empty() {
        bars(out, &quality.layers);
    }
}

/// What each stage leaves, and in the last row the result.
fn stages(out: &mut String, quality: &Quality) {
    out.push_str("<h3>Stage by stage</h3><div class=scroll><table><tr><th>behind stage");
    for measure in &quality.measures {
        let _ = write!(out, "<th>{}", escape(words(&measure.metric)));
    }
    out.push_str("</tr>");
    let results = quality.stages.iter().map(|stage| {
        let name = format!("{}, {}", stage.stage + 1, stage.technique);
        (name, &stage.measures)
    });
    for (name, measures) in results.chain([("the result".to_owned(), &quality.measures)]) {
        let _ = write!(out, "<tr><td>{}", escape(&name));
        for measure in measures {
            let [low, high] = measure.interval.map(number);
            let _ = write!(out, "<td title=\"{low} to {high}\">{}", number(measure.after));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

fn row(out: &mut String, measure: &Measure) {
    let none = || "–".to_owned();
    let change = |value: f64| change(&measure.metric, value);
    let _ = write!(
        out,
        "<tr><td>{}<td>{}<td>{}<td>{} to {}<td>{}<td>{}</tr>",
        escape(words(&measure.metric)),
        measure.before.map_or_else(none, number),
        number(measure.after),
        number(measure.interval[0]),
        number(measure.interval[1]),
        measure.change.map_or_else(none, change),
        measure.change_interval.map_or_else(none, |[low, high]| format!(
            "{} to {}",
            change(low),
            change(high)
        )),
    );
}

/// What a metric is called among people.
pub(super) fn words(metric: &str) -> &str {
    match metric {
        "accuracy" => "accuracy",
        "cosine" => "cosine of the two embeddings",
        "kl" => "divergence from the original, nats",
        "retrieval" => "same nearest neighbours",
        "top1_agreement" => "same first choice",
        other => other,
    }
}

/// Four significant digits, at least four behind the point.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.3e}");
    }
    // 0.99998 is not 1.
    let digits = if value < 1.0 && value > 0.999 { 6 } else { 4 };
    format!("{value:.digits$}")
}

/// Perplexity grows by a share of itself; shares change by points.
pub(super) fn change(metric: &str, value: f64) -> String {
    let unit = if metric == "perplexity" { " %" } else { " points" };
    let digits = if value.abs() < 1e-4 { 4 } else { 2 };
    format!("{:+.digits$}{unit}", 100.0 * value)
}

/// The bars of a report that has some.
pub(super) fn layers(out: &mut String, report: &Report) {
    let quality = report
        .quality
        .as_ref()
        .filter(|quality| !quality.layers.is_empty());
    if let Some(quality) = quality {
        bars(out, &quality.layers);
    }
}

/// Relative squared error behind each block, as bars from the first to the last.
fn bars(out: &mut String, layers: &[LayerError]) {
    let most = layers
        .iter()
        .map(|l| l.relative_error)
        .fold(f64::MIN_POSITIVE, f64::max);
    let width = 830.0 / layers.len() as f64;
    let _ = write!(
        out,
        "<p>Relative squared error of the hidden states behind each block, each model on its own way; the highest bar \
         is {most:.3e}.</p><div class=scroll><svg viewBox=\"0 0 900 176\" role=\"img\" aria-label=\"error behind each \
         block\"><line x1=\"50\" x2=\"880\" y1=\"150.5\" y2=\"150.5\" stroke=\"var(--line)\"/>\
         <text x=\"0\" y=\"20\">{most:.1e}</text><text x=\"0\" y=\"154\">0</text>"
    );
    let every = layers.len().div_ceil(16);
    for (i, layer) in layers.iter().enumerate() {
        let height = (layer.relative_error / most * 134.0).max(0.0);
        let x = 50.0 + i as f64 * width;
        let _ = write!(
            out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"var(--bar)\"><title>block {}: {:.3e}, {:.3e} to \
             {:.3e}</title></rect>",
            150.0 - height,
            (width - 2.0).clamp(0.5, 60.0),
            layer.block,
            layer.relative_error,
            layer.interval[0],
            layer.interval[1]
        );
        if i % every == 0 {
            let _ = write!(out, "<text x=\"{x:.1}\" y=\"168\">{}</text>", layer.block);
        }
    }
    out.push_str("</svg></div>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_before_and_after_and_a_bar_a_block() {
        let measure = |metric: &str, before: Option<f64>, after: f64, change: Option<f64>| Measure {
            metric: metric.into(),
            before,
            after,
            interval: [after * 0.9, after * 1.1],
            change,
            change_interval: change.map(|c| [c - 0.001, c + 0.001]),
        };
        let layer = |block: usize, relative_error: f64| LayerError {
            block,
            relative_error,
            interval: [relative_error / 2.0, relative_error * 2.0],
        };
        let quality = Quality {
            dataset: "a<b".into(),
            sequences: 40,
            measures: vec![
                measure("perplexity", Some(22.875), 23.1, Some(0.0098)),
                measure("kl", None, 0.000_123, None),
                measure("accuracy", Some(0.9), 0.8, Some(-0.1)),
            ],
            layers: vec![layer(0, 0.0), layer(1, 0.02), layer(2, 0.04)],
            stages: Vec::new(),
            ..Quality::default()
        };
        let mut page = String::new();
        section(&mut page, &quality);
        for text in [
            "from a&lt;b",
            "<td>perplexity<td>22.8750<td>23.1000<td>20.7900 to 25.4100<td>+0.98 %<td>+0.88 % to +1.08 %",
            "nats<td>–<td>1.230e-4<",
            "<td>-10.00 points<td>",
            "height=\"134.0\"",
            "height=\"67.0\"",
            "height=\"0.0\"",
            "block 2: 4.000e-2, 2.000e-2 to 8.000e-2",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert_eq!(number(0.999_98), "0.999980");
    }
}
