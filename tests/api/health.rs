//! Probes, metrics, draining.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use modelpress_server::config::Settings;
use reqwest::{Method, StatusCode};

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

/// Whoever may send requests must not be able to fill monitoring's memory.
#[tokio::test]
async fn hostile_requests_make_no_series() {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "X-1",
    ];
    let app = TestApp::start().await;
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let asked = app.request(method, path).header("Host", path.len().to_string());
        asked.send().await.expect("answers")
    };
    let series = async || {
        let text = app.get("/metrics").await.text().await.expect("text");
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    // Each kind of request once: these series may be there.
    for method in METHODS {
        for path in ["/nowhere", "/v1/jobs/x", "/v1/models/x/files/y", "/v1/uploads/x"] {
            ask(method, path).await;
        }
    }
    series().await;
    let before = series().await;
    for n in 0..500 {
        let method = match n % 3 {
            0 => METHODS[n % METHODS.len()].to_owned(),
            1 => format!("M{n}"),
            _ => "GET".to_owned(),
        };
        let path = match n % 5 {
            0 => format!("/{n}/%00%ff/{}", "a".repeat(n)),
            1 => format!("/v1/jobs/job_{n}?state={n}"),
            2 => format!("/v1/models/{n}/files/{n}%2f..%2f{n}"),
            3 => format!("/v1/uploads/{n}"),
            _ => format!("/metrics{n}"),
        };
        ask(&method, &path).await;
    }
    assert_eq!(series().await, before);
    let text = app.get("/metrics").await.text().await.expect("text");
    let methods: BTreeSet<&str> = text
        .split("method=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(methods.len(), 8, "seven and other: {methods:?}");
}

#[tokio::test]
async fn metrics_are_there_while_the_database_is_not() {
    let app = TestApp::scripted().await;
    let text = app.get("/metrics").await.text().await.expect("text");
    assert!(text.contains("modelpress_database_up 1"), "{text}");
    app.memory.broken.store(true, Ordering::SeqCst);
    let text = app.get("/metrics").await.text().await.expect("text");
    assert!(text.contains("modelpress_database_up 0"), "{text}");
    assert!(!text.contains("secret host name"), "{text}");
    assert!(text.contains("modelpress_disk_free_bytes "), "{text}");
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
