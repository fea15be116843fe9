//! Models registered from the server's own disk.

use modelpress_server::config::Settings;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::small;

async fn app_with(root: &std::path::Path) -> TestApp {
    TestApp::start_with(Settings {
        allowed_model_paths: Some(vec![root.to_owned()]),
        ..Settings::default()
    })
    .await
}

#[tokio::test]
async fn a_folder_is_registered_where_it_lies() {
    let disk = tempfile::tempdir().expect("temp dir");
    let model = disk.path().join("m");
    std::fs::create_dir(&model).expect("made");
    std::fs::write(model.join("model.safetensors"), small()).expect("written");
    std::fs::write(model.join(".hidden"), "x").expect("written");
    std::fs::write(model.join("pytorch_model.bin"), "x").expect("written");
    let app = app_with(disk.path()).await;
    let made = json_of(
        app.post("/v1/models", &json!({"source_path": model})).await,
        StatusCode::CREATED,
    )
    .await;
    assert_eq!(made["status"], "ready");
    assert_eq!(
        made["files"].as_array().map(Vec::len),
        Some(1),
        "hidden files and pickles are left out"
    );
    let bytes: u64 = app
        .stored_files()
        .iter()
        .map(|f| {
            app.dir
                .path()
                .join("data/store")
                .join(f)
                .metadata()
                .expect("file")
                .len()
        })
        .sum();
    assert!(bytes < small().len() as u64, "the weights are not copied");

    std::fs::write(model.join("model.safetensors"), b"changed").expect("written");
    let plan = app
        .post(
            "/v1/plans",
            &json!({"model": text(&made["id"]), "recipe": "W8A16", "formats": ["safetensors"]}),
        )
        .await;
    problem(plan, 409, "source_changed").await;
}

#[tokio::test]
async fn paths_outside_are_refused_alike() {
    let disk = tempfile::tempdir().expect("temp dir");
    let outside = tempfile::tempdir().expect("temp dir");
    std::fs::write(outside.path().join("model.safetensors"), small()).expect("written");
    std::os::unix::fs::symlink(outside.path(), disk.path().join("link")).expect("linked");
    let model = disk.path().join("m");
    std::fs::create_dir(&model).expect("made");
    std::os::unix::fs::symlink(
        outside.path().join("model.safetensors"),
        model.join("model.safetensors"),
    )
    .expect("linked");
    let app = app_with(disk.path()).await;
    let escape = disk.path().join("../../etc");
    for path in [
        outside.path().to_owned(),
        disk.path().join("link"),
        model,
        escape,
        "/nowhere".into(),
    ] {
        problem(
            app.post("/v1/models", &json!({"source_path": path})).await,
            403,
            "path_not_allowed",
        )
        .await;
    }
    problem(
        app.post("/v1/models", &json!({"source_path": "relative"})).await,
        422,
        "fields_invalid",
    )
    .await;
    let none = TestApp::start().await;
    problem(
        none.post("/v1/models", &json!({"source_path": disk.path()}))
            .await,
        403,
        "path_not_allowed",
    )
    .await;
    app.stop_and_expect_empty().await;
}
