//! Pages and plots of reports as answers.
//!
//! Owns: their types, and what a browser lets them do.
//! Must not know: what they show.
//! Invariant: what is drawn has its style in it, and loads and runs nothing.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use modelpress_engine::report::Plot;

use super::problem::Problem;

/// Its own style and drawings, and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// A page.
pub fn page(html: String) -> Response {
    with_policy(Html(html).into_response())
}

/// What a plot is wanted as.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A drawing.
    Svg,
    /// A picture.
    Png,
}

/// A plot's name and kind, as they stand at the end of a path: `sizes.svg`.
pub fn wanted(text: &str) -> Option<(&str, Kind)> {
    let (name, kind) = text.rsplit_once('.')?;
    match kind {
        "svg" => Some((name, Kind::Svg)),
        "png" => Some((name, Kind::Png)),
        _ => None,
    }
}

/// A plot; a picture takes a moment to make.
pub fn plot(plot: &Plot, kind: Kind) -> Result<Response, Problem> {
    let (media, bytes) = match kind {
        Kind::Svg => ("image/svg+xml", plot.svg.clone().into_bytes()),
        Kind::Png => ("image/png", plot.png().map_err(Problem::internal)?),
    };
    let mut response = bytes.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(with_policy(response))
}

fn with_policy(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
