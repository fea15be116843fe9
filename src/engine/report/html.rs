//! The report as one self-contained page: no script, no external file, plots as SVG.
//!
//! Owns: the page. Must not know: how numbers were measured. Invariant: every text from a model is escaped.

use super::{Report, TensorReport};
use std::fmt::Write as _;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1a1f24;--dim:#5b6670;--line:#d9dfe5;--bar:#2f6fde;--two:#d9822b;--bg:#fff;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecef;--dim:#9aa5af;--line:#333c44;--bar:#6ea0ff;--two:#f0a35a;--bg:#14181c;--card:#1c2228}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);margin:0 auto;max-width:1080px;padding:24px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}p{color:var(--dim);margin:4px 0 12px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.card{background:var(--card);border-radius:8px;padding:12px}.card b{display:block;font-size:20px}.card span{color:var(--dim);font-size:13px}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{padding:4px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}svg{width:100%;height:auto}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.warn{border-left:4px solid var(--two);padding:6px 12px;background:var(--card)}";

/// The page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    let title = report.recipe.preset.clone().unwrap_or_else(|| "recipe".into());
    let model = report
        .model
        .architecture
        .clone()
        .unwrap_or_else(|| "model".into());
    let _ = write!(
        out,
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{} — modelpress report</title><style>{STYLE}</style></head><body><h1>{} → {}</h1>\
         <p>{} weights, engine {}, recipe {}</p>",
        escape(&title),
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
    sizes(&mut out, report);
    stages(&mut out, report);
    snr_plot(&mut out, report);
    entropy_plot(&mut out, report);
    tensor_table(&mut out, report);
    out.push_str("</body></html>\n");
    out
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
            "compression ratio |M| / |M_c|",
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
        "signal to noise, quantized weights",
    );
    card(
        format!("{:.2} s", report.stages.iter().map(|s| s.seconds).sum::<f64>()),
        "time",
    );
    let peak = report.stages.iter().map(|s| s.peak_rss_bytes).max().unwrap_or(0);
    card(bytes(peak), "peak memory");
    out.push_str("</div>");
}

fn sizes(out: &mut String, report: &Report) {
    out.push_str("<h2>Size</h2>");
    let widest = report.totals.source_bytes.max(1) as f64;
    let rows: Vec<(String, u64)> = std::iter::once(("original".to_owned(), report.totals.source_bytes))
        .chain(report.formats.iter().map(|f| (f.format.clone(), f.weight_bytes)))
        .collect();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 900 {}\" role=img aria-label=\"weight bytes\">",
        rows.len() * 30 + 6
    );
    for (i, (name, size)) in rows.iter().enumerate() {
        let (y, width) = (i * 30 + 4, (*size as f64 / widest * 560.0).max(1.0));
        let colour = if i == 0 { "--two" } else { "--bar" };
        let _ = write!(
            out,
            "<text x=0 y={}>{}</text><rect x=150 y={y} width={width:.1} height=22 rx=3 fill=\"var({colour})\"/>\
             <text x={:.1} y={}>{}</text>",
            y + 15,
            escape(name),
            width + 158.0,
            y + 15,
            bytes(*size)
        );
    }
    out.push_str("</svg><div class=scroll><table><tr><th>format<th>all files<th>weights<th>ratio<th>bits per weight</tr>");
    for f in &report.formats {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{:.3}<td>{:.4}</tr>",
            escape(&f.format),
            grouped(f.bytes),
            grouped(f.weight_bytes),
            f.compression_ratio,
            f.bits_per_weight
        );
    }
    out.push_str("</table></div>");
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
}

/// Points of quantized tensors in file order.
fn plot(out: &mut String, label: &str, series: &[(&str, Vec<f64>)]) {
    let all: Vec<f64> = series
        .iter()
        .flat_map(|s| s.1.iter().copied())
        .filter(|v| v.is_finite())
        .collect();
    if all.is_empty() {
        return;
    }
    let (low, high) = all
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let (low, high) = ((low - 0.5).floor(), (high + 0.5).ceil());
    let n = series.iter().map(|s| s.1.len()).max().unwrap_or(1).max(2);
    let x = |i: usize| 50.0 + i as f64 / (n - 1) as f64 * 830.0;
    let y = |v: f64| 200.0 - (v - low) / (high - low).max(1e-9) * 180.0;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 900 226\" role=img aria-label=\"{}\">",
        escape(label)
    );
    for i in 0..=4 {
        let v = low + (high - low) * f64::from(i) / 4.0;
        let _ = write!(
            out,
            "<line x1=50 x2=880 y1={0:.1} y2={0:.1} stroke=\"var(--line)\"/><text x=0 y={1:.1}>{v:.1}</text>",
            y(v),
            y(v) + 4.0
        );
    }
    for (k, (name, values)) in series.iter().enumerate() {
        let colour = if k == 0 { "--bar" } else { "--two" };
        for (i, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let _ = write!(
                out,
                "<circle cx={:.1} cy={:.1} r=2.4 fill=\"var({colour})\"/>",
                x(i),
                y(*v)
            );
        }
        let at = 60 + k * 220;
        let _ = write!(
            out,
            "<circle cx={at} cy=218 r=4 fill=\"var({colour})\"/><text x={} y=222>{}</text>",
            at + 10,
            escape(name)
        );
    }
    out.push_str("</svg>");
}

fn changed(report: &Report) -> Vec<&TensorReport> {
    report.tensors.iter().filter(|t| t.compressed).collect()
}

fn snr_plot(out: &mut String, report: &Report) {
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
    plot(
        out,
        "signal to noise",
        &[("measured", measured), ("s²/12 prediction", predicted.collect())],
    );
}

fn entropy_plot(out: &mut String, report: &Report) {
    let tensors = changed(report);
    if tensors.is_empty() {
        return;
    }
    out.push_str("<h2>Entropy by tensor</h2><p>Bits per weight an ideal zero-order coder would need, in file order.</p>");
    let source = tensors.iter().map(|t| t.source_entropy_bits).collect();
    let codes = tensors.iter().map(|t| t.code_entropy_bits).collect();
    plot(out, "entropy", &[("codes", codes), ("original", source)]);
}

fn tensor_table(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Tensors</h2><div class=scroll><table><tr><th>name<th>shape<th>from<th>to<th>H(W)<th>H(codes)<th>MSE\
         <th>s²/12<th>SNR dB<th>max error</tr>",
    );
    for t in &report.tensors {
        let shape: Vec<String> = t.shape.iter().map(ToString::to_string).collect();
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.3}<td>{:.3}<td>{:.3e}<td>{}<td>{}<td>{:.2e}</tr>",
            escape(&t.name),
            shape.join("×"),
            escape(&t.source_dtype),
            escape(&t.kind),
            t.source_entropy_bits,
            t.code_entropy_bits,
            t.mse,
            t.predicted_mse.map_or("–".into(), |v| format!("{v:.3e}")),
            t.snr_db.map_or("exact".into(), |v| format!("{v:.2}")),
            t.max_abs_error
        );
    }
    out.push_str("</table></div>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn bytes(n: u64) -> String {
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

fn grouped(n: u64) -> String {
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
