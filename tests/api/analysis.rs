//! `POST /v1/models/{id}/analysis`: a job whose report says what a model is.

use modelpress_server::config::{ByteSize, Settings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of, problem, text};

/// A server with a worker.
async fn with_worker() -> TestApp {
    TestApp::start_with(Settings {
        workers: Some(1),
        ..Settings::default()
    })
    .await
}

/// A ready model of two files, as a checkpoint folder has them.
async fn checkpoint(app: &TestApp) -> String {
    let id = app.draft().await;
    let files = [
        ("model.safetensors", crate::support::models::small()),
        (
            "config.json",
            br#"{"model_type": "matrices", "architectures": ["Matrices"]}"#.to_vec(),
        ),
    ];
    for (name, bytes) in files {
        let put = app.put(&format!("/v1/models/{id}/files/{name}"), bytes).await;
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let commit = app.request(Method::POST, &format!("/v1/models/{id}/commit"));
    json_of(commit.send().await.expect("answers"), StatusCode::OK).await;
    id
}

/// Waits until a job is over.
async fn over(app: &TestApp, id: &str) -> Value {
    loop {
        let job = json_of(app.get(&format!("/v1/jobs/{id}")).await, StatusCode::OK).await;
        if !["queued", "running"].contains(&text(&job["status"]).as_str()) {
            return job;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_is_a_job_with_a_report_and_nothing_else() {
    let app = with_worker().await;
    let model = checkpoint(&app).await;
    // Without a body, as curl sends it.
    let path = format!("/v1/models/{model}/analysis");
    let asked = app.request(Method::POST, &path).send().await.expect("sends");
    let job = json_of(asked, StatusCode::ACCEPTED).await;
    assert_eq!(
        (&job["kind"], &job["recipe"]),
        (&json!("analysis"), &json!({"analysis": {}}))
    );
    let id = text(&job["id"]);
    let job = over(&app, &id).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["artifacts"], json!([]));
    let report = json_of(app.get(&format!("/v1/jobs/{id}/report")).await, StatusCode::OK).await;
    assert_eq!(report["object"], "analysis");
    let names: Vec<&Value> = report["tensors"]
        .as_array()
        .expect("tensors")
        .iter()
        .map(|tensor| &tensor["name"])
        .collect();
    assert_eq!(names, ["a.weight", "b.weight", "c.weight"]);
    let presets = |field: &str| report[field].as_array().expect("a list").len();
    assert!(presets("presets") + presets("refused_presets") > 40, "{report}");
    let page = app.get(&format!("/v1/jobs/{id}/report.html")).await;
    let page = page.text().await.expect("text");
    for part in ["<h1>Analysis</h1>", "Rate and distortion", "b.weight"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    app.stop().await;
}

/// What is foretold of a preset is what planning it says.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_those_of_the_plan() {
    let app = with_worker().await;
    let model = checkpoint(&app).await;
    let asked = app
        .post(&format!("/v1/models/{model}/analysis"), &json!({}))
        .await;
    let id = text(&json_of(asked, StatusCode::ACCEPTED).await["id"]);
    over(&app, &id).await;
    let report = json_of(app.get(&format!("/v1/jobs/{id}/report")).await, StatusCode::OK).await;
    let presets = report["presets"].as_array().expect("presets");
    assert!(!presets.is_empty(), "{report}");
    for told in presets {
        let asked = json!({"model": model, "recipe": told["preset"]});
        let plan = json_of(app.post("/v1/plans", &asked).await, StatusCode::OK).await;
        assert_eq!(plan["plan"]["formats"][0]["bytes"], told["bytes"], "{told}");
    }
    for refusal in report["refused_presets"].as_array().expect("refusals") {
        let asked = json!({"model": model, "recipe": refusal["preset"]});
        problem(app.post("/v1/plans", &asked).await, 422, "recipe_refused").await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_analyzed_is_refused_at_once() {
    let app = TestApp::scripted().await;
    let draft = app.draft().await;
    let path = |model: &str| format!("/v1/models/{model}/analysis");
    let none = json!({});
    problem(app.post(&path(&draft), &none).await, 409, "model_draft").await;
    let unknown = format!("mdl_{}", uuid::Uuid::now_v7().simple());
    problem(app.post(&path(&unknown), &none).await, 404, "not_found").await;
    let model = checkpoint(&app).await;
    let wrong = problem(
        app.post(&path(&model), &json!({"recipe": "Q4_K_M"})).await,
        422,
        "fields_invalid",
    )
    .await;
    assert_eq!(wrong["errors"][0]["pointer"], "/recipe", "{wrong}");
    let wrong = problem(
        app.post(&path(&model), &json!({"priority": 101})).await,
        422,
        "fields_invalid",
    )
    .await;
    assert_eq!(wrong["errors"][0]["pointer"], "/priority", "{wrong}");
    let untyped = app.request(Method::POST, &path(&model)).body("{}").send();
    problem(untyped.await.expect("sends"), 415, "unsupported_media_type").await;
    // A recipe cannot ask for one.
    let recipe = json!({"model": model, "recipe": {"analysis": {}}});
    problem(app.post("/v1/jobs", &recipe).await, 422, "recipe_refused").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_analysis_waits_once_if_so_asked() {
    let app = TestApp::start().await;
    let model = checkpoint(&app).await;
    let path = format!("/v1/models/{model}/analysis");
    let once = json!({"deduplicate": true});
    let first = json_of(app.post(&path, &once).await, StatusCode::ACCEPTED).await;
    let second = json_of(app.post(&path, &once).await, StatusCode::OK).await;
    assert_eq!(first["id"], second["id"]);
    let third = json_of(app.post(&path, &json!({})).await, StatusCode::ACCEPTED).await;
    assert_ne!(first["id"], third["id"]);
    // A compression of the same model is other work.
    let asked = json!({"model": model, "recipe": "W8A16", "formats": ["safetensors"], "deduplicate": true});
    let other = json_of(app.post("/v1/jobs", &asked).await, StatusCode::ACCEPTED).await;
    assert_eq!(other["kind"], "compression");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_analysis_of_one_model() {
    let app = TestApp::start().await;
    let (one, other) = (checkpoint(&app).await, checkpoint(&app).await);
    let ask = |model: &str| {
        let request = app.request(Method::POST, &format!("/v1/models/{model}/analysis"));
        request.header("Idempotency-Key", "\"once\"").send()
    };
    let first = json_of(ask(&one).await.expect("answers"), StatusCode::ACCEPTED).await;
    let again = json_of(ask(&one).await.expect("answers"), StatusCode::ACCEPTED).await;
    assert_eq!(first["id"], again["id"]);
    problem(ask(&other).await.expect("answers"), 422, "idempotency_mismatch").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_no_worker_has_memory_for_is_refused() {
    let app = TestApp::start_with(Settings {
        worker_memory_bytes: Some(ByteSize(1 << 20)),
        ..Settings::default()
    })
    .await;
    let model = checkpoint(&app).await;
    let asked = app
        .post(&format!("/v1/models/{model}/analysis"), &json!({}))
        .await;
    let refused = problem(asked, 422, "fields_invalid").await;
    let error = &refused["errors"][0];
    assert_eq!(error["code"], "exceeds_worker_memory");
    assert!(
        text(&error["detail"]).contains("set worker_memory_bytes to"),
        "{error}"
    );
    let jobs = json_of(app.get("/v1/jobs").await, StatusCode::OK).await;
    assert_eq!(jobs["data"], json!([]));
    app.stop().await;
}

/// What schemes would cost, weighed on data of one's own; what cannot be weighed is refused where it stands.
#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_weighs_the_schemes_that_are_asked_for() {
    let app = with_worker().await;
    let (model, data) = crate::searches::model_and_data(&app).await;
    let path = format!("/v1/models/{model}/analysis");
    let recipe = |technique: &str| {
        json!({"stages": [{"technique": technique, "options": {"n_bits": 4, "group_size": 16}}],
            "formats": ["compressed-tensors"], "calibration": {"dataset": data, "max_seq_length": 16}})
    };
    let asked = json!({"sensitivity": recipe("rtn")});
    let job = json_of(app.post(&path, &asked).await, StatusCode::ACCEPTED).await;
    assert_eq!(
        (&job["kind"], &job["recipe"]["analysis"]),
        (&json!("analysis"), &asked)
    );
    let job = over(&app, &text(&job["id"])).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let report = app.get(&format!("/v1/jobs/{}/report", text(&job["id"]))).await;
    let report = json_of(report, StatusCode::OK).await;
    let found = &report["sensitivity"];
    assert_eq!(found["dataset"], json!(data));
    let units = found["units"].as_array().expect("units");
    assert!(
        units
            .iter()
            .all(|unit| unit["schemes"][0]["predicted_kl"].as_f64() > Some(0.0)),
        "{found}"
    );
    let refused = json!({"sensitivity": {"preset": "W4A16", "calibration": "nowhere"}});
    let refused = problem(app.post(&path, &refused).await, 422, "recipe_refused").await;
    let pointer = text(&refused["errors"][0]["pointer"]);
    assert!(pointer.starts_with("/sensitivity"), "{refused}");
}
