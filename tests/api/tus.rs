//! Uploads as clients of tus 1.0 and of the IETF's draft of resumable uploads make them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::small;

const BYTES: &str = "application/offset+octet-stream";

fn tus(app: &TestApp, method: Method, path: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let request = app.request(method, path).header("tus-resumable", "1.0.0");
    headers
        .iter()
        .fold(request, |r, (name, value)| r.header(*name, *value))
}

async fn sent(request: RequestBuilder) -> Response {
    let response = request.send().await.expect("answers");
    assert_eq!(response.headers()["tus-resumable"], "1.0.0", "on every answer");
    response
}

fn says(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).expect(name);
    value.to_str().expect("text").to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256 {}", STANDARD.encode(Sha256::digest(bytes)))
}

#[tokio::test]
async fn a_tus_client_learns_what_the_server_speaks() {
    let app = TestApp::start().await;
    let response = sent(app.request(Method::OPTIONS, "/v1/uploads")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(says(&response, "tus-version"), "1.0.0");
    assert_eq!(says(&response, "tus-checksum-algorithm"), "sha1,sha256");
    for extension in [
        "creation",
        "creation-with-upload",
        "checksum",
        "expiration",
        "termination",
    ] {
        let all = says(&response, "tus-extension");
        assert!(all.split(',').any(|e| e == extension), "{extension}");
    }
    assert!(says(&response, "upload-limit").starts_with("max-size="));

    let later = app
        .request(Method::POST, "/v1/uploads")
        .header("tus-resumable", "2.0.0")
        .header("upload-length", 3);
    let later = sent(later).await;
    assert_eq!(says(&later, "tus-version"), "1.0.0");
    problem(later, 412, "tus_version").await;
}

#[tokio::test]
async fn pieces_with_checksums_become_a_file_of_a_model() {
    let app = TestApp::start().await;
    let bytes = small();
    let length = bytes.len().to_string();
    let metadata = "filename bW9kZWwuc2FmZXRlbnNvcnM=,private";
    let created = sent(tus(
        &app,
        Method::POST,
        "/v1/uploads",
        &[("upload-length", &length), ("upload-metadata", metadata)],
    ))
    .await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert!(says(&created, "upload-expires").ends_with(" GMT"));
    let at = says(&created, "location");

    let piece = |offset: &'static str, sum: String, body: &[u8]| {
        let headers = [
            ("content-type", BYTES),
            ("upload-offset", offset),
            ("upload-checksum", &sum),
        ];
        tus(&app, Method::PATCH, &at, &headers).body(body.to_vec())
    };
    let damaged = sent(piece("0", sha256(&bytes[..100]), &bytes[1..101])).await;
    problem(damaged, 460, "checksum_mismatch").await;
    let stands = sent(tus(&app, Method::HEAD, &at, &[])).await;
    assert_eq!(says(&stands, "upload-offset"), "0", "a damaged piece is dropped");
    assert_eq!(says(&stands, "upload-metadata"), metadata);
    assert_eq!(says(&stands, "upload-length"), length);
    assert_eq!(says(&stands, "cache-control"), "no-store");

    let first = sent(piece("0", sha256(&bytes[..100]), &bytes[..100])).await;
    assert_eq!(first.status(), StatusCode::NO_CONTENT);
    assert_eq!(says(&first, "upload-offset"), "100");
    let wrong_place = sent(piece("0", sha256(&bytes[..100]), &bytes[..100])).await;
    problem(wrong_place, 409, "offset_mismatch").await;
    let rest = sent(piece("100", sha256(&bytes[100..]), &bytes[100..])).await;
    assert_eq!(says(&rest, "upload-offset"), length);

    let id = at.rsplit('/').next().expect("an id");
    let files = json!({"files": [{"name": "model.safetensors", "upload": id}]});
    let model = json_of(app.post("/v1/models", &files).await, StatusCode::CREATED).await;
    assert_eq!(model["status"], "ready");
}

#[tokio::test]
async fn an_upload_may_begin_with_bytes_and_without_a_length() {
    let app = TestApp::start().await;
    let bytes = small();
    let create = [("upload-defer-length", "1"), ("content-type", BYTES)];
    let created = sent(tus(&app, Method::POST, "/v1/uploads", &create).body(bytes[..50].to_vec())).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(says(&created, "upload-offset"), "50");
    let at = says(&created, "location");
    let stands = sent(tus(&app, Method::HEAD, &at, &[])).await;
    assert_eq!(says(&stands, "upload-defer-length"), "1");

    let length = bytes.len().to_string();
    let end = [
        ("content-type", BYTES),
        ("upload-offset", "50"),
        ("upload-length", &length),
    ];
    let ended = sent(tus(&app, Method::PATCH, &at, &end).body(bytes[50..].to_vec())).await;
    assert_eq!(says(&ended, "upload-complete"), "?1");
    let upload = json_of(app.get(&at).await, StatusCode::OK).await;
    assert_eq!(upload["status"], "complete");
    let all = json_of(
        app.post("/v1/uploads", &json!({"length": bytes.len()})).await,
        StatusCode::CREATED,
    )
    .await;
    let all = format!("/v1/uploads/{}", text(&all["id"]));
    let once = [("content-type", BYTES), ("upload-offset", "0")];
    sent(tus(&app, Method::PATCH, &all, &once).body(bytes)).await;
    let same = json_of(app.get(&all).await, StatusCode::OK).await;
    assert_eq!(upload["digest"], same["digest"], "as if it had come in one piece");
}

#[tokio::test]
async fn wrong_tus_requests_are_refused_with_what_would_be_right() {
    let app = TestApp::start().await;
    let create = |headers: &[(&str, &str)]| sent(tus(&app, Method::POST, "/v1/uploads", headers));
    for headers in [
        &[][..],
        &[("upload-length", "5"), ("upload-defer-length", "1")],
        &[("upload-defer-length", "2")],
        &[("upload-length", "five")],
        &[("upload-length", "5"), ("upload-metadata", "a b*")],
        &[("upload-length", "5"), ("upload-checksum", "md5 AAAA")],
    ] {
        problem(create(headers).await, 400, "header_invalid").await;
    }
    let huge = create(&[("upload-length", "9999999999999999")]).await;
    problem(huge, 413, "too_large").await;

    let at = says(&create(&[("upload-length", "5")]).await, "location");
    let patch = |headers: &[(&str, &str)]| sent(tus(&app, Method::PATCH, &at, headers).body("hello"));
    let untyped = patch(&[("upload-offset", "0"), ("content-type", "text/plain")]).await;
    problem(untyped, 415, "unsupported_media_type").await;
    let other = patch(&[
        ("upload-offset", "0"),
        ("content-type", BYTES),
        ("upload-length", "6"),
    ])
    .await;
    problem(other, 400, "header_invalid").await;
}

#[tokio::test]
async fn a_client_that_may_only_post_names_the_method_it_means() {
    let app = TestApp::start().await;
    let created = sent(tus(&app, Method::POST, "/v1/uploads", &[("upload-length", "9")])).await;
    let at = says(&created, "location");
    let post = |meant: &str, more: &[(&str, &str)]| {
        tus(&app, Method::POST, &at, more).header("x-http-method-override", meant)
    };
    let piece = [("content-type", BYTES), ("upload-offset", "0")];
    let patched = sent(post("PATCH", &piece).body("hello")).await;
    assert_eq!(
        (patched.status(), says(&patched, "upload-offset").as_str()),
        (StatusCode::NO_CONTENT, "5")
    );
    assert_eq!(says(&sent(post("HEAD", &[])).await, "upload-offset"), "5");
    problem(sent(post("PUT", &[])).await, 400, "header_invalid").await;
    assert_eq!(sent(post("DELETE", &[])).await.status(), StatusCode::NO_CONTENT);
    let gone = sent(tus(&app, Method::HEAD, &at, &[])).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_drafts_clients_may_send_everything_at_once_or_go_on() {
    let app = TestApp::start().await;
    let bytes = small();
    let post = |complete: &str, body: &[u8]| {
        app.request(Method::POST, "/v1/uploads")
            .header("upload-complete", complete)
            .body(body.to_vec())
            .send()
    };
    let whole = post("?1", &bytes).await.expect("answers");
    assert_eq!(
        (whole.status(), says(&whole, "upload-complete").as_str()),
        (StatusCode::CREATED, "?1")
    );

    let begun = post("?0", &bytes[..80]).await.expect("answers");
    assert_eq!(says(&begun, "upload-complete"), "?0");
    assert!(says(&begun, "upload-limit").contains("max-age="));
    let ended = app
        .request(Method::PATCH, &says(&begun, "location"))
        .header("content-type", "application/partial-upload")
        .header("upload-offset", 80)
        .header("upload-complete", "?1")
        .body(bytes[80..].to_vec());
    let ended = ended.send().await.expect("answers");
    assert_eq!(says(&ended, "upload-complete"), "?1");
    let digest = |response: Response| async { text(&json_of(response, StatusCode::OK).await["digest"]) };
    assert_eq!(
        digest(app.get(&says(&begun, "location")).await).await,
        digest(app.get(&says(&whole, "location")).await).await,
        "the same bytes"
    );
}
