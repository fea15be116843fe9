//! `/v1/searches`: several recipes on one model, and which of them are worth having.

use modelpress_server::config::Settings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::llama;
use crate::support::app::{TestApp, json_of, problem, text};

/// A tiny LLaMA that is ready, and a dataset of token ids.
pub(super) async fn model_and_data(app: &TestApp) -> (String, String) {
    let folder = tempfile::tempdir().expect("temp folder");
    llama::write(folder.path());
    let id = app.draft().await;
    for name in ["config.json", "model.safetensors"] {
        let bytes = std::fs::read(folder.path().join(name)).expect("reads");
        let put = app.put(&format!("/v1/models/{id}/files/{name}"), bytes).await;
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let commit = app.request(Method::POST, &format!("/v1/models/{id}/commit"));
    json_of(commit.send().await.expect("answers"), StatusCode::OK).await;
    let row = |r: usize| {
        let ids: Vec<usize> = (0..32)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    let rows: Vec<String> = (0..12).map(row).collect();
    let request = app.request(Method::POST, "/v1/datasets");
    let request = request
        .header("Content-Type", "application/jsonl")
        .body(rows.join("\n"));
    let made = json_of(request.send().await.expect("answers"), StatusCode::CREATED).await;
    (id, text(&made["id"]))
}

/// Integers of so many bits.
fn bits(n_bits: u32) -> Value {
    json!({"stages": [{"technique": "rtn", "options": {"group_size": 32, "n_bits": n_bits}}],
        "formats": ["compressed-tensors"]})
}

fn search(model: &str, data: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "evaluation": {"dataset": data, "num_samples": 12, "max_seq_length": 32},
        "calibration": {"dataset": data, "num_samples": 8, "max_seq_length": 32}});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

async fn over(app: &TestApp, id: &str) -> Value {
    loop {
        let search = json_of(app.get(&format!("/v1/searches/{id}")).await, StatusCode::OK).await;
        if !["queued", "running"].contains(&text(&search["status"]).as_str()) {
            return search;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn with_workers(workers: usize) -> TestApp {
    TestApp::start_with(Settings {
        workers: Some(workers),
        ..Settings::default()
    })
    .await
}

fn point<'a>(search: &'a Value, name: &str) -> &'a Value {
    let points = search["points"].as_array().expect("points");
    points
        .iter()
        .find(|point| point["name"] == name)
        .expect("a point")
}

/// Six recipes of which one is refused and one fails: both are named, and the others are compared.
#[tokio::test(flavor = "multi_thread")]
async fn every_recipe_is_run_and_the_front_is_marked() {
    let app = with_workers(2).await;
    let (model, data) = model_and_data(&app).await;
    let mut gated = bits(3);
    gated["gates"] = json!({"max_kl": 1e-9});
    gated["evaluation"] = json!({"dataset": data, "num_samples": 12, "max_seq_length": 32});
    let odd = json!({"stages": [{"technique": "rtn", "options": {"group_size": 48}}], "formats": ["compressed-tensors"]});
    let grid = json!({"recipe": bits(4), "vary": {"/stages/0/options/n_bits": [8, 4, 2]}});
    let budget = json!({"stages": bits(4)["stages"], "formats": ["compressed-tensors"],
        "budget": {"target_bits_per_weight": 8, "candidates": ["W3", "W4", "W6", "W8"]}});
    let asked = search(
        &model,
        &data,
        &json!({"recipes": [gated, odd, budget], "grid": grid, "metadata": {"a": "b"}}),
    );
    let response = app.post("/v1/searches", &asked).await;
    let location = response.headers()["location"].to_str().expect("ASCII").to_owned();
    let made = json_of(response, StatusCode::ACCEPTED).await;
    let id = text(&made["id"]);
    assert_eq!(location, format!("/v1/searches/{id}"));
    assert_eq!(made["front"], json!([]));
    let refused = point(&made, "rtn (2)");
    assert_eq!(
        (&refused["status"], &refused["job"]),
        (&json!("refused"), &Value::Null)
    );
    assert_eq!(refused["error"]["code"], "group_size_does_not_divide");

    let done = over(&app, &id).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    assert_eq!(
        (&done["loss_metric"], &done["metadata"]),
        (&json!("kl"), &json!({"a": "b"}))
    );
    let failed = point(&done, "rtn");
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("quality_gate"))
    );
    assert_eq!(failed["on_front"], false);
    let budgeted = "rtn, target_bits_per_weight 8";
    let named = |bits: u32| format!("rtn, n_bits {bits}");
    let front: Vec<String> = done["front"]
        .as_array()
        .expect("a front")
        .iter()
        .map(text)
        .collect();
    assert_eq!(front.first(), Some(&named(2)), "{done}");
    assert_eq!(front.last(), Some(&named(8)));
    assert!(front.contains(&budgeted.to_owned()), "{front:?}");
    assert_eq!(point(&done, &named(2))["best_for"], "size");
    assert_eq!(point(&done, &named(8))["best_for"], "quality");
    // Numbers are those of the jobs' reports.
    for name in &front {
        let point = point(&done, name);
        let report = app.get(&format!("/v1/jobs/{}/report", text(&point["job"]))).await;
        let report = json_of(report, StatusCode::OK).await;
        assert_eq!(point["result"]["bytes"], report["formats"][0]["bytes"]);
        let kl = report["quality"]["measures"]
            .as_array()
            .expect("measures")
            .iter()
            .find(|m| m["metric"] == "kl");
        assert_eq!(point["result"]["loss"], kl.expect("a divergence")["after"]);
    }
    let listed = json_of(app.get("/v1/searches").await, StatusCode::OK).await;
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["recipes"]),
        (&json!(id), &json!(6))
    );
    app.stop().await;
}

/// The second search finds the first one's jobs waiting; what calibration finds is found once.
#[tokio::test(flavor = "multi_thread")]
async fn equal_work_is_done_once_and_calibration_too() {
    let app = with_workers(0).await;
    let (model, data) = model_and_data(&app).await;
    let budget = |bits: f64| {
        json!({"stages": bits_of(), "formats": ["compressed-tensors"],
            "budget": {"target_bits_per_weight": bits, "candidates": ["W3", "W4", "W6", "W8"]}})
    };
    let asked = search(&model, &data, &json!({"recipes": [budget(7.0), budget(9.0)]}));
    let first = json_of(app.post("/v1/searches", &asked).await, StatusCode::ACCEPTED).await;
    let second = json_of(app.post("/v1/searches", &asked).await, StatusCode::ACCEPTED).await;
    assert_ne!(first["id"], second["id"]);
    let path = format!("/v1/searches/{}/plots/front.svg", text(&first["id"]));
    problem(app.get(&path).await, 409, "not_ready").await;
    for at in 0..2 {
        assert_eq!(first["points"][at]["job"], second["points"][at]["job"]);
    }
    app.stop().await;
    let app = with_workers(1).await;
    let (model, data) = model_and_data(&app).await;
    let asked = search(&model, &data, &json!({"recipes": [budget(7.0), budget(9.0)]}));
    let made = json_of(app.post("/v1/searches", &asked).await, StatusCode::ACCEPTED).await;
    let done = over(&app, &text(&made["id"])).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    let mut known = 0;
    for at in 0..2 {
        let events = app
            .get(&format!(
                "/v1/jobs/{}/events?limit=100",
                text(&done["points"][at]["job"])
            ))
            .await;
        let events = json_of(events, StatusCode::OK).await;
        let events = events["data"].as_array().expect("events").clone();
        known += events
            .iter()
            .filter(|e| text(&e["message"]).contains("is known from an earlier job"))
            .count();
    }
    assert_eq!(known, 1, "the second job took what the first one found");
    // A recipe more: what is done is not done again.
    let more = search(
        &model,
        &data,
        &json!({"recipes": [budget(7.0), budget(9.0), bits(4)]}),
    );
    let more = json_of(app.post("/v1/searches", &more).await, StatusCode::ACCEPTED).await;
    for at in 0..2 {
        assert_eq!(more["points"][at]["job"], done["points"][at]["job"]);
        assert_eq!(more["points"][at]["status"], "succeeded");
    }
    let more = over(&app, &text(&more["id"])).await;
    assert_eq!(more["status"], "succeeded", "{more}");
    // For people: the page, and the front by itself.
    let path = format!("/v1/searches/{}", text(&more["id"]));
    let page = app
        .get(&format!("{path}/report.html"))
        .await
        .text()
        .await
        .expect("text");
    assert!(page.contains("3 recipes") && page.contains("<td>rtn"), "{page}");
    let png = app.get(&format!("{path}/plots/front.png")).await;
    assert_eq!(png.headers()["content-type"], "image/png");
    assert!(
        app.get(&format!("{path}/plots/front.svg"))
            .await
            .text()
            .await
            .expect("text")
            .starts_with("<svg")
    );
    problem(
        app.get(&format!("{path}/plots/other.svg")).await,
        404,
        "not_found",
    )
    .await;
    app.stop().await;
}

fn bits_of() -> Value {
    bits(4)["stages"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_search_cancels_its_jobs() {
    let app = with_workers(0).await;
    let (model, data) = model_and_data(&app).await;
    let asked = search(&model, &data, &json!({"recipes": [bits(8), bits(4)]}));
    let made = json_of(app.post("/v1/searches", &asked).await, StatusCode::ACCEPTED).await;
    assert_eq!(made["status"], "queued");
    let path = format!("/v1/searches/{}/cancel", text(&made["id"]));
    let cancelled = json_of(app.post(&path, &json!({})).await, StatusCode::OK).await;
    assert_eq!(cancelled["status"], "cancelled");
    assert!(cancelled["cancelled_at"].is_string());
    for point in cancelled["points"].as_array().expect("points") {
        assert_eq!(point["status"], "cancelled");
    }
    let again = json_of(app.post(&path, &json!({})).await, StatusCode::OK).await;
    assert_eq!(again["cancelled_at"], cancelled["cancelled_at"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_cannot_work_is_refused_where_it_is_wrong() {
    let app = with_workers(0).await;
    let (model, data) = model_and_data(&app).await;
    let odd = json!({"stages": [{"technique": "rtn", "options": {"group_size": 48}}], "formats": ["compressed-tensors"]});
    let none = search(&model, &data, &json!({"recipes": [odd, "Q4_K_M"]}));
    let refused = problem(app.post("/v1/searches", &none).await, 422, "recipe_refused").await;
    assert_eq!(
        refused["errors"][0]["pointer"], "/recipes/0/stages/0/options/group_size",
        "{refused}"
    );
    let missing = search(&model, &data, &json!({}));
    let refused = problem(app.post("/v1/searches", &missing).await, 422, "fields_invalid").await;
    assert_eq!(refused["errors"][0]["pointer"], "/recipes");
    let unknown = search("mdl_0", &data, &json!({"recipes": [bits(4)]}));
    let refused = problem(app.post("/v1/searches", &unknown).await, 422, "fields_invalid").await;
    assert_eq!(refused["errors"][0]["pointer"], "/model");
    problem(app.get("/v1/searches/srch_0").await, 404, "not_found").await;
    // Nothing is left of any.
    let jobs = json_of(app.get("/v1/jobs").await, StatusCode::OK).await;
    assert_eq!(jobs["data"], json!([]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_search() {
    let app = with_workers(0).await;
    let (model, data) = model_and_data(&app).await;
    let ask = |recipes: Value| {
        let body = search(&model, &data, &json!({"recipes": recipes}));
        let request = app
            .request(Method::POST, "/v1/searches")
            .header("Idempotency-Key", "\"once\"");
        request.json(&body).send()
    };
    let first = json_of(
        ask(json!([bits(8)])).await.expect("answers"),
        StatusCode::ACCEPTED,
    )
    .await;
    let again = ask(json!([bits(8)])).await.expect("answers");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(json_of(again, StatusCode::ACCEPTED).await["id"], first["id"]);
    problem(
        ask(json!([bits(4)])).await.expect("answers"),
        422,
        "idempotency_mismatch",
    )
    .await;
    app.stop().await;
}
