//! Models: draft, files, commit, reading, listing, deleting.

use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::{safetensors, small};

#[tokio::test]
async fn a_draft_takes_files_and_becomes_ready() {
    let app = TestApp::start().await;
    let made = app
        .post("/v1/models", &json!({"name": "tiny", "metadata": {"team": "a"}}))
        .await;
    let location = made.headers()["location"].to_str().expect("ASCII").to_owned();
    let draft = json_of(made, StatusCode::CREATED).await;
    assert_eq!(
        (draft["status"].as_str(), draft["object"].as_str()),
        (Some("draft"), Some("model"))
    );
    assert_eq!(location, format!("/v1/models/{}", text(&draft["id"])));

    let file = json_of(
        app.put(&format!("{location}/files/model.safetensors"), small())
            .await,
        StatusCode::CREATED,
    )
    .await;
    assert_eq!(file["bytes"], small().len());
    assert_eq!(
        text(&file["digest"]),
        format!(
            "sha256:{}",
            modelpress_server::domain::model::hex(&Sha256::digest(small()))
        )
    );

    let ready = app
        .request(Method::POST, &format!("{location}/commit"))
        .send()
        .await
        .expect("answers");
    let ready = json_of(ready, StatusCode::OK).await;
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["name"], "tiny");
    assert_eq!(ready["metadata"]["team"], "a");
    assert_eq!(ready["format"], "safetensors");
    assert_eq!(ready["parameter_count"], 8 * 64 + 4 * 128 + 2 * 32);
    assert_eq!(ready["dtypes"]["F32"], 8 * 64 + 4 * 128 + 2 * 32);
    assert!(ready["committed_at"].is_string());
    assert!(text(&ready["digest"]).starts_with("sha256:"));
    assert_eq!(json_of(app.get(&location).await, StatusCode::OK).await, ready);

    let again = app
        .request(Method::POST, &format!("{location}/commit"))
        .send()
        .await
        .expect("answers");
    assert_eq!(
        json_of(again, StatusCode::OK).await,
        ready,
        "committing twice changes nothing"
    );
    problem(
        app.put(&format!("{location}/files/x.json"), "{}").await,
        409,
        "model_committed",
    )
    .await;
}

#[tokio::test]
async fn tensors_come_in_pages() {
    let app = TestApp::start().await;
    let id = text(&app.model().await["id"]);
    let first = json_of(
        app.get(&format!("/v1/models/{id}/tensors?limit=2")).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(first["data"][0]["name"], "a.weight");
    assert_eq!(first["data"][0]["shape"], json!([8, 64]));
    assert_eq!(first["data"][0]["dtype"], "F32");
    assert_eq!(first["data"][0]["bytes"], 8 * 64 * 4);
    assert_eq!(first["has_more"], true);
    let cursor = text(&first["next_cursor"]);
    let next = json_of(
        app.get(&format!("/v1/models/{id}/tensors?limit=2&after={cursor}"))
            .await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(next["data"][0]["name"], "c.weight");
    assert_eq!(
        (next["has_more"].as_bool(), next["next_cursor"].is_null()),
        (Some(false), true)
    );

    let other = text(&app.model().await["id"]);
    problem(
        app.get(&format!("/v1/models/{other}/tensors?after={cursor}"))
            .await,
        400,
        "cursor_mismatch",
    )
    .await;
    let draft = app.draft().await;
    problem(
        app.get(&format!("/v1/models/{draft}/tensors")).await,
        409,
        "not_ready",
    )
    .await;
}

#[tokio::test]
async fn models_are_listed_newest_first_and_pages_link_on() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(app.draft().await);
    }
    ids.reverse();
    let response = app.get("/v1/models?limit=2").await;
    let link = response.headers()["link"].to_str().expect("ASCII").to_owned();
    let page = json_of(response, StatusCode::OK).await;
    let listed: Vec<String> = page["data"]
        .as_array()
        .expect("list")
        .iter()
        .map(|m| text(&m["id"]))
        .collect();
    assert_eq!(listed, ids[..2]);
    let next = link.trim_start_matches('<').split('>').next().expect("a URL");
    app.draft().await;
    let page = json_of(app.get(next).await, StatusCode::OK).await;
    assert_eq!(
        text(&page["data"][0]["id"]),
        ids[2],
        "a new model does not disturb the pages"
    );
    assert_eq!(page["has_more"], false);
}

#[tokio::test]
async fn a_set_that_is_no_model_stays_a_draft_that_can_be_mended() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    let commit = format!("/v1/models/{id}/commit");
    problem(app.post(&commit, &json!({})).await, 422, "no_files").await;
    app.put(&format!("/v1/models/{id}/files/readme.txt"), "hello")
        .await;
    let refused = app.post(&commit, &json!({})).await;
    assert_eq!(refused.status(), 422);
    let mut cut = small();
    cut.truncate(cut.len() - 5);
    app.put(&format!("/v1/models/{id}/files/model.safetensors"), cut)
        .await;
    assert_eq!(
        app.post(&commit, &json!({})).await.status(),
        422,
        "truncated weights"
    );
    let model = json_of(app.get(&format!("/v1/models/{id}")).await, StatusCode::OK).await;
    assert_eq!(model["status"], "draft");
    let replaced = app
        .put(&format!("/v1/models/{id}/files/model.safetensors"), small())
        .await;
    assert_eq!(
        replaced.status(),
        StatusCode::OK,
        "a file that was there is replaced"
    );
    json_of(app.post(&commit, &json!({})).await, StatusCode::OK).await;
}

#[tokio::test]
async fn names_that_escape_are_refused_before_a_byte_is_read() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    for name in [
        "%2e%2e%2fetc%2fpasswd",
        "a%2f..%2f..%2fb",
        "%2fetc%2fpasswd",
        "a%5cb",
        "a%00b",
        "a%0ab",
        "C%3A%2fx",
        "a%2f%2fb",
    ] {
        let response = app.put(&format!("/v1/models/{id}/files/{name}"), "x").await;
        problem(response, 422, "file_name_invalid").await;
    }
    let long = "x".repeat(300);
    problem(
        app.put(&format!("/v1/models/{id}/files/{long}"), "x").await,
        422,
        "file_name_invalid",
    )
    .await;
    for name in ["pytorch_model.bin", "model.PT", "model.ckpt", "sub/model.pkl"] {
        let refused = problem(
            app.put(&format!("/v1/models/{id}/files/{name}"), "x").await,
            422,
            "pickle_refused",
        )
        .await;
        assert!(text(&refused["detail"]).contains("safetensors"));
    }
    assert_eq!(
        app.put(&format!("/v1/models/{id}/files/onnx/model.json"), "{}")
            .await
            .status(),
        StatusCode::CREATED
    );
    assert_eq!(app.stored_files().len(), 1);
}

#[tokio::test]
async fn digests_are_checked_and_answered() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    let path = format!("/v1/models/{id}/files/a.json");
    let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    let response = app
        .request(Method::PUT, &path)
        .header("repr-digest", wrong)
        .body("{}")
        .send()
        .await
        .expect("answers");
    problem(response, 400, "digest_mismatch").await;
    let response = app
        .request(Method::PUT, &path)
        .header("repr-digest", "sha-256=nonsense")
        .body("{}")
        .send()
        .await;
    problem(response.expect("answers"), 400, "header_invalid").await;
    assert!(app.stored_files().is_empty());
    let right = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:";
    let response = app
        .request(Method::PUT, &path)
        .header("repr-digest", right)
        .body("{}")
        .send()
        .await
        .expect("answers");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["repr-digest"], right);
}

#[tokio::test]
async fn files_over_the_limit_are_refused_and_leave_nothing() {
    let settings = modelpress_server::config::Settings {
        max_file_bytes: Some(modelpress_server::config::ByteSize(1000)),
        max_model_files: Some(2),
        ..Default::default()
    };
    let app = TestApp::start_with(settings).await;
    let id = app.draft().await;
    let path = format!("/v1/models/{id}/files/a.json");
    problem(app.put(&path, vec![0u8; 1001]).await, 413, "too_large").await;
    let unannounced = futures_util::stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(vec![0u8; 100])));
    problem(
        app.put(&path, reqwest::Body::wrap_stream(unannounced)).await,
        413,
        "too_large",
    )
    .await;
    assert!(app.stored_files().is_empty());
    for name in ["a.json", "b.json"] {
        assert_eq!(
            app.put(&format!("/v1/models/{id}/files/{name}"), name)
                .await
                .status(),
            StatusCode::CREATED
        );
    }
    problem(
        app.put(&format!("/v1/models/{id}/files/c.json"), "x").await,
        413,
        "too_many_files",
    )
    .await;
    assert_eq!(
        app.put(&path, "again").await.status(),
        StatusCode::OK,
        "replacing is not adding"
    );
}

#[tokio::test]
async fn a_full_disk_is_507() {
    let settings = modelpress_server::config::Settings {
        reserve_bytes: Some(modelpress_server::config::ByteSize(1 << 60)),
        ..Default::default()
    };
    let app = TestApp::start_with(settings).await;
    let id = app.draft().await;
    problem(
        app.put(&format!("/v1/models/{id}/files/a.json"), "x").await,
        507,
        "disk_full",
    )
    .await;
    assert!(app.stored_files().is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    let mut socket = tokio::net::TcpStream::connect(app.address)
        .await
        .expect("connects");
    let head =
        format!("PUT /v1/models/{id}/files/a.json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.shutdown().await.expect("closed");
    let mut answer = String::new();
    let _gone_or_answered = socket.read_to_string(&mut answer).await;
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn deleting_takes_the_files_but_not_shared_ones() {
    let app = TestApp::start().await;
    let (first, second) = (text(&app.model().await["id"]), text(&app.model().await["id"]));
    assert_eq!(app.stored_files().len(), 1, "equal bytes are stored once");
    let delete = |id: String| app.request(Method::DELETE, &format!("/v1/models/{id}")).send();
    assert_eq!(
        delete(first.clone()).await.expect("answers").status(),
        StatusCode::NO_CONTENT
    );
    problem(app.get(&format!("/v1/models/{first}")).await, 404, "not_found").await;
    problem(delete(first).await.expect("answers"), 404, "not_found").await;
    assert_eq!(app.stored_files().len(), 1);
    let job = json_of(
        app.post(
            "/v1/jobs",
            &json!({"model": second, "recipe": "W8A16", "formats": ["safetensors"]}),
        )
        .await,
        StatusCode::ACCEPTED,
    )
    .await;
    problem(delete(second.clone()).await.expect("answers"), 409, "in_use").await;
    app.post(&format!("/v1/jobs/{}/cancel", text(&job["id"])), &json!({}))
        .await;
    assert_eq!(
        delete(second).await.expect("answers").status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn sharded_models_and_side_files_are_one_set() {
    let app = TestApp::start().await;
    let id = app.draft().await;
    let shard = |name| safetensors(&[(name, [2, 32])]);
    for (name, bytes) in [
        ("model-00001-of-00002.safetensors", shard("a")),
        ("model-00002-of-00002.safetensors", shard("b")),
    ] {
        assert_eq!(
            app.put(&format!("/v1/models/{id}/files/{name}"), bytes)
                .await
                .status(),
            StatusCode::CREATED
        );
    }
    let index = json!({"metadata": {"total_size": 512}, "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    app.put(
        &format!("/v1/models/{id}/files/model.safetensors.index.json"),
        index.to_string(),
    )
    .await;
    let ready = json_of(
        app.post(&format!("/v1/models/{id}/commit"), &json!({})).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(ready["tensor_count"], 2);
    assert_eq!(ready["files"].as_array().map(Vec::len), Some(3));
}
