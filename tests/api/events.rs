//! A job's history, as a list and as a stream.

use std::time::Duration;

use futures_util::StreamExt as _;
use modelpress_server::config::Settings;
use modelpress_server::domain::{JobId, JobState};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of, problem, text};

async fn job(app: &TestApp) -> (JobId, String) {
    let model = app.model().await;
    let job = json_of(
        app.post(
            "/v1/jobs",
            &json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]}),
        )
        .await,
        StatusCode::ACCEPTED,
    )
    .await;
    let id = text(&job["id"]);
    (id.parse().expect("a job id"), format!("/v1/jobs/{id}/events"))
}

async fn follow(app: &TestApp, path: &str, last: Option<u64>) -> Response {
    let request = app
        .request(Method::GET, path)
        .header("accept", "text/event-stream");
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    request.send().await.expect("answers")
}

/// The stream's text up to its end.
async fn all(response: Response) -> String {
    tokio::time::timeout(Duration::from_secs(20), response.text())
        .await
        .expect("the stream ends")
        .expect("text")
}

fn ids(stream: &str) -> Vec<&str> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect()
}

#[tokio::test]
async fn history_is_a_list_without_gaps() {
    let app = TestApp::scripted().await;
    let (id, path) = job(&app).await;
    app.memory.advance(id, JobState::Running);
    app.memory.advance(id, JobState::Succeeded);
    let page = json_of(app.get(&format!("{path}?limit=2")).await, StatusCode::OK).await;
    let seqs: Vec<&Value> = page["data"]
        .as_array()
        .expect("list")
        .iter()
        .map(|e| &e["seq"])
        .collect();
    assert_eq!(seqs, [&json!(1), &json!(2)]);
    assert_eq!(
        (page["has_more"].as_bool(), page["next_cursor"].as_str()),
        (Some(true), Some("2"))
    );
    let page = json_of(app.get(&format!("{path}?after=2")).await, StatusCode::OK).await;
    assert_eq!(page["data"][0]["data"]["status"], "succeeded");
    assert_eq!(page["data"][0]["type"], "state");
}

#[tokio::test]
async fn a_stream_replays_follows_and_ends() {
    let app = TestApp::scripted().await;
    let (id, path) = job(&app).await;
    let response = follow(&app, &path, None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let reading = tokio::spawn(all(response));
    app.memory.advance(id, JobState::Running);
    app.memory.advance(id, JobState::Succeeded);
    let stream = reading.await.expect("read");
    assert_eq!(ids(&stream), ["1", "2", "3"]);
    assert!(stream.contains("retry: 2000"), "{stream}");
    assert!(stream.contains("event: state\n"), "{stream}");
    assert_eq!(ids(&all(follow(&app, &path, Some(1)).await).await), ["2", "3"]);
    assert_eq!(
        follow(&app, &path, Some(3)).await.status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn a_stream_ends_when_its_key_does() {
    let app = TestApp::scripted().await;
    let (_, path) = job(&app).await;
    let asked = json!({"name": "reader", "scopes": ["jobs:read"]});
    let made = json_of(app.post("/v1/keys", &asked).await, StatusCode::CREATED).await;
    let request = app
        .request(Method::GET, &path)
        .header("accept", "text/event-stream")
        .bearer_auth(text(&made["token"]));
    let mut stream = request.send().await.expect("answers").bytes_stream();
    stream.next().await.expect("begins").expect("bytes");
    let key = format!("/v1/keys/{}", text(&made["key"]["id"]));
    let revoked = app.request(Method::DELETE, &key).send().await;
    assert!(revoked.expect("answers").status().is_success());
    let rest = tokio::time::timeout(Duration::from_secs(20), async {
        while stream.next().await.is_some() {}
    });
    rest.await.expect("ends, though the job goes on");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_drains() {
    let mut app = TestApp::start().await;
    let (_, path) = job(&app).await;
    let mut stream = follow(&app, &path, None).await.bytes_stream();
    stream.next().await.expect("begins").expect("bytes");
    app.begin_stop();
    let rest = tokio::time::timeout(Duration::from_secs(4), async {
        while stream.next().await.is_some() {}
    });
    rest.await.expect("ends before the grace time is over");
    app.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_wrong_positions_refused() {
    let app = TestApp::start_with(Settings {
        max_event_streams: Some(1),
        ..Settings::default()
    })
    .await;
    let (_, path) = job(&app).await;
    let open = follow(&app, &path, None).await;
    assert_eq!(open.status(), StatusCode::OK);
    problem(follow(&app, &path, None).await, 503, "overloaded").await;
    let wrong = app
        .request(Method::GET, &path)
        .header("last-event-id", "x")
        .send()
        .await
        .expect("answers");
    problem(wrong, 400, "header_invalid").await;
    problem(app.get(&format!("{path}?after=x")).await, 400, "query_invalid").await;
    let wrong = app
        .request(Method::GET, &path)
        .header("accept", "image/png")
        .send()
        .await
        .expect("answers");
    problem(wrong, 406, "not_acceptable").await;
    problem(
        app.get("/v1/jobs/job_00000000000070008000000000000000/events")
            .await,
        404,
        "not_found",
    )
    .await;
}
