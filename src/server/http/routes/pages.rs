//! `/`, `/docs` and their assets.
//!
//! Owns: headers of embedded files.
//! Must not know: what the files hold.
//! Invariant: every page carries the strict policy.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use crate::dashboard::{ASSETS, Asset, DOCS, HOME, POLICY};
use crate::http::conditional::{self, Answer};
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// The page routes; they are no part of the API.
pub fn routes() -> axum::Router<AppState> {
    axum::Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { serve(&HOME, &headers) }),
        )
        .route(
            "/docs",
            get(|headers: HeaderMap| async move { serve(&DOCS, &headers) }),
        )
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.path == name);
    asset
        .map(|asset| serve(asset, &headers))
        .ok_or_else(|| Problem::not_found("asset", &name))
}

fn serve(asset: &Asset, request: &HeaderMap) -> Response {
    let digest = Sha256::digest(asset.text.as_bytes());
    let etag = format!(
        "\"{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}\"",
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5]
    );
    let mut response = match conditional::decide(request, &etag, asset.text.len() as u64) {
        Answer::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        _ => asset.text.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}
