//! A map of a model: parts down, blocks across, one cell a tensor.
//!
//! Owns: this drawing. Must not know: what the values are.
//! Invariant: every cell has its tensor's name and its numbers as text under the pointer.

use super::html::escape;
use super::{Report, TensorReport};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Mixtures have thousands of experts: their map would be a wall.
const MOST_ROWS: usize = 48;

/// A tensor on the map.
pub(super) struct Cell<'a> {
    pub name: &'a str,
    /// The greater, the fuller its colour.
    pub value: f64,
    /// What stands under the pointer, behind the name.
    pub text: String,
}

/// Name of the part and number of the block: what stands before and behind the first number between dots.
pub(super) fn split(name: &str) -> (String, Option<usize>) {
    let parts: Vec<&str> = name.split('.').collect();
    let at = parts.iter().position(|part| part.parse::<usize>().is_ok());
    let number = at.and_then(|at| parts[at].parse().ok());
    let rest = at.map_or(&parts[..], |at| &parts[at + 1..]);
    (rest.join(".").trim_end_matches(".weight").to_owned(), number)
}

/// The drawing, in that colour; nothing where it would have too many rows or no cells.
pub(super) fn map(out: &mut String, label: &str, colour: &str, cells: &[Cell<'_>]) {
    let mut rows: BTreeMap<String, Vec<(usize, &Cell<'_>)>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.value.is_finite()) {
        let (part, block) = split(cell.name);
        rows.entry(part).or_default().push((block.unwrap_or(0), cell));
    }
    if rows.is_empty() || rows.len() > MOST_ROWS {
        return;
    }
    let placed = || rows.values().flatten();
    let blocks = placed().map(|(block, _)| block + 1).max().unwrap_or(1);
    let values = || placed().map(|(_, cell)| cell.value);
    let (least, most) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    let width = 660.0 / blocks as f64;
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 900 {}\" role=\"img\" aria-label=\"{}\">",
        rows.len() * 24 + 4,
        escape(label)
    );
    for (row, (part, cells)) in rows.iter().enumerate() {
        let top = row * 24;
        let _ = write!(out, "<text x=\"0\" y=\"{}\">{}</text>", top + 16, escape(part));
        for (block, cell) in cells {
            let share = (cell.value - least) / (most - least).max(1e-9);
            let _ = write!(
                out,
                "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"20\" fill=\"var({colour})\" opacity=\"{:.2}\">\
                 <title>{}: {}</title></rect>",
                220.0 + *block as f64 * width,
                (width - 1.0).max(0.5),
                0.15 + 0.85 * share,
                escape(cell.name),
                escape(&cell.text)
            );
        }
    }
    out.push_str("</svg></div>");
}

/// Bits a weight of every matrix; vectors stay as they are, and would outshine them.
pub(super) fn bits(out: &mut String, report: &Report) {
    let shown = |tensor: &&TensorReport| tensor.shape.len() > 1 && tensor.stored_bits_per_weight > 0.0;
    let all = || report.tensors.iter().filter(shown);
    let (least, most) = all().fold((f64::INFINITY, 0.0_f64), |(least, most), tensor| {
        let bits = tensor.stored_bits_per_weight;
        (least.min(bits), most.max(bits))
    });
    if all().next().is_none() {
        return;
    }
    let _ = write!(
        out,
        "<h2>Bits by tensor</h2><p>Bits of each matrix's weights, {least:.2} (pale) to {most:.2} (full): parts down, blocks \
         across.</p>"
    );
    let cells: Vec<Cell<'_>> = all()
        .map(|tensor| Cell {
            name: &tensor.name,
            value: tensor.stored_bits_per_weight,
            text: format!(
                "{}, {:.2} bits a weight",
                tensor.kind, tensor.stored_bits_per_weight
            ),
        })
        .collect();
    map(out, "bits of each matrix's weights", "--bar", &cells);
}

/// Error of every tensor that changed, relative to its own size.
pub(super) fn errors(out: &mut String, report: &Report) {
    let cells: Vec<Cell<'_>> = report
        .tensors
        .iter()
        .filter_map(|tensor| {
            let snr = tensor.snr_db?;
            Some(Cell {
                name: &tensor.name,
                value: -snr,
                text: format!("{snr:.2} dB, {}", tensor.kind),
            })
        })
        .collect();
    if cells.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Error by tensor</h2><p>Signal to noise of each tensor that changed: the fuller, the worse. Parts down, blocks \
         across.</p>",
    );
    map(out, "error of each tensor", "--two", &cells);
}
