//! Models that the server brings from elsewhere, from hosts on this machine that answer as the real ones do.

use std::time::Duration;

use modelpress_server::config::{ByteSize, Settings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::elsewhere::{COMMIT, Host, Hub, Mishap, digest};
use crate::s3::S3;
use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::{safetensors, small};

/// A checkpoint of which the weights come in two shards of a megabyte, and what else such repositories hold.
fn checkpoint() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.safetensors filter=lfs".to_vec()),
        ("README.md", b"# Tiny".to_vec()),
        ("pytorch_model.bin", vec![0x80; 2000]),
        (
            "model-00001-of-00002.safetensors",
            safetensors(&[("a.weight", [512, 512])]),
        ),
        (
            "model-00002-of-00002.safetensors",
            safetensors(&[("b.weight", [511, 512])]),
        ),
    ]
}

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

fn settings(hub: &Hub) -> Settings {
    Settings {
        hub_endpoint: Some(hub.url()),
        outbound_allowed: Some(vec!["127.0.0.1".into()]),
        ..Settings::default()
    }
}

async fn ask(app: &TestApp, body: Value) -> String {
    let made = json_of(app.post("/v1/models", &body).await, StatusCode::ACCEPTED).await;
    assert_eq!(
        (&made["status"], &made["pull"]["status"]),
        (&json!("pulling"), &json!("active"))
    );
    text(&made["id"])
}

async fn model(app: &TestApp, id: &str) -> Value {
    json_of(app.get(&format!("/v1/models/{id}")).await, StatusCode::OK).await
}

/// The model, once it is no longer being brought.
async fn brought(app: &TestApp, id: &str) -> Value {
    let look = async {
        loop {
            let model = model(app, id).await;
            if model["status"] != "pulling" {
                return model;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), look)
        .await
        .expect("ends")
}

/// Why a model could not be brought.
async fn refusal(app: &TestApp, body: Value) -> (String, String) {
    let id = ask(app, body).await;
    let model = brought(app, &id).await;
    assert_eq!(
        (&model["status"], &model["files"]),
        (&json!("failed"), &json!([])),
        "{model}"
    );
    let error = &model["pull"]["error"];
    (text(&error["code"]), text(&error["message"]))
}

fn names(model: &Value) -> Vec<&str> {
    let files = model["files"].as_array().expect("a list");
    files
        .iter()
        .map(|file| file["name"].as_str().expect("a name"))
        .collect()
}

/// The files of a checkpoint, at the commit that the revision is, with the digests that the hub promised; the token goes to
/// the hub and nowhere else, and is nowhere in the clear.
#[tokio::test]
async fn a_model_comes_from_the_hub() {
    let hub = Hub::start(&checkpoint()).await;
    hub.close("hf_secret_token");
    let app = TestApp::start_with(settings(&hub)).await;
    hub.storage.mishaps(&[Mishap::Stall(1000), Mishap::Stall(1000)]);
    let asked = json!({"source": "hf://org/tiny@refs/pr/1", "name": "Tiny", "token": "hf_secret_token"});
    let id = ask(&app, asked).await;
    hub.is_asked(2).await;
    let path = format!("/v1/models/{id}");
    let seen = model(&app, &id).await;
    assert_eq!(
        (&seen["pull"]["commit"], &seen["pull"]["files_total"]),
        (&json!(COMMIT), &json!(2))
    );
    assert!(seen["pull"]["bytes_total"].as_u64() > Some(2_000_000), "{seen}");
    for entry in std::fs::read_dir(app.dir.path().join("data")).expect("a folder") {
        let entry = entry.expect("entry").path();
        if entry.is_file() {
            let bytes = std::fs::read(&entry).expect("reads");
            let clear = bytes.windows(15).any(|window| window == b"hf_secret_token");
            assert!(!clear, "{} holds the token", entry.display());
        }
    }
    for (method, path) in [
        (Method::PUT, format!("{path}/files/config.json")),
        (Method::POST, format!("{path}/commit")),
    ] {
        let refused = app
            .request(method, &path)
            .body("{}")
            .send()
            .await
            .expect("answers");
        problem(refused, 409, "model_pulled").await;
    }

    // The server stops in the middle and another one goes on, without the token being sent again.
    let (app, ()) = app.restart_after(settings(&hub), |_folder| ()).await;
    let model = brought(&app, &id).await;
    assert_eq!(
        (&model["status"], &model["name"]),
        (&json!("ready"), &json!("Tiny")),
        "{model}"
    );
    assert_eq!(names(&model), SHARDS);
    for (file, (_, bytes)) in model["files"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(&checkpoint()[3..])
    {
        assert_eq!(file["digest"], format!("sha256:{}", digest(bytes)));
    }
    let pull = &model["pull"];
    assert_eq!((&pull["status"], &pull["error"]), (&json!("done"), &Value::Null));
    assert_eq!(
        (&pull["source"], &pull["commit"]),
        (&json!("hf://org/tiny@refs/pr/1"), &json!(COMMIT))
    );
    assert_eq!(
        (&pull["bytes_done"], &pull["files_done"]),
        (&pull["bytes_total"], &json!(2))
    );
    let storage = hub.storage.asked();
    assert!(
        storage.iter().all(|asked| asked.authorization.is_none()),
        "{storage:?}"
    );
    let went_on = storage[2..]
        .iter()
        .all(|asked| asked.range.as_deref() == Some("bytes=1000-"));
    assert!(went_on && storage.len() == 4, "{storage:?}");
    let front = hub.front.asked();
    assert!(
        front
            .iter()
            .all(|asked| asked.authorization.as_deref() == Some("Bearer hf_secret_token"))
    );

    let plan = json!({"model": id, "recipe": "W8A16", "formats": ["safetensors"]});
    json_of(app.post("/v1/plans", &plan).await, StatusCode::OK).await;
    let gone = app.request(Method::DELETE, &path).send().await.expect("answers");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

/// A connection that breaks costs what was on its way, not what had arrived; a source that is busy says when to come back.
#[tokio::test]
async fn a_file_goes_on_where_the_connection_broke() {
    let hub = Hub::start(&[("model.safetensors", safetensors(&[("a.weight", [512, 512])]))]).await;
    hub.storage.mishaps(&[
        Mishap::Cut(300_000),
        Mishap::Cut(0),
        Mishap::Cut(200_000),
        Mishap::Busy,
    ]);
    let app = TestApp::start_with(settings(&hub)).await;
    let id = ask(&app, json!({"source": "hf://org/tiny"})).await;
    let model = brought(&app, &id).await;
    assert_eq!(model["status"], "ready", "{model}");
    let ranges: Vec<Option<String>> = hub.storage.asked().into_iter().map(|asked| asked.range).collect();
    let from = |at: u64| Some(format!("bytes={at}-"));
    assert_eq!(
        ranges,
        [None, from(300_000), from(300_000), from(500_000), from(500_000)]
    );
    let metrics = app.get("/metrics").await.text().await.expect("text");
    let size = text_size(&model);
    assert!(
        metrics.contains(&format!("modelpress_pulls_received_bytes_total {size}")),
        "{metrics}"
    );
    assert!(
        metrics.contains("modelpress_pulls_total{outcome=\"done\"} 1"),
        "{metrics}"
    );
    app.stop().await;
}

fn text_size(model: &Value) -> u64 {
    model["bytes"].as_u64().expect("a size")
}

/// `DELETE` ends a pull, and nothing of it stays.
#[tokio::test]
async fn a_pull_is_ended_by_deleting_its_model() {
    let hub = Hub::start(&checkpoint()).await;
    hub.storage
        .mishaps(&[Mishap::Stall(500_000), Mishap::Stall(500_000)]);
    let app = TestApp::start_with(settings(&hub)).await;
    let id = ask(&app, json!({"source": "hf://org/tiny"})).await;
    hub.is_asked(2).await;
    let path = format!("/v1/models/{id}");
    let gone = app.request(Method::DELETE, &path).send().await.expect("answers");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    problem(app.get(&path).await, 404, "not_found").await;
    let look = async {
        while !app.stored_files().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look)
        .await
        .expect("is cleared away");
    app.stop_and_expect_empty().await;
}

/// What cannot be brought ends with a reason that says what would help, and keeps no bytes.
#[tokio::test]
async fn what_cannot_be_brought_says_why() {
    let hub = Hub::start(&checkpoint()).await;
    let app = TestApp::start_with(Settings {
        tenant_max_bytes: Some(ByteSize(3_000_000)),
        ..settings(&hub)
    })
    .await;
    let expect = |body: Value, code: &'static str, says: &'static str| {
        let app = &app;
        async move {
            let (got, message) = refusal(app, body).await;
            assert!(got == code && message.contains(says), "{got}: {message}");
        }
    };
    expect(
        json!({"source": "hf://org/other"}),
        "source_not_found",
        "Repository not found",
    )
    .await;
    expect(
        json!({"source": "hf://org/tiny@v9"}),
        "source_not_found",
        "Invalid rev id",
    )
    .await;
    let named = |name: &str| json!({"source": "hf://org/tiny", "include": [name]});
    expect(named("*.bin"), "pickle_refused", "safetensors").await;
    expect(named("*.onnx"), "no_model_files", "*.onnx").await;
    expect(named("README.md"), "unknown_model_format", "safetensors").await;
    hub.storage.mishaps(&[Mishap::Garble, Mishap::Garble]);
    expect(named(SHARDS[0]), "digest_mismatch", "was to have").await;
    hub.close("hf_right");
    expect(
        json!({"source": "hf://org/tiny"}),
        "source_forbidden",
        "send token",
    )
    .await;
    expect(
        json!({"source": "hf://org/tiny", "token": "hf_wrong"}),
        "source_forbidden",
        "terms",
    )
    .await;

    let fits = json!({"source": "hf://org/tiny", "token": "hf_right"});
    let id = ask(&app, fits.clone()).await;
    assert_eq!(brought(&app, &id).await["status"], "ready");
    expect(fits, "stored_bytes_exceeded", "make room").await;
    let kept = app
        .request(Method::DELETE, &format!("/v1/models/{id}"))
        .send()
        .await
        .expect("answers");
    assert_eq!(kept.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

/// Nothing is asked for that would eat into the space that stays free.
#[tokio::test]
async fn the_disk_keeps_its_reserve() {
    let hub = Hub::start(&checkpoint()).await;
    let app = TestApp::start_with(Settings {
        reserve_bytes: Some(ByteSize(1 << 60)),
        ..settings(&hub)
    })
    .await;
    let (code, message) = refusal(&app, json!({"source": "hf://org/tiny"})).await;
    assert_eq!(code, "disk_full", "{message}");
    assert!(hub.storage.asked().is_empty(), "not a byte was asked for");
    app.stop_and_expect_empty().await;
}

/// Wherever a source leads, no address inside the network is connected to, and no answer of one is shown.
#[tokio::test]
async fn sources_that_lead_inside_are_refused() {
    let hub = Hub::start(&checkpoint()).await;
    let app = TestApp::start_with(settings(&hub)).await;
    let inside = Host::files().await;
    inside.put("/secret", vec![7; 2000]);
    let port = inside.address.port();
    for url in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        format!("https://[::1]:{port}/secret"),
        format!("http://[::1]:{port}/secret"),
        format!("http://0.0.0.0:{port}/secret"),
        "file:///etc/passwd".to_owned(),
    ] {
        hub.detour(&url);
        let (code, message) = refusal(&app, json!({"source": "hf://org/tiny"})).await;
        assert_eq!(code, "source_not_allowed", "{url}: {message}");
    }
    assert!(inside.asked().is_empty(), "nobody was called");
    app.stop().await;

    // A hub whose name leads inside is no better.
    let settings = Settings {
        hub_endpoint: Some(format!("https://localhost:{port}")),
        ..Settings::default()
    };
    let app = TestApp::start_with(settings).await;
    let (code, _) = refusal(&app, json!({"source": "hf://org/tiny"})).await;
    assert_eq!(code, "source_not_allowed");
    assert!(inside.asked().is_empty());
    app.stop().await;
}

/// A file of a web server, and those of a list with their digests, where the operator allows it.
#[tokio::test]
async fn a_web_server_is_a_source_where_it_is_allowed() {
    let host = Host::files().await;
    let other = safetensors(&[("d.weight", [64, 64])]);
    host.put("/models/plain.safetensors", small());
    host.put("/models/deep/er/other.safetensors", other.clone());
    let sums = format!(
        "{}  plain.safetensors\n{} *deep/er/other.safetensors\n",
        digest(&small()),
        digest(&other)
    );
    host.put("/models/SHA256SUMS", sums.into_bytes());
    host.put(
        "/models/wrong/SHA256SUMS",
        format!("{}  ../plain.safetensors\n", digest(b"")).into_bytes(),
    );
    host.put("/models/garbage.safetensors", vec![1; 2000]);
    let app = TestApp::start_with(Settings {
        outbound_allowed: Some(vec!["127.0.0.1".into()]),
        pull_allowed: Some(vec![host.url("/models/")]),
        ..Settings::default()
    })
    .await;
    let from = |path: &str| json!({"source": host.url(path)});
    let one = ask(&app, from("/models/plain.safetensors")).await;
    let one = brought(&app, &one).await;
    assert_eq!(
        (&one["status"], &one["format"]),
        (&json!("ready"), &json!("safetensors")),
        "{one}"
    );
    assert_eq!(names(&one), ["plain.safetensors"]);
    assert_eq!(one["pull"]["commit"], Value::Null);
    let list = json!({"source": host.url("/models/SHA256SUMS"), "include": ["*.safetensors"]});
    let two = ask(&app, list).await;
    let two = brought(&app, &two).await;
    assert_eq!(two["status"], "ready", "{two}");
    assert_eq!(names(&two), ["deep/er/other.safetensors", "plain.safetensors"]);
    let (code, message) = refusal(&app, from("/models/wrong/SHA256SUMS")).await;
    assert!(code == "source_broken" && message.contains("line 1"), "{message}");
    let (code, _) = refusal(&app, from("/models/garbage.safetensors")).await;
    assert_ne!(code, "internal");
    for url in [
        host.url("/secret"),
        "https://example.com/m.gguf".into(),
        host.url("/models/../secret"),
    ] {
        problem(
            app.post("/v1/models", &json!({"source": url})).await,
            403,
            "source_not_allowed",
        )
        .await;
    }
    app.stop().await;
}

/// Objects under a prefix of a bucket, where the operator names it and says how it is reached.
#[tokio::test]
async fn a_bucket_is_a_source_where_it_is_allowed() {
    let s3 = S3::start();
    let folder = s3.folder().join("models/tiny/deep");
    std::fs::create_dir_all(&folder).expect("made");
    let weights = safetensors(&[("a.weight", [512, 512])]);
    std::fs::write(folder.with_file_name("model.safetensors"), &weights).expect("written");
    std::fs::write(folder.with_file_name("notes.md"), "x").expect("written");
    std::fs::write(folder.join("other.safetensors"), small()).expect("written");
    std::fs::write(s3.folder().join("secret.safetensors"), small()).expect("written");
    let app = TestApp::start_with(Settings {
        pull_allowed: Some(vec![s3.url("models")]),
        ..Settings::default()
    })
    .await;
    let id = ask(&app, json!({"source": "s3://bucket/models/tiny"})).await;
    let model = brought(&app, &id).await;
    assert_eq!(
        (&model["status"], names(&model)),
        (&json!("ready"), vec!["model.safetensors"]),
        "{model}"
    );
    assert_eq!(
        model["files"][0]["digest"],
        format!("sha256:{}", digest(&weights))
    );
    let one = ask(
        &app,
        json!({"source": "s3://bucket/models/tiny/deep/other.safetensors"}),
    )
    .await;
    let one = brought(&app, &one).await;
    assert_eq!(one["status"], "ready", "{one}");
    let (code, message) = refusal(&app, json!({"source": "s3://bucket/models/nothing"})).await;
    assert!(
        code == "source_not_found" && !message.contains("secret"),
        "{code}: {message}"
    );
    for source in [
        "s3://bucket/secret.safetensors",
        "s3://bucket",
        "s3://bucket/models-of-others",
        "s3://other/models",
    ] {
        problem(
            app.post("/v1/models", &json!({"source": source})).await,
            403,
            "source_not_allowed",
        )
        .await;
    }
    app.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_meant_are_refused() {
    let app = TestApp::start().await;
    for (body, at) in [
        (json!({"source": "org/name"}), "/source"),
        (json!({"source": "hf://org/name@../x"}), "/source"),
        (json!({"source": "hf://org/name", "files": []}), "/source"),
        (json!({"source": "hf://org/name", "source_path": "/x"}), "/source"),
        (json!({"source": "hf://org/name", "include": [""]}), "/include/0"),
        (json!({"source": "hf://org/name", "token": "two words"}), "/token"),
        (json!({"token": "hf_x"}), "/token"),
        (json!({"include": ["*"]}), "/include"),
    ] {
        let refused = problem(app.post("/v1/models", &body).await, 422, "fields_invalid").await;
        assert_eq!(refused["errors"][0]["pointer"], at, "{refused}");
        assert!(!refused.to_string().contains("hf_x") && !refused.to_string().contains("two words"));
    }
    problem(
        app.post("/v1/models", &json!({"source": "s3://bucket/x"})).await,
        403,
        "source_not_allowed",
    )
    .await;
    app.stop_and_expect_empty().await;
}
