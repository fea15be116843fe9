//! Probes, metrics, draining.

use std::sync::atomic::Ordering;

use modelpress_server::config::Settings;
use reqwest::StatusCode;

use crate::support::app::{TestApp, json_of, problem};

#[tokio::test]
async fn alive_and_ready_are_two_things() {
    let app = TestApp::scripted().await;
    assert_eq!(
        json_of(app.get("/livez").await, StatusCode::OK).await["status"],
        "ok"
    );
    app.memory.broken.store(true, Ordering::SeqCst);
    let shown = problem(app.get("/readyz").await, 503, "unavailable").await;
    assert!(!shown.to_string().contains("secret host name"), "{shown}");
    assert_eq!(app.get("/livez").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn readiness_is_looked_up_once_a_second() {
    let app = TestApp::scripted().await;
    assert_eq!(app.get("/readyz").await.status(), StatusCode::OK);
    app.memory.broken.store(true, Ordering::SeqCst);
    assert_eq!(
        app.get("/readyz").await.status(),
        StatusCode::OK,
        "the last look is kept for a second"
    );
}

#[tokio::test]
async fn metrics_count_by_route_not_by_path() {
    let app = TestApp::start().await;
    let model = app.model().await;
    app.get(&format!("/v1/models/{}", model["id"].as_str().expect("an id")))
        .await;
    app.get("/v1/models/nonsense").await;
    app.get("/nowhere").await;
    let response = app.get("/metrics").await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .expect("ASCII")
            .starts_with("text/plain; version=0.0.4")
    );
    let metrics = response.text().await.expect("text");
    for line in [
        r#"modelpress_http_request_duration_seconds_count{method="GET",route="/v1/models/{id}",status="2xx"} 1"#,
        r#"modelpress_http_request_duration_seconds_count{method="GET",route="/v1/models/{id}",status="4xx"} 1"#,
        r#"modelpress_http_request_duration_seconds_count{method="GET",route="unmatched",status="4xx"} 1"#,
        r#"modelpress_jobs{state="queued"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let uploaded = format!(
        "modelpress_uploads_received_bytes_total {}",
        crate::support::models::small().len()
    );
    assert!(metrics.contains(&uploaded), "{metrics}");
    assert!(!metrics.contains("mdl_"), "no ids in labels");
}

#[tokio::test]
async fn metrics_can_have_an_address_of_their_own() {
    let app = TestApp::start_with(Settings {
        metrics_listen: Some("127.0.0.1:0".into()),
        ..Settings::default()
    })
    .await;
    problem(app.get("/metrics").await, 404, "not_found").await;
}

#[tokio::test]
async fn a_drained_server_ends_in_order() {
    let app = TestApp::start().await;
    app.model().await;
    let (client, url) = (app.client.clone(), app.url("/livez"));
    app.stop().await;
    assert!(client.get(url).send().await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn the_document_is_served_as_it_is_stored() {
    let app = TestApp::start().await;
    let served = app.get("/openapi.json").await.text().await.expect("text");
    let stored = include_str!("../../openapi/openapi.json");
    assert!(
        served == stored,
        "openapi/openapi.json is not what the server serves"
    );
}
