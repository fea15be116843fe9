//! What one tenant may have, and how often one key may ask.

use modelpress_server::config::{ByteSize, Settings};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::small;

/// A server where the default tenant has a model of this size, and may store `more` bytes besides.
async fn with_room_for(more: u64) -> (TestApp, String) {
    let app = TestApp::start_with(Settings {
        tenant_max_bytes: Some(ByteSize(small().len() as u64 + more)),
        ..Settings::default()
    })
    .await;
    let id = text(&app.model().await["id"]);
    (app, id)
}

async fn refused(response: Response) {
    let refused = problem(response, 429, "stored_bytes_exceeded").await;
    let detail = refused["detail"].as_str().expect("a sentence");
    assert!(
        detail.contains("default") && detail.contains("delete"),
        "{detail}"
    );
}

/// However bytes come, those beyond the tenant's room are refused before they are read, and what was deleted is room again.
#[tokio::test]
async fn a_tenant_stores_so_many_bytes() {
    let (app, model) = with_room_for(10).await;
    let draft = app.draft().await;
    let file = format!("/v1/models/{draft}/files/config.json");
    refused(app.put(&file, "x".repeat(11)).await).await;
    refused(app.post("/v1/uploads", &json!({"length": 11})).await).await;
    let dataset = app
        .request(Method::POST, "/v1/datasets")
        .header("content-type", "text/plain");
    refused(dataset.body("eleven bytes").send().await.expect("answers")).await;
    let tus = app
        .request(Method::POST, "/v1/uploads")
        .header("tus-resumable", "1.0.0");
    refused(tus.header("upload-length", "11").send().await.expect("answers")).await;

    let upload = json_of(
        app.post("/v1/uploads", &json!({"length": 10})).await,
        StatusCode::CREATED,
    )
    .await;
    refused(app.put(&file, "x").await).await;
    let gone = app.request(Method::DELETE, &format!("/v1/uploads/{}", text(&upload["id"])));
    assert_eq!(
        gone.send().await.expect("answers").status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(app.put(&file, "x").await.status(), StatusCode::CREATED);
    let gone = app.request(Method::DELETE, &format!("/v1/models/{model}"));
    assert_eq!(
        gone.send().await.expect("answers").status(),
        StatusCode::NO_CONTENT
    );
    let dataset = app
        .request(Method::POST, "/v1/datasets")
        .header("content-type", "text/plain");
    let made = dataset.body("eleven bytes").send().await.expect("answers");
    assert_eq!(made.status(), StatusCode::CREATED);
    app.stop().await;
}

/// Bytes that nobody announced end where the room does.
#[tokio::test]
async fn unannounced_bytes_end_where_the_room_does() {
    let (app, _) = with_room_for(10).await;
    let draft = app.draft().await;
    let stream = futures_util::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>("12345")));
    let file = format!("/v1/models/{draft}/files/config.json");
    problem(
        app.put(&file, reqwest::Body::wrap_stream(stream)).await,
        413,
        "too_large",
    )
    .await;
    let upload = json_of(app.post("/v1/uploads", &json!({})).await, StatusCode::CREATED).await;
    let append = app.request(Method::PATCH, &format!("/v1/uploads/{}", text(&upload["id"])));
    refused(
        append
            .header("upload-offset", "0")
            .body("x".repeat(11))
            .send()
            .await
            .expect("answers"),
    )
    .await;
    app.stop().await;
}

/// One more waiting job than the tenant may have is refused, and says when to try again.
#[tokio::test]
async fn a_tenants_queue_has_an_end() {
    let app = TestApp::start_with(Settings {
        tenant_max_queued_jobs: Some(1),
        ..Settings::default()
    })
    .await;
    let model = app.model().await;
    let body = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    json_of(app.post("/v1/jobs", &body).await, StatusCode::ACCEPTED).await;
    let full = app.post("/v1/jobs", &body).await;
    assert_eq!(full.headers()["retry-after"], "30");
    problem(full, 429, "queued_jobs_exceeded").await;
    app.stop().await;
}

/// Every answer says what is left; one request too many is refused and says when the next is welcome. What asks for no
/// key is not counted.
#[tokio::test]
async fn a_key_asks_so_often() {
    let app = TestApp::start_with(Settings {
        key_requests_per_minute: Some(4),
        key_jobs_per_hour: Some(1),
        ..Settings::default()
    })
    .await;
    let answer = app.get("/v1/models").await;
    assert_eq!(answer.headers()["ratelimit-policy"], "\"requests\";q=4;w=60");
    assert_eq!(answer.headers()["ratelimit"], "\"requests\";r=3;t=15");
    let job = app
        .post("/v1/jobs", &json!({"model": "mdl_x", "recipe": "W8A16"}))
        .await;
    assert_eq!(
        job.headers()["ratelimit-policy"],
        "\"requests\";q=4;w=60, \"jobs\";q=1;w=3600"
    );
    let second = app
        .post("/v1/jobs", &json!({"model": "mdl_x", "recipe": "W8A16"}))
        .await;
    problem(second, 429, "rate_limited").await;
    assert_eq!(app.get("/v1/models").await.status(), StatusCode::OK);
    let many = app.get("/v1/models").await;
    let wait: u64 = many.headers()["retry-after"]
        .to_str()
        .expect("ASCII")
        .parse()
        .expect("seconds");
    assert!((1..=15).contains(&wait), "{wait}");
    assert_eq!(many.headers()["ratelimit"], "\"requests\";r=0;t=60");
    problem(many, 429, "rate_limited").await;
    for _ in 0..8 {
        let free = app.get("/v1/presets").await;
        assert!(free.status() == StatusCode::OK && !free.headers().contains_key("ratelimit"));
    }
    app.stop().await;
}
