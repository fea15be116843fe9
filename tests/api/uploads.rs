//! Uploads by offset.

use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::small;

async fn begin(app: &TestApp, length: Option<usize>) -> String {
    let body = length.map_or(json!({}), |length| json!({"length": length}));
    let response = app.post("/v1/uploads", &body).await;
    assert_eq!(response.headers()["upload-offset"], "0");
    let upload = json_of(response, StatusCode::CREATED).await;
    assert_eq!(upload["status"], "open");
    text(&upload["id"])
}

async fn patch(
    app: &TestApp,
    id: &str,
    offset: usize,
    body: impl Into<reqwest::Body>,
    more: &[(&str, &str)],
) -> Response {
    let request = app
        .request(Method::PATCH, &format!("/v1/uploads/{id}"))
        .header("content-type", "application/offset+octet-stream")
        .header("upload-offset", offset)
        .body(body);
    more.iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .send()
        .await
        .expect("answers")
}

async fn head(app: &TestApp, id: &str) -> Response {
    app.request(Method::HEAD, &format!("/v1/uploads/{id}"))
        .send()
        .await
        .expect("answers")
}

#[tokio::test]
async fn pieces_become_a_file_of_a_model() {
    let app = TestApp::start().await;
    let bytes = small();
    let id = begin(&app, Some(bytes.len())).await;
    let first = patch(&app, &id, 0, bytes[..1000].to_vec(), &[]).await;
    assert_eq!(
        (first.status(), first.headers()["upload-offset"].clone()),
        (StatusCode::NO_CONTENT, "1000".parse().expect("header"))
    );
    assert_eq!(first.headers()["upload-complete"], "?0");
    let stands = head(&app, &id).await;
    assert_eq!(stands.headers()["upload-offset"], "1000");
    assert_eq!(
        stands.headers()["upload-length"],
        bytes.len().to_string().as_str()
    );
    assert_eq!(stands.headers()["cache-control"], "no-store");
    let last = patch(&app, &id, 1000, bytes[1000..].to_vec(), &[]).await;
    assert_eq!(last.headers()["upload-complete"], "?1");
    let upload = json_of(app.get(&format!("/v1/uploads/{id}")).await, StatusCode::OK).await;
    assert_eq!(
        (upload["status"].as_str(), upload["offset"].as_u64()),
        (Some("complete"), Some(bytes.len() as u64))
    );
    problem(
        patch(&app, &id, bytes.len(), "more", &[]).await,
        409,
        "upload_complete",
    )
    .await;

    let body = json!({"files": [{"name": "model.safetensors", "upload": id}]});
    let model = json_of(app.post("/v1/models", &body).await, StatusCode::CREATED).await;
    assert_eq!(model["status"], "ready");
    problem(app.get(&format!("/v1/uploads/{id}")).await, 404, "not_found").await;
}

#[tokio::test]
async fn a_wrong_offset_is_told_the_right_one() {
    let app = TestApp::start().await;
    let id = begin(&app, Some(10)).await;
    patch(&app, &id, 0, "abc", &[]).await;
    for offset in [0, 2, 4] {
        let response = patch(&app, &id, offset, "def", &[]).await;
        assert_eq!(response.headers()["upload-offset"], "3");
        assert_eq!(
            problem(response, 409, "offset_mismatch").await["expected_offset"],
            3
        );
    }
    let missing = app
        .request(Method::PATCH, &format!("/v1/uploads/{id}"))
        .body("x")
        .send()
        .await
        .expect("answers");
    problem(missing, 400, "header_invalid").await;
    let wrong = app
        .request(Method::PATCH, &format!("/v1/uploads/{id}"))
        .header("upload-offset", "-1")
        .body("x")
        .send()
        .await;
    problem(wrong.expect("answers"), 400, "header_invalid").await;
    let wrong = app
        .request(Method::PATCH, &format!("/v1/uploads/{id}"))
        .header("upload-offset", 3)
        .header("content-type", "application/json");
    problem(
        wrong.body("x").send().await.expect("answers"),
        415,
        "unsupported_media_type",
    )
    .await;
    assert_eq!(head(&app, &id).await.headers()["upload-offset"], "3");
}

#[tokio::test]
async fn what_arrived_before_the_break_is_kept() {
    let app = TestApp::start().await;
    let id = begin(&app, Some(11)).await;
    let mut socket = tokio::net::TcpStream::connect(app.address)
        .await
        .expect("connects");
    let request = format!(
        "PATCH /v1/uploads/{id} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nContent-Length: 11\r\n\r\nhello "
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    // The connection hangs; asking for the offset ends it and answers what is durable.
    let offset = loop {
        let answer = head(&app, &id).await;
        // The bytes came while it waited: then the newer request has the upload.
        let offset = if answer.status() == StatusCode::CONFLICT {
            continue;
        } else {
            let offset = answer.headers()["upload-offset"].to_str();
            offset.expect("ASCII").to_owned()
        };
        if offset == "6" {
            break offset;
        }
        // The server had not read the bytes yet, and its request is over now: send them again.
        socket = tokio::net::TcpStream::connect(app.address)
            .await
            .expect("connects");
        socket.write_all(request.as_bytes()).await.expect("sent");
    };
    assert_eq!(offset, "6");
    let end = patch(&app, &id, 6, "world", &[]).await;
    assert_eq!(end.headers()["upload-complete"], "?1");
}

#[tokio::test]
async fn an_upload_of_unknown_length_ends_when_the_client_says_so() {
    let app = TestApp::start().await;
    let id = begin(&app, None).await;
    patch(&app, &id, 0, "{", &[("upload-complete", "?0")]).await;
    let digest = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:";
    let end = patch(
        &app,
        &id,
        1,
        "}",
        &[("upload-complete", "?1"), ("repr-digest", digest)],
    )
    .await;
    assert_eq!(end.headers()["upload-complete"], "?1");
    let empty = json_of(
        app.post("/v1/uploads", &json!({"length": 0})).await,
        StatusCode::CREATED,
    )
    .await;
    assert_eq!(empty["status"], "complete");
}

#[tokio::test]
async fn wrong_bytes_end_the_upload_and_leave_nothing() {
    let app = TestApp::start().await;
    let id = begin(&app, Some(3)).await;
    let wrong = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:";
    problem(
        patch(&app, &id, 0, "abc", &[("repr-digest", wrong)]).await,
        400,
        "digest_mismatch",
    )
    .await;
    assert_eq!(head(&app, &id).await.status(), StatusCode::NOT_FOUND);
    let id = begin(&app, Some(3)).await;
    problem(patch(&app, &id, 0, "abcd", &[]).await, 413, "too_large").await;
    assert_eq!(head(&app, &id).await.status(), StatusCode::NOT_FOUND);
    let id = begin(&app, Some(3)).await;
    let deleted = app
        .request(Method::DELETE, &format!("/v1/uploads/{id}"))
        .send()
        .await
        .expect("answers");
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(head(&app, &id).await.status(), StatusCode::NOT_FOUND);
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn models_refuse_uploads_that_are_not_there_or_not_complete() {
    let app = TestApp::start().await;
    let open = begin(&app, Some(3)).await;
    for (upload, code) in [
        (open.as_str(), "upload_incomplete"),
        ("upl_nonsense", "unknown_upload"),
    ] {
        let body = json!({"files": [{"name": "a.json", "upload": upload}]});
        let refused = problem(app.post("/v1/models", &body).await, 422, "fields_invalid").await;
        assert_eq!(refused["errors"][0]["code"], code);
        assert_eq!(refused["errors"][0]["pointer"], "/files/0/upload");
    }
    let both = json!({"files": [], "source_path": "/x"});
    problem(app.post("/v1/models", &both).await, 422, "fields_invalid").await;
    problem(
        app.post("/v1/models", &json!({"files": []})).await,
        422,
        "fields_invalid",
    )
    .await;
    problem(
        app.post("/v1/uploads", &json!({"length": 1u64 << 62})).await,
        413,
        "too_large",
    )
    .await;
    problem(
        app.post("/v1/uploads", &json!({"length": -1})).await,
        422,
        "fields_invalid",
    )
    .await;
}
