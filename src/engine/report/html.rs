//! The report as one self-contained page: no script, no external file, plots as SVG.
//!
//! Owns: the page. Must not know: how numbers were measured. Invariant: every text from a model is escaped.

use super::{Report, TensorReport, choice, map, quality, sparse, waterfall};
use std::fmt::Write as _;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1a1f24;--dim:#5b6670;--line:#d9dfe5;--bar:#2f6fde;--two:#d9822b;--bg:#fff;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecef;--dim:#9aa5af;--line:#333c44;--bar:#6ea0ff;--two:#f0a35a;--bg:#14181c;--card:#1c2228}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);margin:0 auto;max-width:1080px;padding:24px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}p{color:var(--dim);margin:4px 0 12px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.card{background:var(--card);border-radius:8px;padding:12px}.card b{display:block;font-size:20px}.card span{color:var(--dim);font-size:13px}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{padding:4px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}svg{width:100%;min-width:640px;height:auto}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
summary{cursor:pointer}pre{background:var(--card);border-radius:8px;padding:12px;overflow-x:auto;font-size:13px}
.warn{border-left:4px solid var(--two);padding:6px 12px;background:var(--card)}";

/// The page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    let title = report.recipe.name();
    let model = report
        .model
        .architecture
        .clone()
        .unwrap_or_else(|| "model".into());
    begin(&mut out, &format!("{title} — modelpress report"));
    let _ = write!(
        out,
        "<h1>{} → {}</h1><p>{} weights, engine {}, recipe {}</p>",
        escape(&model),
        escape(&title),
        grouped(report.totals.parameters),
        escape(&report.engine_version),
        escape(&report.recipe_hash[..report.recipe_hash.len().min(12)]),
    );
    for warning in &report.warnings {
        let _ = write!(out, "<p class=warn>{}</p>", escape(warning));
    }
    cards(&mut out, report);
    if let Some(quality) = &report.quality {
        quality::section(&mut out, quality);
    }
    if let Some(allocation) = &report.allocation {
        choice::section(&mut out, allocation);
    }
    recipe(&mut out, report);
    sizes(&mut out, report);
    sparse::section(&mut out, report);
    stages(&mut out, report);
    if report.allocation.is_none() {
        map::bits(&mut out, report);
    }
    map::errors(&mut out, report);
    snr_plot(&mut out, report);
    entropy_plot(&mut out, report);
    tensor_table(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

/// Everything up to the first heading of a page.
pub(super) fn begin(out: &mut String, title: &str) {
    let _ = write!(
        out,
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body>",
        escape(title),
    );
}

fn cards(out: &mut String, report: &Report) {
    let t = &report.totals;
    out.push_str("<div class=cards>");
    let mut card = |value: String, label: &str| {
        let _ = write!(out, "<div class=card><b>{value}</b><span>{label}</span></div>");
    };
    if let Some(first) = report.formats.first() {
        card(bytes(t.source_bytes), "original weights");
        card(bytes(first.weight_bytes), "compressed weights");
        card(
            format!("{:.2}×", first.compression_ratio),
            "compression ratio |M| / |M<sub>c</sub>|",
        );
        card(format!("{:.3}", first.bits_per_weight), "bits per weight");
    }
    card(
        format!("{:.3}", t.source_entropy_bits),
        "H(W) of the original, bits per weight",
    );
    card(
        format!("{:.3}", t.code_entropy_bits),
        "entropy of the codes, bits per weight",
    );
    card(
        t.snr_db.map_or("exact".into(), |v| format!("{v:.2} dB")),
        "signal to noise, compressed weights",
    );
    if t.zero_ratio > 0.01 {
        card(percent(t.zero_ratio), "zeros among the compressed weights");
    }
    card(
        format!("{:.2} s", report.stages.iter().map(|s| s.seconds).sum::<f64>()),
        "time",
    );
    let peak = report.stages.iter().map(|s| s.peak_rss_bytes).max().unwrap_or(0);
    card(bytes(peak), "peak memory");
    out.push_str("</div>");
}

/// What was asked, to be read and to be used again.
fn recipe(out: &mut String, report: &Report) {
    let text = serde_json::to_string_pretty(&report.recipe).unwrap_or_default();
    let _ = write!(
        out,
        "<h2>Recipe</h2><details><summary>As JSON</summary><pre>{}</pre></details>",
        escape(&text)
    );
}

fn sizes(out: &mut String, report: &Report) {
    out.push_str("<h2>Size</h2>");
    waterfall::drawing(out, report);
    out.push_str(
        "<div class=scroll><table><tr><th>format<th>all files, bytes<th>weights, bytes\
         <th>in memory, bytes<th>ratio<th>bits per weight</tr>",
    );
    for f in &report.formats {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.3}<td>{:.4}</tr>",
            escape(&f.format),
            grouped(f.bytes),
            grouped(f.weight_bytes),
            match f.memory_bytes {
                0 => "–".to_owned(),
                bytes => grouped(bytes),
            },
            f.compression_ratio,
            f.bits_per_weight
        );
    }
    out.push_str(
        "</table></div><p>In memory: weights as an engine holds them once they are loaded; packed and sparse files are dense \
         by then.</p>",
    );
}

fn stages(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Cost</h2><div class=scroll><table><tr><th>stage<th>seconds<th>CPU seconds<th>peak memory</tr>",
    );
    for s in &report.stages {
        let _ = write!(
            out,
            "<tr><td>{}<td>{:.2}<td>{:.2}<td>{}</tr>",
            escape(&s.name),
            s.seconds,
            s.cpu_seconds,
            bytes(s.peak_rss_bytes)
        );
    }
    let _ = write!(
        out,
        "</table></div><p>The plan promised at most {}.</p>",
        bytes(report.planned_peak_memory_bytes)
    );
    for decode in &report.decode {
        let _ = write!(
            out,
            "<p>{}: {:.1} tokens a second decoded{}.</p>",
            escape(&decode.format),
            decode.tokens_per_second,
            decode
                .runtime
                .as_deref()
                .map_or_else(String::new, |runtime| format!(" by {}", escape(runtime)))
        );
    }
}

/// One row of points: its name, whether they are rings, and a value a tensor.
struct Series<'a> {
    name: &'a str,
    ring: bool,
    values: Vec<f64>,
}

/// Round numbers that span the values, four steps or so apart.
fn ticks(values: &[f64]) -> Vec<f64> {
    let (low, high) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let rough = ((high - low) / 4.0).max(0.25);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    let (first, last) = ((low / step).floor(), (high / step).ceil());
    (0..=(last - first).max(1.0) as usize)
        .map(|i| (first + i as f64) * step)
        .collect()
}

/// Points of quantized tensors in file order; the first series lies on top.
fn plot(out: &mut String, label: &str, unit: &str, names: &[&str], series: &[Series<'_>]) {
    let all = series.iter().flat_map(|s| s.values.iter().copied());
    let all: Vec<f64> = all.filter(|v| v.is_finite()).collect();
    if all.is_empty() {
        return;
    }
    let ticks = ticks(&all);
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let n = names.len().max(2);
    let x = |i: usize| 50.0 + i as f64 / (n - 1) as f64 * 830.0;
    let y = |v: f64| 200.0 - (v - low) / (high - low) * 180.0;
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 900 226\" role=\"img\" aria-label=\"{}\"><text x=\"0\" y=\"10\">{unit}</text>",
        escape(label)
    );
    let digits = usize::from(ticks[1] - ticks[0] < 1.0);
    for v in &ticks {
        let _ = write!(
            out,
            "<line x1=\"50\" x2=\"880\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"var(--line)\"/><text x=\"0\" y=\"{1:.1}\">{v:.digits$}</text>",
            y(*v),
            y(*v) + 4.0
        );
    }
    for (k, row) in series.iter().enumerate().rev() {
        let colour = if k == 0 { "--bar" } else { "--two" };
        let look = if row.ring {
            format!("r=\"4\" fill=\"none\" stroke=\"var({colour})\"")
        } else {
            format!("r=\"2.2\" fill=\"var({colour})\"")
        };
        for (i, v) in row.values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" {look}>", x(i), y(*v));
            if k == 0 {
                let _ = write!(out, "<title>{}: {v:.2} {unit}</title>", escape(names[i]));
            }
            out.push_str("</circle>");
        }
        let at = 60 + k * 220;
        let _ = write!(
            out,
            "<circle cx=\"{at}\" cy=\"218\" {look}/><text x=\"{}\" y=\"222\">{}</text>",
            at + 10,
            escape(row.name)
        );
    }
    out.push_str("</svg></div>");
}

fn changed(report: &Report) -> Vec<&TensorReport> {
    report.tensors.iter().filter(|t| t.compressed).collect()
}

fn names<'a>(tensors: &[&'a TensorReport]) -> Vec<&'a str> {
    tensors.iter().map(|t| t.name.as_str()).collect()
}

pub(super) fn snr_plot(out: &mut String, report: &Report) {
    let tensors = changed(report);
    if tensors.is_empty() {
        return;
    }
    out.push_str("<h2>Signal to noise by tensor</h2><p>Measured, and what uniform rounding with error s²/12 predicts; decibels, in file order.</p>");
    let measured = tensors.iter().map(|t| t.snr_db.unwrap_or(f64::NAN)).collect();
    let predicted = tensors.iter().map(|t| match t.predicted_mse {
        Some(p) if p > 0.0 && t.mean_square > 0.0 => 10.0 * (t.mean_square / p).log10(),
        _ => f64::NAN,
    });
    let series = [
        Series {
            name: "measured",
            ring: false,
            values: measured,
        },
        Series {
            name: "s²/12 prediction",
            ring: true,
            values: predicted.collect(),
        },
    ];
    plot(out, "signal to noise", "dB", &names(&tensors), &series);
}

pub(super) fn entropy_plot(out: &mut String, report: &Report) {
    let tensors = changed(report);
    if tensors.is_empty() {
        return;
    }
    out.push_str("<h2>Entropy by tensor</h2><p>Bits per weight an ideal zero-order coder would need, in file order.</p>");
    let series = [
        Series {
            name: "codes",
            ring: false,
            values: tensors.iter().map(|t| t.code_entropy_bits).collect(),
        },
        Series {
            name: "original",
            ring: false,
            values: tensors.iter().map(|t| t.source_entropy_bits).collect(),
        },
    ];
    plot(out, "entropy", "bits", &names(&tensors), &series);
}

fn tensor_table(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Tensors</h2><div class=scroll><table><tr><th>name<th>shape<th>from<th>to<th>H(W)<th>H(codes)<th>MSE\
         <th>s²/12<th>SNR dB<th>max error<th>zeros</tr>",
    );
    for t in &report.tensors {
        let shape: Vec<String> = t.shape.iter().map(ToString::to_string).collect();
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.3}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&t.name),
            shape.join("×"),
            escape(&t.source_dtype),
            escape(&t.kind),
            t.source_entropy_bits,
            if t.compressed {
                format!("{:.3}", t.code_entropy_bits)
            } else {
                "–".into()
            },
            error(t.mse),
            t.predicted_mse.map_or("–".into(), error),
            match t.snr_db {
                Some(snr) => format!("{snr:.2}"),
                None if t.mse == 0.0 => "exact".into(),
                None => "–".into(),
            },
            error(t.max_abs_error),
            percent(t.zero_ratio)
        );
    }
    out.push_str("</table></div>");
}

/// A share in hundredths; nothing is plainly nothing.
pub(super) fn percent(ratio: f64) -> String {
    if ratio == 0.0 {
        "0".into()
    } else {
        format!("{:.2} %", 100.0 * ratio)
    }
}

/// Three digits and a power of ten; nothing is plainly nothing.
fn error(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else {
        format!("{value:.3e}")
    }
}

/// Text that cannot become markup, without what no document can hold.
pub(super) fn escape(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    plain
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub(super) fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1000.0 && unit < 4 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.2} {}", units[unit])
    }
}

pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::report) fn report() -> Report {
        let tensor = |name: &str, kind: &str, mse: f64, snr: Option<f64>| {
            json!({"name": name, "shape": [4, 32], "parameters": 128, "source_dtype": "BF16", "kind": kind,
                "compressed": mse > 0.0, "stored_bits_per_weight": 4.5, "source_entropy_bits": 10.5, "code_entropy_bits": 3.5, "mse": mse,
                "predicted_mse": 2e-4, "snr_db": snr, "max_abs_error": mse, "mean_square": 0.02})
        };
        let report = json!({
            "version": 1, "engine_version": "0", "recipe_hash": "abc", "planned_peak_memory_bytes": 1_000_000,
            "model": {"format": "huggingface", "architecture": "<b>", "parameter_count": 256, "bytes": 512,
                "tensor_bytes": 512, "dtypes": {"BF16": 256}, "tensor_count": 2},
            "recipe": {"version": 1, "preset": "W4A16", "stages": [], "formats": [], "seed": 7},
            "totals": {"parameters": 256, "source_bytes": 512, "source_bits_per_weight": 16.0,
                "source_entropy_bits": 10.5, "code_entropy_bits": 3.5, "mse": 1e-4, "predicted_mse": 2e-4,
                "snr_db": 20.0, "compressed_ratio": 0.5},
            "formats": [{"format": "gptq", "bytes": 1000, "weight_bytes": 256, "compression_ratio": 2.0,
                "bits_per_weight": 8.0}],
            "stages": [{"name": "compress", "seconds": 1.0, "cpu_seconds": 2.0, "peak_rss_bytes": 5000}],
            "warnings": ["a <script> & more"],
            "tensors": [tensor("<i>up\"", "int4", 1e-4, Some(20.5)), tensor("norm", "BF16", 0.0, None)],
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn texts_of_the_model_are_escaped_and_the_recipe_is_shown() {
        let page = html(&report());
        assert!(page.contains("&lt;i&gt;up&quot;") && page.contains("a &lt;script&gt; &amp; more"));
        for markup in ["<script", "<i>", "<b>LLM", "<h1><b>"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&quot;seed&quot;: 7"));
    }

    #[test]
    fn the_measured_points_lie_on_the_predicted_rings() {
        let page = html(&report());
        let (ring, point) = (
            page.find("fill=\"none\" stroke=").unwrap(),
            page.find("r=\"2.2\"").unwrap(),
        );
        assert!(ring < point, "what is drawn last is seen");
        assert!(page.contains("up&quot;: 20.50 dB</title>"));
    }

    #[test]
    fn numbers_have_units_and_nothing_is_nothing() {
        let page = html(&report());
        for text in [
            "all files, bytes",
            "weights, bytes",
            ">dB</text>",
            ">bits</text>",
            "<td>–<td>0<td>2.000e-4<td>exact<td>0<",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("NaN") && !page.contains("0.000e0"));
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(ticks(&[21.7, 57.0]), [20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(ticks(&[18.4, 20.8]), [18.0, 19.0, 20.0, 21.0]);
        assert_eq!(ticks(&[5.0]), [5.0, 5.5]);
        assert!(ticks(&[0.0, 1e9]).len() < 8);
    }
}
