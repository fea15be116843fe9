//! Datasets: the ways in, what is refused, and recipes that name them.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of, problem, text};

const ROWS: &str = "{\"text\": \"good\", \"label\": 1}\n{\"text\": \"bad\", \"label\": 0}\n";

fn form(name: &str, bytes: &str) -> Form {
    Form::new().part(
        "file",
        Part::bytes(bytes.as_bytes().to_vec()).file_name(name.to_owned()),
    )
}

async fn send(app: &TestApp, form: Form) -> Response {
    let request = app.request(Method::POST, "/v1/datasets").multipart(form);
    request.send().await.expect("answers")
}

async fn send_raw(app: &TestApp, kind: &str, body: &'static str) -> Response {
    let request = app
        .request(Method::POST, "/v1/datasets")
        .header("content-type", kind);
    request.body(body).send().await.expect("answers")
}

async fn dataset(app: &TestApp) -> Value {
    json_of(send(app, form("train.jsonl", ROWS)).await, StatusCode::CREATED).await
}

/// A recipe that names a dataset, on the app's small model.
fn asked(model: &Value, dataset: &str) -> Value {
    json!({"model": model["id"], "formats": ["safetensors"],
           "recipe": {"preset": "W8A16", "calibration": {"dataset": dataset}}})
}

#[tokio::test]
async fn a_form_makes_a_dataset() {
    let app = TestApp::start().await;
    let form = form("train.jsonl", ROWS)
        .text("name", "reviews")
        .text("metadata", r#"{"team":"a"}"#);
    let response = send(&app, form).await;
    let location = response.headers()["location"].to_str().expect("ASCII").to_owned();
    let made = json_of(response, StatusCode::CREATED).await;
    assert_eq!(location, format!("/v1/datasets/{}", text(&made["id"])));
    assert!(text(&made["id"]).starts_with("ds_"), "{made}");
    for (field, value) in [
        ("object", json!("dataset")),
        ("name", json!("reviews")),
        ("metadata", json!({"team": "a"})),
        ("format", json!("jsonl")),
        ("content", json!("text")),
        ("records", json!(2)),
        ("labelled", json!(2)),
        ("paired", json!(0)),
        ("bytes", json!(ROWS.len())),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
    assert_eq!(json_of(app.get(&location).await, StatusCode::OK).await, made);
}

#[tokio::test]
async fn complete_uploads_make_a_dataset() {
    let app = TestApp::start().await;
    let request = app
        .request(Method::POST, "/v1/uploads")
        .header("content-type", "application/json")
        .body(json!({"length": ROWS.len()}).to_string());
    let upload = json_of(request.send().await.expect("answers"), StatusCode::CREATED).await;
    let upload = text(&upload["id"]);
    let named = |name: &str| json!({"files": [{"name": name, "upload": upload}]});
    let early = app.post("/v1/datasets", &named("a.jsonl")).await;
    let refused = problem(early, 422, "fields_invalid").await;
    assert_eq!(refused["errors"][0]["code"], "upload_incomplete", "{refused}");
    let append = app
        .request(Method::PATCH, &format!("/v1/uploads/{upload}"))
        .header("content-type", "application/octet-stream")
        .header("upload-offset", "0")
        .header("upload-complete", "?1")
        .body(ROWS);
    assert!(append.send().await.expect("answers").status().is_success());
    let pickle = app.post("/v1/datasets", &named("a.pkl")).await;
    problem(pickle, 422, "pickle_refused").await;
    let made = json_of(
        app.post("/v1/datasets", &named("a.jsonl")).await,
        StatusCode::CREATED,
    )
    .await;
    assert_eq!(
        (made["records"].as_u64(), made["files"][0]["name"].as_str()),
        (Some(2), Some("a.jsonl"))
    );
    assert_eq!(
        app.get(&format!("/v1/uploads/{upload}")).await.status(),
        404,
        "it was taken"
    );
    for body in [json!({}), json!({"files": []})] {
        problem(app.post("/v1/datasets", &body).await, 422, "fields_invalid").await;
    }
}

#[tokio::test]
async fn a_body_of_text_or_rows_is_the_dataset() {
    let app = TestApp::start().await;
    for (kind, body, format, records) in [
        ("text/plain", "one document", "txt", 1),
        ("text/plain; charset=utf-8", ROWS, "txt", 1),
        ("application/jsonl", ROWS, "jsonl", 2),
        ("application/x-ndjson", ROWS, "jsonl", 2),
    ] {
        let made = json_of(send_raw(&app, kind, body).await, StatusCode::CREATED).await;
        assert_eq!(
            (made["format"].as_str(), made["records"].as_u64()),
            (Some(format), Some(records)),
            "{made}"
        );
    }
    let packed = app
        .request(Method::POST, "/v1/datasets")
        .header("content-type", "text/plain")
        .header("content-encoding", "gzip");
    let packed = packed.body("x").send().await.expect("answers");
    problem(packed, 415, "unsupported_media_type").await;
    problem(
        send_raw(&app, "text/csv", "a,b").await,
        415,
        "unsupported_media_type",
    )
    .await;
}

#[tokio::test]
async fn what_is_no_dataset_is_refused_and_leaves_nothing() {
    let app = TestApp::start().await;
    let two = form("a.txt", "text").part("file", Part::bytes(ROWS.as_bytes().to_vec()).file_name("b.jsonl"));
    for (form, code, says) in [
        (
            form("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \n"),
            "invalid_json",
            "a.jsonl, line 2",
        ),
        (
            form("a.jsonl", "{\"text\": \"x\"}\n{\"txt\": 1}\n"),
            "invalid_record",
            "a.jsonl, line 2",
        ),
        (form("a.txt", " \n"), "empty_dataset", "no record"),
        (
            form("a.parquet", "PAR1"),
            "unknown_dataset_format",
            "one object a line",
        ),
        (two, "mixed_dataset", "make two datasets"),
    ] {
        let refused = problem(send(&app, form).await, 422, code).await;
        assert!(text(&refused["detail"]).contains(says), "{refused}");
        assert_eq!(refused["errors"][0]["pointer"], "/files", "{refused}");
        assert_eq!(refused["type"], "/docs#problem-dataset_rejected");
    }
    problem(
        send(&app, Form::new().text("bogus", "x")).await,
        422,
        "fields_invalid",
    )
    .await;
    problem(
        send_raw(&app, "application/jsonl", "{").await,
        422,
        "invalid_json",
    )
    .await;
    let list = json_of(app.get("/v1/datasets").await, StatusCode::OK).await;
    assert_eq!(list["data"], json!([]));
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn datasets_come_in_pages_newest_first() {
    let app = TestApp::start().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(dataset(&app).await["id"].clone());
    }
    made.reverse();
    let first = json_of(app.get("/v1/datasets?limit=2").await, StatusCode::OK).await;
    let cursor = text(&first["next_cursor"]);
    let rest = json_of(
        app.get(&format!("/v1/datasets?after={cursor}")).await,
        StatusCode::OK,
    )
    .await;
    let ids = |page: &Value| -> Vec<Value> {
        let rows = page["data"].as_array().expect("rows").iter();
        rows.map(|row| row["id"].clone()).collect()
    };
    assert_eq!([ids(&first), ids(&rest)].concat(), made);
    let stranger = app.get(&format!("/v1/models?after={cursor}")).await;
    problem(stranger, 400, "cursor_mismatch").await;
}

#[tokio::test]
async fn a_recipe_names_a_dataset_by_its_id() {
    let app = TestApp::start().await;
    let (model, dataset) = (app.model().await, dataset(&app).await);
    for name in [text(&dataset["id"]), "builtin".to_owned()] {
        let planned = app.post("/v1/plans", &asked(&model, &name)).await;
        let plan = json_of(planned, StatusCode::OK).await;
        assert_eq!(plan["plan"]["recipe"]["calibration"]["dataset"], name.as_str());
    }
    let missing = format!("ds_{}", "0".repeat(32));
    for name in [missing.as_str(), "tickets", "/etc/passwd"] {
        for path in ["/v1/plans", "/v1/jobs"] {
            let refused = problem(app.post(path, &asked(&model, name)).await, 422, "recipe_refused").await;
            assert_eq!(
                refused["errors"][0]["pointer"], "/recipe/calibration/dataset",
                "{refused}"
            );
            assert_eq!(refused["errors"][0]["code"], "unknown_dataset", "{refused}");
        }
    }
    let both = json!({"model": model["id"], "formats": ["safetensors"], "recipe": {"preset": "W8A16",
        "calibration": missing, "evaluation": {"dataset": "x", "metrics": ["perplexity"]}}});
    let refused = problem(app.post("/v1/plans", &both).await, 422, "recipe_refused").await;
    assert_eq!(
        refused["errors"][1]["pointer"], "/recipe/evaluation/dataset",
        "{refused}"
    );
}

#[tokio::test]
async fn a_dataset_stays_while_a_job_waits_for_it() {
    let app = TestApp::start().await;
    let (model, dataset) = (app.model().await, dataset(&app).await);
    let path = format!("/v1/datasets/{}", text(&dataset["id"]));
    let delete = || async { app.request(Method::DELETE, &path).send().await.expect("answers") };
    let job = app.post("/v1/jobs", &asked(&model, &text(&dataset["id"]))).await;
    let job = json_of(job, StatusCode::ACCEPTED).await;
    problem(delete().await, 409, "in_use").await;
    let cancel = format!("/v1/jobs/{}/cancel", text(&job["id"]));
    assert!(app.post(&cancel, &json!({})).await.status().is_success());
    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    problem(delete().await, 404, "not_found").await;
    problem(app.get("/v1/datasets/ds_x").await, 404, "not_found").await;
}
