//! `/`, `/docs` and their assets.
//!
//! Owns: headers of embedded files.
//! Must not know: what the files hold.
//! Invariant: every page carries the strict policy; what may be kept for ever has its version in its path.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};
use tower_http::compression::CompressionLayer;

use crate::dashboard::{self, ASSETS, DOCS, HOME, POLICY};
use crate::domain::model::hex;
use crate::http::conditional::{self, Answer};
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Asked again every time: pages, and assets of a version that is not this one.
const AGAIN: &str = "no-cache";
/// Never asked again.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The page routes; they are no part of the API.
pub fn routes() -> axum::Router<AppState> {
    axum::Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { page(&HOME_TEXT, &headers) }),
        )
        .route(
            "/docs",
            get(|headers: HeaderMap| async move { page(&DOCS_TEXT, &headers) }),
        )
        .route("/assets/{version}/{name}", get(asset))
        .layer(CompressionLayer::new())
}

static HOME_TEXT: LazyLock<String> = LazyLock::new(|| dashboard::page(&HOME));
static DOCS_TEXT: LazyLock<String> = LazyLock::new(|| dashboard::page(&DOCS));

fn page(text: &'static str, headers: &HeaderMap) -> Response {
    serve(text, HOME.content_type, AGAIN, headers)
}

async fn asset(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.path == name);
    let asset = asset.ok_or_else(|| Problem::not_found("asset", &name))?;
    // A page of an older version goes on with what there is now.
    let kept = if version == dashboard::version() {
        FOR_EVER
    } else {
        AGAIN
    };
    Ok(serve(asset.text, asset.content_type, kept, &headers))
}

fn serve(
    text: &'static str,
    content_type: &'static str,
    cache: &'static str,
    request: &HeaderMap,
) -> Response {
    let digest = Sha256::digest(text.as_bytes());
    let etag = format!("\"{}\"", hex(&digest[..6]));
    let mut response = match conditional::decide(request, &etag, text.len() as u64) {
        Answer::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        _ => text.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}
