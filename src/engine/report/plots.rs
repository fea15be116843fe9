//! The plots of a report, each a file of its own.
//!
//! Owns: their names, what makes a drawing of the page stand alone, pictures of it. Must not know: how numbers were
//! measured.
//! Invariant: a drawing is well-formed XML that refers to nothing.

use super::{Report, analysis, choice, html, map, quality, waterfall};
use crate::analyze::Analysis;
use crate::error::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, LazyLock};

/// A plot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// Its name, as in a file's name.
    pub name: &'static str,
    /// The drawing, as SVG.
    pub svg: String,
}

/// A function that draws on a page.
type Draw<T> = fn(&mut String, &T);

const REPORT: [(&str, Draw<Report>); 7] = [
    ("sizes", waterfall::drawing),
    ("snr", html::snr_plot),
    ("entropy", html::entropy_plot),
    ("bits", map::bits),
    ("errors", map::errors),
    ("layer-errors", quality::layers),
    ("budget", choice::rate_distortion),
];

const ANALYSIS: [(&str, Draw<Analysis>); 2] = [
    ("rate-distortion", analysis::plane),
    ("sensitivity", analysis::sensitivity),
];

/// The plots that this report has.
pub fn plots(report: &Report) -> Vec<Plot> {
    drawn(&REPORT, report)
}

/// The plots that this analysis has.
pub fn analysis_plots(analysis: &Analysis) -> Vec<Plot> {
    drawn(&ANALYSIS, analysis)
}

fn drawn<T>(all: &[(&'static str, Draw<T>)], of: &T) -> Vec<Plot> {
    let plot = |(name, draw): &(&'static str, Draw<T>)| {
        let mut page = String::new();
        draw(&mut page, of);
        Some(Plot {
            name,
            svg: alone(&page)?,
        })
    };
    all.iter().filter_map(plot).collect()
}

/// The colours of the page in daylight: what stands alone cannot ask the reader's screen.
const COLOURS: [(&str, &str); 4] = [
    ("var(--line)", "#d9dfe5"),
    ("var(--bar)", "#2f6fde"),
    ("var(--two)", "#d9822b"),
    ("var(--dim)", "#5b6670"),
];

/// Around a drawing.
const MARGIN: f64 = 16.0;

/// The first drawing of a page as a file of its own: its size, its colours, its letters, white paper.
pub(super) fn alone(page: &str) -> Option<String> {
    let begin = page.find("<svg ")?;
    let end = begin + page[begin..].find("</svg>")?;
    let (head, body) = page[begin..end].split_once('>')?;
    let (_, rest) = head.split_once("viewBox=\"0 0 ")?;
    let (size, rest) = rest.split_once('"')?;
    let (width, height) = size.split_once(' ')?;
    let (width, height): (f64, f64) = (width.parse().ok()?, height.parse().ok()?);
    let (wide, high) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
    let mut body = body.to_owned();
    for (name, colour) in COLOURS {
        body = body.replace(name, colour);
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"-{MARGIN} -{MARGIN} {wide} \
         {high}\"{rest}><style>text{{fill:#5b6670;font:11px 'DejaVu Sans',sans-serif}}</style><rect x=\"-{MARGIN}\" \
         y=\"-{MARGIN}\" width=\"{wide}\" height=\"{high}\" fill=\"#ffffff\"/>{body}</svg>\n"
    ))
}

/// Letters for pictures: servers have none of their own.
static LETTERS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut letters = fontdb::Database::new();
    letters.load_font_data(dejavu::sans::regular().to_vec());
    Arc::new(letters)
});

/// Dots for each unit of a drawing.
const SCALE: f32 = 2.0;

impl Plot {
    /// The same as a picture (PNG), two dots for each unit.
    pub fn png(&self) -> Result<Vec<u8>> {
        let options = Options {
            font_family: "DejaVu Sans".to_owned(),
            fontdb: LETTERS.clone(),
            ..Options::default()
        };
        let wrong = |cause: &dyn std::fmt::Display| Error::internal(format!("plot {}: {cause}", self.name));
        let tree = Tree::from_str(&self.svg, &options).map_err(|e| wrong(&e))?;
        let size = tree.size().to_int_size().scale_by(SCALE);
        let size = size.ok_or_else(|| wrong(&"no size"))?;
        let mut picture =
            Pixmap::new(size.width(), size.height()).ok_or_else(|| wrong(&"too large a picture"))?;
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
        picture.encode_png().map_err(|e| wrong(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::tests::report;

    /// Whatever a model calls its tensors, the drawings are XML, and pictures can be made of them.
    #[test]
    fn every_plot_stands_alone() {
        let mut report = report();
        report.tensors[0].name = "blk.0.\u{1}<up>\"&\u{7f}.weight".to_owned();
        report.formats[0].format = "a<b>".to_owned();
        let found = plots(&report);
        let names: Vec<&str> = found.iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["sizes", "snr", "entropy", "bits", "errors"]);
        for plot in &found {
            assert!(
                !plot.svg.contains("var(") && !plot.svg.contains("http://www.w3.org/1999"),
                "{}",
                plot.svg
            );
            let picture = plot.png().unwrap();
            assert_eq!(&picture[1..4], b"PNG");
            // Letters and marks: more than white paper.
            assert!(picture.len() > 2000, "{}: {} bytes", plot.name, picture.len());
        }
    }

    #[test]
    fn a_page_without_a_drawing_gives_none() {
        assert_eq!(alone("<h2>nothing</h2>"), None);
    }
}
