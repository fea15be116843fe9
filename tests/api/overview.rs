//! The whole at a glance, and the installation.

use modelpress_server::config::Settings;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of};

async fn body(app: &TestApp, path: &str) -> Value {
    app.get(path).await.json().await.expect("JSON")
}

#[tokio::test]
async fn the_overview_counts_jobs_and_shows_the_room_that_is_left() {
    let app = TestApp::start().await;
    let empty = body(&app, "/v1/overview").await;
    assert_eq!(empty["jobs"]["queued"], 0);
    assert_eq!(empty["oldest_queued_at"], Value::Null);
    let model = app.model().await;
    let job = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    json_of(app.post("/v1/jobs", &job).await, StatusCode::ACCEPTED).await;
    let one = body(&app, "/v1/overview").await;
    assert_eq!(one["jobs"]["queued"], 1);
    assert!(one["oldest_queued_at"].is_string() && one["draining"] == json!(false));
    let of = |name: &str| one[name].as_u64().unwrap_or_else(|| panic!("{name} is a number"));
    assert!(of("stored_bytes") > 0 && of("disk_free_bytes") > 0);
    assert!(of("disk_total_bytes") >= of("disk_free_bytes"));
}

#[tokio::test]
async fn the_system_page_shows_settings_without_secrets_to_those_who_run_the_house() {
    let app = TestApp::start_with(Settings {
        workers: Some(1),
        cursor_secret: Some("a secret of thirty-two characters".to_owned()),
        ..Settings::default()
    })
    .await;
    let text = app.get("/v1/system").await.text().await.expect("text");
    assert!(!text.contains("thirty-two"), "{text}");
    let system: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(system["config"]["workers"], 1);
    assert!(system["schema_version"].as_i64() >= Some(11));
    let names: Vec<_> = system["loops"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| &l["name"])
        .collect();
    assert!(names.contains(&&json!("reap")), "{names:?}");
}
