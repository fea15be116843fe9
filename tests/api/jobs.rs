//! Plans and jobs: creating, reading, listing, cancelling, reports.

use modelpress_server::config::{ByteSize, Settings};
use modelpress_server::domain::{JobId, JobState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::memory::Tables;

fn id_of(job: &Value) -> JobId {
    text(&job["id"]).parse().expect("a job id")
}

async fn job(app: &TestApp, model: &Value, more: Value) -> Value {
    let mut body = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    body.as_object_mut()
        .expect("object")
        .extend(more.as_object().cloned().unwrap_or_default());
    json_of(app.post("/v1/jobs", &body).await, StatusCode::ACCEPTED).await
}

#[tokio::test]
async fn a_plan_has_no_effect_and_a_job_waits() {
    let app = TestApp::scripted().await;
    let model = app.model().await;
    let body = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    let plan = json_of(app.post("/v1/plans", &body).await, StatusCode::OK).await;
    assert_eq!(
        (plan["object"].as_str(), plan["model"] == model["id"]),
        (Some("plan"), true)
    );
    assert!(plan["plan"].is_object());
    assert_eq!(
        json_of(app.get("/v1/jobs").await, StatusCode::OK).await["data"],
        json!([])
    );

    let response = app.post("/v1/jobs", &body).await;
    let location = response.headers()["location"].to_str().expect("ASCII").to_owned();
    let made = json_of(response, StatusCode::ACCEPTED).await;
    assert_eq!(
        (made["status"].as_str(), made["progress"].as_f64()),
        (Some("queued"), Some(0.0))
    );
    assert_eq!(location, format!("/v1/jobs/{}", text(&made["id"])));
    assert_eq!(json_of(app.get(&location).await, StatusCode::OK).await, made);
    app.memory.advance(id_of(&made), JobState::Running);
    let running = json_of(app.get(&location).await, StatusCode::OK).await;
    assert_eq!(
        (running["progress"].as_f64(), running["attempt"].as_u64()),
        (Some(0.25), Some(1))
    );
    assert_eq!(running["stage"], json!({"name": "quantize", "index": 0, "of": 1}));
    assert!(running["estimated_finish_at"].is_string());
}

#[tokio::test]
async fn a_recipe_that_cannot_work_is_refused_here() {
    let app = TestApp::start().await;
    let model = app.model().await;
    for path in ["/v1/plans", "/v1/jobs"] {
        let refused = problem(
            app.post(path, &json!({"model": model["id"], "recipe": "nonsense"}))
                .await,
            422,
            "recipe_refused",
        )
        .await;
        let error = &refused["errors"][0];
        assert!(text(&error["pointer"]).starts_with("/recipe"), "{refused}");
        assert!(
            error["code"].is_string() && error["detail"].is_string(),
            "{refused}"
        );
        let unknown = problem(
            app.post(
                path,
                &json!({"model": "mdl_x", "recipe": "W8A16", "formats": ["safetensors"]}),
            )
            .await,
            422,
            "fields_invalid",
        )
        .await;
        assert_eq!(unknown["errors"][0]["pointer"], "/model");
        let twice = app
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .body(
                r#"{"model": "mdl_x", "recipe": {"preset": "W4A16", "options": {"n_bits": 4, "n_bits": 8}}}"#,
            );
        let twice = problem(twice.send().await.expect("answers"), 422, "fields_invalid").await;
        assert_eq!(twice["errors"][0]["pointer"], "/recipe/options/n_bits");
        assert_eq!(twice["errors"][0]["code"], "duplicate_field");
        let draft = app.draft().await;
        problem(
            app.post(
                path,
                &json!({"model": draft, "recipe": "W8A16", "formats": ["safetensors"]}),
            )
            .await,
            409,
            "model_draft",
        )
        .await;
    }
    assert_eq!(
        json_of(app.get("/v1/jobs").await, StatusCode::OK).await["data"],
        json!([])
    );
}

#[tokio::test]
async fn a_job_that_no_worker_has_the_memory_for_is_refused_here() {
    let app = TestApp::start_with(Settings {
        worker_memory_bytes: Some(ByteSize(1_000_000)),
        ..Settings::default()
    })
    .await;
    let roomy = TestApp::start().await;
    for path in ["/v1/plans", "/v1/jobs"] {
        let asked = async |app: &TestApp| {
            let model = app.model().await;
            json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]})
        };
        let body = asked(&roomy).await;
        let plan = json_of(roomy.post("/v1/plans", &body).await, StatusCode::OK).await;
        let need = plan["plan"]["peak_memory_bytes"].as_u64().expect("a number");

        let refused = problem(app.post(path, &asked(&app).await).await, 422, "recipe_refused").await;
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/recipe"), &json!("exceeds_worker_memory"))
        );
        for part in [&need.to_string(), "1000000", "worker_memory_bytes", "b.weight"] {
            assert!(text(&error["detail"]).contains(part), "{part}: {refused}");
        }
    }
    assert_eq!(
        json_of(app.get("/v1/jobs").await, StatusCode::OK).await["data"],
        json!([])
    );
}

#[tokio::test]
async fn a_job_that_waits_for_memory_says_so() {
    let app = TestApp::scripted_with(Settings {
        worker_memory_bytes: Some(ByteSize(4_000_000_000)),
        ..Settings::default()
    })
    .await;
    let model = app.model().await;
    let job = job(&app, &model, json!({})).await;
    assert_eq!(job["waiting_for"], Value::Null);
    assert!(
        job["planned_memory_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1 << 20)
    );
    // It was planned when workers had more.
    let row = |tables: &mut Tables| {
        tables
            .jobs
            .get_mut(&id_of(&job))
            .map(|job| job.need_memory_bytes = 5_000_000_000)
    };
    row(&mut app.memory.lock()).expect("stored");
    let path = format!("/v1/jobs/{}", text(&job["id"]));
    let waiting = json_of(app.get(&path).await, StatusCode::OK).await;
    for part in ["5000000000", "4000000000", "worker_memory_bytes"] {
        assert!(text(&waiting["waiting_for"]).contains(part), "{waiting}");
    }
}

#[tokio::test]
async fn a_repeated_request_with_a_key_answers_the_same_job() {
    let app = TestApp::start().await;
    let model = app.model().await;
    let body = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    let send = |key: &'static str, body: &Value| {
        app.request(Method::POST, "/v1/jobs")
            .header("idempotency-key", key)
            .json(body)
            .send()
    };
    let first = json_of(
        send("\"k1\"", &body).await.expect("answers"),
        StatusCode::ACCEPTED,
    )
    .await;
    let again = send("k1", &body).await.expect("answers");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(json_of(again, StatusCode::ACCEPTED).await["id"], first["id"]);
    let mut other = body.clone();
    other["priority"] = json!(1);
    problem(
        send("k1", &other).await.expect("answers"),
        422,
        "idempotency_mismatch",
    )
    .await;
    problem(
        send("has space", &body).await.expect("answers"),
        400,
        "header_invalid",
    )
    .await;
    let twice = app
        .request(Method::POST, "/v1/jobs")
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    problem(
        twice.json(&body).send().await.expect("answers"),
        400,
        "header_invalid",
    )
    .await;
    assert_ne!(
        json_of(send("k2", &body).await.expect("answers"), StatusCode::ACCEPTED).await["id"],
        first["id"]
    );
}

#[tokio::test]
async fn jobs_are_filtered_and_paged() {
    let app = TestApp::scripted().await;
    let (one, two) = (app.model().await, app.model().await);
    let a = job(&app, &one, json!({})).await;
    let b = job(&app, &two, json!({})).await;
    let c = job(&app, &one, json!({})).await;
    app.memory.advance(id_of(&b), JobState::Running);
    let ids = |page: &Value| -> Vec<Value> {
        page["data"]
            .as_array()
            .expect("list")
            .iter()
            .map(|j| j["id"].clone())
            .collect()
    };
    let get = async |query: &str| json_of(app.get(&format!("/v1/jobs{query}")).await, StatusCode::OK).await;
    assert_eq!(
        ids(&get("").await),
        [c["id"].clone(), b["id"].clone(), a["id"].clone()]
    );
    assert_eq!(ids(&get("?status=running").await), std::slice::from_ref(&b["id"]));
    assert_eq!(
        ids(&get(&format!("?model={}", text(&one["id"]))).await),
        [c["id"].clone(), a["id"].clone()]
    );
    let page = get("?limit=1&status=queued").await;
    let cursor = text(&page["next_cursor"]);
    assert_eq!(
        ids(&get(&format!("?limit=1&status=queued&after={cursor}")).await),
        std::slice::from_ref(&a["id"])
    );
    problem(
        app.get(&format!("/v1/jobs?after={cursor}")).await,
        400,
        "cursor_mismatch",
    )
    .await;
    problem(app.get("/v1/jobs?after=bogus").await, 400, "cursor_invalid").await;
    for query in [
        "status=done",
        "model=x",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "limit=1&limit=2",
        "bogus=1",
    ] {
        let refused = problem(app.get(&format!("/v1/jobs?{query}")).await, 400, "query_invalid").await;
        let pointer = format!("/{}", query.split('=').next().expect("a name"));
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
}

#[tokio::test]
async fn cancelling_ends_a_waiting_job_and_asks_a_running_one() {
    let app = TestApp::scripted().await;
    let model = app.model().await;
    let cancel = async |job: &Value| {
        app.post(&format!("/v1/jobs/{}/cancel", text(&job["id"])), &json!({}))
            .await
    };
    let waiting = job(&app, &model, json!({})).await;
    assert_eq!(
        json_of(cancel(&waiting).await, StatusCode::OK).await["status"],
        "cancelled"
    );
    assert_eq!(
        json_of(cancel(&waiting).await, StatusCode::OK).await["status"],
        "cancelled",
        "twice is fine"
    );
    let running = job(&app, &model, json!({})).await;
    app.memory.advance(id_of(&running), JobState::Running);
    let asked = json_of(cancel(&running).await, StatusCode::OK).await;
    assert_eq!(
        (asked["status"].as_str(), asked["cancel_requested_at"].is_string()),
        (Some("running"), true)
    );
    app.memory.advance(id_of(&running), JobState::Succeeded);
    problem(cancel(&running).await, 409, "conflict").await;
    problem(
        app.post("/v1/jobs/job_x/cancel", &json!({})).await,
        404,
        "not_found",
    )
    .await;
}

#[tokio::test]
async fn a_failed_job_says_why_and_has_no_report() {
    let app = TestApp::scripted().await;
    let made = job(
        &app,
        &app.model().await,
        json!({"metadata": {"k": "v"}, "priority": -5}),
    )
    .await;
    assert_eq!(
        (made["metadata"]["k"].as_str(), made["priority"].as_i64()),
        (Some("v"), Some(-5))
    );
    let path = format!("/v1/jobs/{}", text(&made["id"]));
    problem(app.get(&format!("{path}/report")).await, 409, "not_ready").await;
    app.memory.advance(id_of(&made), JobState::Failed);
    let failed = json_of(app.get(&path).await, StatusCode::OK).await;
    assert_eq!(
        (failed["status"].as_str(), failed["error"]["code"].as_str()),
        (Some("failed"), Some("worker_lost"))
    );
    problem(app.get(&format!("{path}/report")).await, 409, "not_ready").await;
    problem(app.get(&format!("{path}/report.html")).await, 409, "not_ready").await;
}

#[tokio::test]
async fn a_full_queue_turns_jobs_away() {
    let app = TestApp::start_with(Settings {
        max_queued_jobs: Some(1),
        ..Settings::default()
    })
    .await;
    let model = app.model().await;
    job(&app, &model, json!({})).await;
    let response = app
        .post(
            "/v1/jobs",
            &json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]}),
        )
        .await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, 503, "overloaded").await;
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let app = TestApp::start().await;
    let model = app.model().await;
    let long = "x".repeat(600);
    let many: serde_json::Map<String, Value> = (0..17).map(|i| (i.to_string(), json!("v"))).collect();
    for (more, pointer) in [
        (json!({"bogus": 1}), "/bogus"),
        (json!({"priority": 101}), "/priority"),
        (json!({"priority": "high"}), "/priority"),
        (json!({"metadata": {"k": 1}}), "/metadata/k"),
        (json!({"metadata": {"k": long}}), "/metadata/k"),
        (json!({"metadata": many}), "/metadata"),
        (json!({"formats": "gguf"}), "/formats"),
    ] {
        let mut body = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
        body.as_object_mut()
            .expect("object")
            .extend(more.as_object().cloned().expect("object"));
        let refused = problem(app.post("/v1/jobs", &body).await, 422, "fields_invalid").await;
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let refused = problem(
        app.post("/v1/jobs", &json!({"recipe": "W8A16"})).await,
        422,
        "fields_invalid",
    )
    .await;
    assert_eq!(refused["errors"][0]["pointer"], "/model");
}
