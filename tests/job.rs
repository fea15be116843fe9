//! The whole job on the server as it is: SQLite, local blobs, workers in the process.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use modelpress_server::config::Settings;
use modelpress_server::domain::model::hex;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::app::{TestApp, json_of, text};

async fn working() -> TestApp {
    TestApp::start_with(Settings {
        workers: Some(1),
        ..Settings::default()
    })
    .await
}

async fn upload(app: &TestApp, bytes: Vec<u8>) -> Value {
    let part = Part::bytes(bytes).file_name("model.safetensors");
    let form = Form::new().part("file", part);
    let response = app
        .request(Method::POST, "/v1/models")
        .multipart(form)
        .send()
        .await
        .expect("answers");
    json_of(response, StatusCode::CREATED).await
}

fn asked(model: &Value) -> Value {
    json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]})
}

/// Follows the job's events to their end; answers the job and the stream.
async fn finish(app: &TestApp, job: &Value) -> (Value, String) {
    let id = text(&job["id"]);
    let events = app
        .request(Method::GET, &format!("/v1/jobs/{id}/events"))
        .header("accept", "text/event-stream");
    let response = events.send().await.expect("answers");
    let stream = tokio::time::timeout(Duration::from_mins(1), response.text())
        .await
        .expect("ends")
        .expect("text");
    (
        json_of(app.get(&format!("/v1/jobs/{id}")).await, StatusCode::OK).await,
        stream,
    )
}

#[tokio::test]
async fn a_job_that_names_a_dataset_runs_with_it() {
    let app = working().await;
    let model = upload(&app, support::models::small()).await;
    let text = app
        .request(Method::POST, "/v1/datasets")
        .header("content-type", "text/plain")
        .body("a text to calibrate with");
    let dataset = json_of(text.send().await.expect("answers"), StatusCode::CREATED).await;
    let recipe = json!({"preset": "W8A16", "formats": ["safetensors"], "calibration": dataset["id"]});
    let asked = json!({"model": model["id"], "recipe": recipe});
    let job = json_of(app.post("/v1/jobs", &asked).await, StatusCode::ACCEPTED).await;
    let (job, _) = finish(&app, &job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["recipe"]["calibration"], dataset["id"]);
}

#[tokio::test]
async fn a_model_becomes_an_artifact_with_a_report() {
    let app = working().await;
    let model = upload(&app, support::models::small()).await;
    let plan = json_of(app.post("/v1/plans", &asked(&model)).await, StatusCode::OK).await;
    let job = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
    let (job, stream) = finish(&app, &job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(
        (job["progress"].as_f64(), job["attempt"].as_u64()),
        (Some(1.0), Some(1))
    );
    for word in ["queued", "running", "succeeded"] {
        assert!(stream.contains(word), "{word}: {stream}");
    }

    let report = json_of(
        app.get(&format!("/v1/jobs/{}/report", text(&job["id"]))).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(report["totals"]["parameters"], model["parameter_count"]);
    assert_eq!(
        report["recipe_hash"], plan["plan"]["recipe_hash"],
        "what was planned is what ran"
    );
    let page = app
        .request(Method::GET, &format!("/v1/jobs/{}/report", text(&job["id"])))
        .header("accept", "text/html");
    let page = page.send().await.expect("answers");
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .expect("ASCII")
            .starts_with("default-src 'none'")
    );
    assert!(page.text().await.expect("text").contains("<svg"));

    let id = text(&job["artifacts"][0]);
    let artifact = json_of(app.get(&format!("/v1/artifacts/{id}")).await, StatusCode::OK).await;
    assert_eq!(
        (artifact["format"].as_str(), &artifact["job"]),
        (Some("safetensors"), &job["id"])
    );
    for file in artifact["files"].as_array().expect("files") {
        let bytes = app
            .get(&format!("/v1/artifacts/{id}/files/{}", text(&file["name"])))
            .await
            .bytes()
            .await;
        let bytes = bytes.expect("bytes");
        assert_eq!(
            format!("sha256:{}", hex(&Sha256::digest(&bytes))),
            text(&file["digest"])
        );
        assert_eq!(file["bytes"], bytes.len());
    }
    let of_job = format!("/v1/artifacts?job={}", text(&job["id"]));
    assert_eq!(
        json_of(app.get(&of_job).await, StatusCode::OK).await["data"],
        json!([artifact])
    );
    let archive = app.get(&format!("/v1/artifacts/{id}/archive")).await;
    assert_eq!(
        archive.content_length(),
        Some(archive.bytes().await.expect("bytes").len() as u64)
    );
    let metrics = app.get("/metrics").await.text().await.expect("text");
    for stage in ["compress", "verify"] {
        let line = format!("modelpress_stage_duration_seconds_count{{stage=\"{stage}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    app.stop().await;
}

/// What is downloaded is checked offline, with the key that the server shows; a byte changed on the way is named.
#[tokio::test]
async fn an_artifact_is_verified_with_the_servers_key() {
    let app = working().await;
    let model = upload(&app, support::models::small()).await;
    let job = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
    let (job, _) = finish(&app, &job).await;
    let id = text(&job["artifacts"][0]);
    let artifact = json_of(app.get(&format!("/v1/artifacts/{id}")).await, StatusCode::OK).await;
    let folder = tempfile::tempdir().expect("a folder");
    for file in artifact["files"].as_array().expect("files") {
        let name = text(&file["name"]);
        let bytes = app
            .get(&format!("/v1/artifacts/{id}/files/{name}"))
            .await
            .bytes()
            .await;
        std::fs::write(folder.path().join(name), bytes.expect("bytes")).expect("writes");
    }
    let key = json_of(app.get("/v1/signing-key").await, StatusCode::OK).await;
    let verify = |key: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .args(["verify", &folder.path().display().to_string(), "--key", key])
            .output()
            .expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("UTF-8"))
    };
    let (code, said) = verify(&text(&key["public_key"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&text(&key["fingerprint"])), "{said}");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINI+ftl7KRP6prMD0v/BccmGK1arwwzzl6yFm4EWBiSg other";
    let (code, said) = verify(other);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not the key that was given"), "{said}");
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&weights, bytes).expect("writes");
    let (code, said) = verify(&text(&key["public_key"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("model.safetensors: its bytes are not"), "{said}");
}

#[tokio::test]
async fn every_plot_of_a_report_can_be_had_by_itself() {
    let app = working().await;
    let model = upload(&app, support::models::small()).await;
    let job = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
    let (job, _) = finish(&app, &job).await;
    let path = format!("/v1/jobs/{}/plots", text(&job["id"]));
    let list = json_of(app.get(&path).await, StatusCode::OK).await;
    let plots = list["data"].as_array().expect("a list");
    assert!(plots.iter().any(|plot| plot["name"] == "sizes"), "{list}");
    for plot in plots {
        let svg = app.get(&text(&plot["svg"])).await;
        assert_eq!(svg.headers()["content-type"], "image/svg+xml");
        assert!(svg.text().await.expect("text").starts_with("<svg xmlns="));
        let png = app.get(&text(&plot["png"])).await;
        assert_eq!(png.headers()["content-type"], "image/png");
        assert_eq!(&png.bytes().await.expect("bytes")[1..4], b"PNG");
    }
    let problem =
        support::app::problem(app.get(&format!("{path}/nothing.svg")).await, 404, "not_found").await;
    assert!(text(&problem["detail"]).contains("sizes"), "{problem}");
}

#[tokio::test]
async fn the_same_job_twice_makes_the_same_bytes() {
    let app = working().await;
    let model = upload(&app, support::models::small()).await;
    let mut digests = Vec::new();
    for _ in 0..2 {
        let job = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
        let (job, _) = finish(&app, &job).await;
        let artifact = app
            .get(&format!("/v1/artifacts/{}", text(&job["artifacts"][0])))
            .await;
        digests.push(json_of(artifact, StatusCode::OK).await["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn equal_work_under_way_is_not_begun_again_when_asked_so() {
    let app = TestApp::start().await;
    let model = upload(&app, support::models::small()).await;
    let mut body = asked(&model);
    body["deduplicate"] = json!(true);
    let first = json_of(app.post("/v1/jobs", &body).await, StatusCode::ACCEPTED).await;
    let second = json_of(app.post("/v1/jobs", &body).await, StatusCode::OK).await;
    assert_eq!(first["id"], second["id"]);
    let other = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
    assert_ne!(first["id"], other["id"]);
}

#[tokio::test]
async fn weights_that_are_no_numbers_end_the_job_with_a_code() {
    let app = working().await;
    let mut bytes = support::models::small();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let model = upload(&app, bytes).await;
    let job = json_of(app.post("/v1/jobs", &asked(&model)).await, StatusCode::ACCEPTED).await;
    let (job, stream) = finish(&app, &job).await;
    assert_eq!(
        (&job["status"], &job["attempt"]),
        (&json!("failed"), &json!(1)),
        "{job}"
    );
    assert_eq!(job["error"]["code"], "non_finite_values", "{job}");
    assert!(text(&job["error"]["message"]).contains("c.weight"), "{job}");
    assert!(stream.contains("non_finite_values"), "{stream}");
}
