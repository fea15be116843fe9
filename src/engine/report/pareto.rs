//! Several results on one model: their plane of size and loss, and a page about them.
//!
//! Owns: the drawing, the page. Must not know: where results come from, which of them are worth having.
//! Invariant: every text is escaped; a result without a loss is in the table and not on the plane.

use super::Plot;
use super::html::{begin, bytes, escape, grouped};
use super::plots::alone;
use std::fmt::Write as _;

/// What came of one recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParetoPoint {
    /// What it is called.
    pub name: String,
    /// Its techniques.
    pub technique: String,
    /// What became of it, and why where it did not end well.
    pub status: String,
    /// Bytes of all files.
    pub bytes: Option<u64>,
    /// `8 · weight bytes / parameters`.
    pub bits_per_weight: Option<f64>,
    /// Bytes of the source's tensors by those of the result.
    pub compression_ratio: Option<f64>,
    /// What is lost.
    pub loss: Option<f64>,
    /// Tokens a second that an engine decodes.
    pub decode_tokens_per_second: Option<f64>,
    /// Seconds that it took.
    pub seconds: Option<f64>,
    /// Whether no other result beats it.
    pub on_front: bool,
    /// What it is best for.
    pub best_for: Option<String>,
}

/// The page about several results, whose losses are of this metric.
pub fn pareto_html(title: &str, metric: Option<&str>, points: &[ParetoPoint]) -> String {
    let mut out = String::new();
    begin(&mut out, &format!("{title} — modelpress"));
    let worth = points.iter().filter(|point| point.on_front).count();
    let _ = write!(
        out,
        "<h1>{}</h1><p>{} recipes, {worth} of them worth having: no other is better in everything.</p>",
        escape(title),
        points.len()
    );
    plane(&mut out, metric, points);
    table(&mut out, metric, points);
    out.push_str("</body></html>\n");
    out
}

/// The plane by itself; none where nothing is on it.
pub fn pareto_plot(metric: Option<&str>, points: &[ParetoPoint]) -> Option<Plot> {
    let mut page = String::new();
    plane(&mut page, metric, points);
    let svg = alone(&page)?;
    Some(Plot { name: "front", svg })
}

/// A point that has both.
struct Placed<'a> {
    bytes: f64,
    loss: f64,
    point: &'a ParetoPoint,
}

fn plane(out: &mut String, metric: Option<&str>, points: &[ParetoPoint]) {
    let placed: Vec<Placed<'_>> = points
        .iter()
        .filter_map(|point| {
            Some(Placed {
                bytes: point.bytes? as f64,
                loss: point.loss.filter(|loss| loss.is_finite())?,
                point,
            })
        })
        .collect();
    if placed.is_empty() {
        return;
    }
    let span = |values: &dyn Fn(&Placed<'_>) -> f64| {
        placed
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), one| {
                (low.min(values(one)), high.max(values(one)))
            })
    };
    let ((left, right), (low, high)) = (span(&|one| one.bytes), span(&|one| one.loss));
    let low = low.min(0.0);
    let x = |size: f64| 90.0 + (size - left) / (right - left).max(1.0) * 700.0;
    let y = |loss: f64| 300.0 - (loss - low) / (high - low).max(f64::MIN_POSITIVE) * 270.0;
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 900 350\" role=\"img\" aria-label=\"size and loss of every recipe\">\
         <text x=\"0\" y=\"12\">{}</text>",
        escape(&loss_words(metric))
    );
    for part in 0..=4 {
        let loss = low + (high - low) * f64::from(part) / 4.0;
        let at = y(loss);
        let _ = write!(
            out,
            "<line x1=\"80\" x2=\"880\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"0\" y=\"{:.1}\">{}</text>",
            at + 4.0,
            loss_text(metric, loss)
        );
    }
    for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let size = left + (right - left) * part;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"325\" text-anchor=\"{anchor}\">{}</text>",
            x(size),
            bytes(size as u64)
        );
    }
    front_line(out, &placed, &x, &y);
    for one in &placed {
        let (cx, cy) = (x(one.bytes), y(one.loss));
        let look = if one.point.on_front {
            "r=\"5\" fill=\"var(--bar)\""
        } else {
            "r=\"4\" fill=\"none\" stroke=\"var(--two)\" stroke-width=\"2\""
        };
        let _ = write!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" {look}><title>{}: {} bytes, {}</title></circle>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            escape(&one.point.name),
            grouped(one.bytes as u64),
            loss_text(metric, one.loss),
            cx + 8.0,
            cy - 6.0,
            escape(&one.point.name)
        );
    }
    out.push_str("<text x=\"470\" y=\"345\" text-anchor=\"middle\">all files; filled points are worth having</text></svg></div>");
}

/// Through the points that are worth having, from the smallest to the largest.
fn front_line(out: &mut String, placed: &[Placed<'_>], x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let mut front: Vec<&Placed<'_>> = placed.iter().filter(|one| one.point.on_front).collect();
    front.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
    let line: Vec<String> = front
        .iter()
        .map(|one| format!("{:.1},{:.1}", x(one.bytes), y(one.loss)))
        .collect();
    let _ = write!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--bar)\"/>",
        line.join(" ")
    );
}

/// What the loss is of, among people.
fn loss_words(metric: Option<&str>) -> String {
    match metric {
        Some("perplexity") => "perplexity, by how much it grew".to_owned(),
        Some("accuracy") => "accuracy, by how much it fell".to_owned(),
        Some("kl") => super::quality::words("kl").to_owned(),
        Some(other) => format!("{}, by how much it fell short of 1", super::quality::words(other)),
        None => "loss".to_owned(),
    }
}

fn loss_text(metric: Option<&str>, loss: f64) -> String {
    match metric {
        Some("kl") | None => format!("{loss:.4}"),
        Some(_) => format!("{:.2} %", 100.0 * loss),
    }
}

fn table(out: &mut String, metric: Option<&str>, points: &[ParetoPoint]) {
    let timed = points
        .iter()
        .any(|point| point.decode_tokens_per_second.is_some());
    let _ = write!(
        out,
        "<div class=scroll><table><tr><th>recipe<th>technique<th>size<th>bits per weight<th>compression<th>{}{}<th>took<th>best for\
         <th>status</tr>",
        escape(&loss_words(metric)),
        if timed { "<th>tokens a second" } else { "" }
    );
    let none = || "–".to_owned();
    for point in points {
        let speed = if timed {
            let speed = point.decode_tokens_per_second;
            format!("<td>{}", speed.map_or_else(none, |speed| format!("{speed:.1}")))
        } else {
            String::new()
        };
        let best = match (&point.best_for, point.on_front) {
            (Some(what), _) => what.as_str(),
            (None, true) => "worth having",
            (None, false) => "",
        };
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}{speed}<td>{}<td>{}<td>{}</tr>",
            escape(&point.name),
            escape(&point.technique),
            point.bytes.map_or_else(none, bytes),
            point
                .bits_per_weight
                .map_or_else(none, |bits| format!("{bits:.3}")),
            point
                .compression_ratio
                .map_or_else(none, |ratio| format!("{ratio:.2}×")),
            point.loss.map_or_else(none, |loss| loss_text(metric, loss)),
            point
                .seconds
                .map_or_else(none, |seconds| format!("{seconds:.1} s")),
            escape(best),
            escape(&point.status),
        );
    }
    out.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, bytes: u64, loss: f64, on_front: bool) -> ParetoPoint {
        ParetoPoint {
            name: name.to_owned(),
            technique: "ggml".to_owned(),
            status: "succeeded".to_owned(),
            bytes: Some(bytes),
            loss: Some(loss),
            on_front,
            best_for: on_front.then(|| "size".to_owned()),
            ..ParetoPoint::default()
        }
    }

    #[test]
    fn results_lie_where_their_numbers_say_and_the_others_are_told() {
        let refused = ParetoPoint {
            name: "<W4>".to_owned(),
            status: "refused: no & never".to_owned(),
            ..ParetoPoint::default()
        };
        let points = [
            point("Q4", 100, 0.4, true),
            point("Q8", 300, 0.0, true),
            point("Q6", 200, 0.4, false),
            refused,
        ];
        let page = pareto_html("Search", Some("kl"), &points);
        for text in [
            "4 recipes, 2 of them worth having",
            "<circle cx=\"90.0\" cy=\"30.0\" r=\"5\"",
            "<circle cx=\"440.0\" cy=\"30.0\" r=\"4\" fill=\"none\"",
            "points=\"90.0,30.0 790.0,300.0\"",
            "&lt;W4&gt;",
            "refused: no &amp; never",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(
            !page.contains("tokens a second") && !page.contains("<W4>"),
            "{page}"
        );
        let plot = pareto_plot(Some("kl"), &points).unwrap();
        assert!(plot.png().is_ok());
        assert_eq!(pareto_plot(None, &[]), None);
        assert!(pareto_html("Search", None, &[]).contains("0 recipes"));
    }

    #[test]
    fn losses_are_in_the_metrics_own_words() {
        let mut one = point("Q4", 100, 0.0123, true);
        one.decode_tokens_per_second = Some(41.25);
        let page = pareto_html("Search", Some("perplexity"), &[one]);
        assert!(
            page.contains("1.23 %") && page.contains("by how much it grew"),
            "{page}"
        );
        assert!(
            page.contains("<th>tokens a second") && page.contains("<td>41.2"),
            "{page}"
        );
    }
}
