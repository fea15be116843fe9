//! The table at the end of a local run.
//!
//! Owns: wording and units.
//! Must not know: where the numbers come from.
//! Invariant: exact bytes stand beside rounded ones.

use std::fmt::Write as _;
use std::path::Path;

use modelpress_engine::evaluate::{Measure, Quality};
use modelpress_engine::{ModelSummary, Outcome, Usage};

/// Before and after, a line an artifact.
pub(super) fn table(model: &ModelSummary, outcome: &Outcome, usage: Usage, out: &Path) -> String {
    let mut text = String::new();
    let architecture = model.architecture.as_deref().unwrap_or("unknown architecture");
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<18} {value}");
    };
    line(
        "model",
        format!("{architecture}, {} weights", grouped(model.parameter_count)),
    );
    line("before", size(model.bytes));
    for format in &outcome.report.formats {
        let (ratio, bits) = (format.compression_ratio, format.bits_per_weight);
        let value = format!(
            "{}, weights {ratio:.2} times smaller, {bits:.3} bits per weight",
            size(format.bytes)
        );
        line(&format.format, value);
    }
    if let Some(quality) = &outcome.report.quality {
        line("quality", measured(quality));
    }
    line(
        "time",
        format!(
            "{:.1} s wall, {:.1} s CPU",
            usage.elapsed_seconds, usage.cpu_seconds
        ),
    );
    line("peak memory", size(usage.peak_rss_bytes));
    line("written to", out.display().to_string());
    text.trim_end().to_owned()
}

/// Every measure in one line; of the layers, the one that is furthest off.
fn measured(quality: &Quality) -> String {
    let measure = |m: &Measure| match m.before {
        Some(before) => format!("{} {before:.4} before, {:.4} after", m.metric, m.after),
        None => format!("{} {:.6}", m.metric, m.after),
    };
    let mut parts: Vec<String> = quality.measures.iter().map(measure).collect();
    let worst = quality
        .layers
        .iter()
        .max_by(|a, b| a.relative_error.total_cmp(&b.relative_error));
    parts.extend(worst.map(|l| format!("layer_error at most {:.3e} (block {})", l.relative_error, l.block)));
    format!("{} ({} sequences)", parts.join("; "), quality.sequences)
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let exact = format!("{} bytes", grouped(bytes));
    match UNITS.into_iter().find(|(_, factor)| bytes as f64 >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit} ({exact})", bytes as f64 / factor),
        None => exact,
    }
}

pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let groups = digits.as_bytes()[first..].chunks(3).map(String::from_utf8_lossy);
    let head = (first > 0).then(|| digits[..first].into());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{Measure, Quality, grouped, measured, size};

    #[test]
    fn quality_is_one_line() {
        let quality = Quality {
            sequences: 40,
            measures: vec![Measure {
                metric: "perplexity".into(),
                before: Some(22.875),
                after: 23.5,
                interval: [23.0, 24.0],
                change: Some(0.0273),
                change_interval: Some([0.02, 0.03]),
            }],
            ..Quality::default()
        };
        assert_eq!(
            measured(&quality),
            "perplexity 22.8750 before, 23.5000 after (40 sequences)"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(134_515_008), "134,515,008");
        assert_eq!(size(1_500_000), "1.5 MB (1,500,000 bytes)");
        assert_eq!(size(0), "0 bytes");
    }
}
