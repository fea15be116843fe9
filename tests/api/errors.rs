//! Problems: every error has the same form, and none shows internals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use modelpress_server::config::{ByteSize, Settings};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::app::{TestApp, problem, text};

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let app = TestApp::start().await;
    for path in ["/nowhere", "/v1", "/v1/models/x/y/z", "/v2/jobs"] {
        assert_eq!(
            problem(app.get(path).await, 404, "not_found").await["instance"],
            path
        );
    }
    for (method, path) in [
        (Method::DELETE, "/v1/jobs"),
        (Method::PATCH, "/livez"),
        (Method::PUT, "/v1/models"),
    ] {
        let response = app.request(method, path).send().await.expect("answers");
        assert!(response.headers().contains_key("allow"), "{path}");
        problem(response, 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let app = TestApp::start_with(Settings {
        max_body_bytes: Some(ByteSize(500)),
        ..Settings::default()
    })
    .await;
    for path in ["/v1/models", "/v1/plans", "/v1/jobs", "/v1/uploads"] {
        let send = |kind: &str, body: String| {
            app.request(Method::POST, path)
                .header("content-type", kind)
                .body(body)
                .send()
        };
        problem(
            send("text/plain", "{}".into()).await.expect("answers"),
            415,
            "unsupported_media_type",
        )
        .await;
        let packed = app
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .header("content-encoding", "gzip");
        let packed = packed.body("{}").send().await.expect("answers");
        problem(packed, 415, "unsupported_media_type").await;
        problem(
            send("application/json", "{".into()).await.expect("answers"),
            400,
            "json_invalid",
        )
        .await;
        problem(
            send("application/json", String::new()).await.expect("answers"),
            400,
            "json_invalid",
        )
        .await;
        problem(
            send("application/json", "[]".into()).await.expect("answers"),
            422,
            "fields_invalid",
        )
        .await;
        problem(
            send("application/json", format!("{{\"x\":\"{}\"}}", "x".repeat(600)))
                .await
                .expect("answers"),
            413,
            "too_large",
        )
        .await;
        let deep = format!("{}{}", "[".repeat(240), "]".repeat(240));
        let refused = send("application/json; charset=utf-8", deep)
            .await
            .expect("answers");
        assert!(refused.status().is_client_error());
        let unknown = problem(app.post(path, &json!({"bogus": 1})).await, 422, "fields_invalid").await;
        assert_eq!(
            unknown["errors"][0],
            json!({"pointer": "/bogus", "code": "unknown_field", "detail": unknown["errors"][0]["detail"]})
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let app = TestApp::start_with(Settings {
        max_body_bytes: Some(ByteSize(500)),
        ..Settings::default()
    })
    .await;
    for path in ["/v1/models", "/v1/plans", "/v1/jobs", "/v1/uploads"] {
        let body = format!("{{\"x\":\"{}\"}}", "x".repeat(600)).into_bytes();
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body.chunks(100).map(|c| Ok(c.to_vec())).collect();
        let pieces = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        for body in [body.into(), pieces] {
            let request = app
                .request(Method::POST, path)
                .header("content-type", "application/json");
            let response = request.body(body).send().await.expect("answers");
            let refused = problem(response, 413, "too_large").await;
            assert_eq!(refused["detail"], "the body may have at most 500 bytes");
        }
    }
}

#[tokio::test]
async fn request_ids_are_taken_or_made() {
    let app = TestApp::start().await;
    let given = app
        .request(Method::GET, "/livez")
        .header("x-request-id", "abc-123")
        .send()
        .await
        .expect("answers");
    assert_eq!(given.headers()["x-request-id"], "abc-123");
    for bad in ["has space", &"x".repeat(200), "semi;colon"] {
        let made = app
            .request(Method::GET, "/livez")
            .header("x-request-id", bad)
            .send()
            .await
            .expect("answers");
        assert_ne!(made.headers()["x-request-id"], bad);
    }
    let response = app.get("/livez").await;
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn a_failing_database_shows_nothing_of_itself() {
    let app = TestApp::scripted().await;
    let model = app.model().await;
    app.memory.broken.store(true, Ordering::SeqCst);
    for path in [
        "/v1/models".to_owned(),
        format!("/v1/models/{}", text(&model["id"])),
        "/v1/jobs".to_owned(),
    ] {
        let response = app.get(&path).await;
        assert!(response.headers().contains_key("retry-after"));
        let shown = problem(response, 503, "unavailable").await;
        assert!(!shown.to_string().contains("secret host name"), "{shown}");
    }
    let created = app.post("/v1/models", &json!({})).await;
    problem(created, 503, "unavailable").await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let app = TestApp::start_with(Settings {
        header_timeout_seconds: Some(1),
        ..Settings::default()
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(app.address)
        .await
        .expect("connects");
    socket
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(15), socket.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the server closes the connection");
}

#[tokio::test]
async fn an_upload_that_falls_silent_is_ended() {
    let app = TestApp::start_with(Settings {
        idle_timeout_seconds: Some(1),
        ..Settings::default()
    })
    .await;
    let id = app.draft().await;
    let silent = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let response = app
        .put(
            &format!("/v1/models/{id}/files/a.json"),
            reqwest::Body::wrap_stream(silent),
        )
        .await;
    problem(response, 408, "idle_timeout").await;
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn a_json_body_that_falls_silent_is_ended() {
    let app = TestApp::start_with(Settings {
        request_timeout_seconds: Some(1),
        ..Settings::default()
    })
    .await;
    for path in ["/v1/models", "/v1/jobs"] {
        let silent = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let request = app
            .request(Method::POST, path)
            .header("content-type", "application/json");
        let response = request
            .body(reqwest::Body::wrap_stream(silent))
            .send()
            .await
            .expect("answers");
        assert!(matches!(
            response.status(),
            StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE
        ));
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}

#[tokio::test]
async fn a_request_over_its_time_is_told_so() {
    let app = TestApp::start_with(Settings {
        request_timeout_seconds: Some(1),
        ..Settings::default()
    })
    .await;
    let silent = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = app
        .request(Method::POST, "/v1/plans")
        .header("content-type", "application/json");
    let request = request.body(reqwest::Body::wrap_stream(silent));
    let response = request.send().await.expect("answers");
    assert_eq!(response.headers()["retry-after"], "5");
    let late = problem(response, 503, "request_timeout").await;
    assert_eq!(late["detail"], "no answer within 1 s");
}

#[tokio::test]
async fn a_client_that_sends_everything_first_still_sees_the_refusal() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    for path in [
        format!("/v1/models/{id}/files/..%2fx"),
        "/v1/models/mdl_x/files/a".into(),
        "/nowhere".into(),
    ] {
        let address = app.address;
        let client = tokio::task::spawn_blocking(move || {
            use std::io::{Read as _, Write as _};
            let mut socket = std::net::TcpStream::connect(address).expect("connects");
            let bytes = vec![7u8; 32 << 20];
            let head = format!(
                "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            socket.write_all(head.as_bytes()).expect("sent");
            socket.write_all(&bytes).expect("everything is taken");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("answers");
            answer
        });
        let answer = client.await.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_are_hardly_http_get_an_answer_or_a_closed_connection() {
    let app = TestApp::start().await;
    let many = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X-A: b\r\n".repeat(500)
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    for request in [
        "GET /v1/models/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/jobs/%2e%2e%2f%2e%2e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/jobs?limit=%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "BREW /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "nonsense\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        &many,
        &long,
    ] {
        let mut socket = tokio::net::TcpStream::connect(app.address)
            .await
            .expect("connects");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_ok(), "{request:.60}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{request:.60}: {answer}"
        );
    }
    assert_eq!(app.get("/livez").await.status(), StatusCode::OK);
}
