//! Downloads: whole, in part, not at all, and as an archive.

use modelpress_server::domain::{Artifact, ArtifactId, FileRef, JobId};
use reqwest::{Method, Response, StatusCode};

use crate::support::app::{TestApp, json_of, problem, text};
use crate::support::models::small;

/// An artifact that shares a model's blob.
async fn artifact(app: &TestApp) -> (String, String) {
    let model = app.model().await;
    let digest = text(&model["files"][0]["digest"])
        .trim_start_matches("sha256:")
        .to_owned();
    let id: ArtifactId = text(&model["id"]).replace("mdl_", "art_").parse().expect("an id");
    let job: JobId = text(&model["id"]).replace("mdl_", "job_").parse().expect("an id");
    let file = |name: &str| FileRef {
        name: name.into(),
        digest: digest.clone(),
        bytes: small().len() as u64,
    };
    let made = Artifact {
        id,
        job,
        model: text(&model["id"]).parse().expect("an id"),
        format: "gguf".into(),
        digest: "ab".repeat(32),
        files: vec![file("model.gguf"), file("sub/é \"x\".json")],
        created_at: modelpress_server::domain::ports::Clock::now(
            &modelpress_server::domain::ports::SystemClock,
        ),
    };
    app.memory.lock().artifacts.insert(id, made);
    (id.to_string(), digest)
}

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = app.request(Method::GET, path);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .send()
        .await
        .expect("answers")
}

#[tokio::test]
async fn a_file_comes_whole_with_everything_a_cache_needs() {
    let app = TestApp::scripted().await;
    let (id, digest) = artifact(&app).await;
    let shown = json_of(app.get(&format!("/v1/artifacts/{id}")).await, StatusCode::OK).await;
    assert_eq!(
        (shown["format"].as_str(), shown["bytes"].as_u64()),
        (Some("gguf"), Some(2 * small().len() as u64))
    );
    let path = format!("/v1/artifacts/{id}/files/model.gguf");
    let whole = app.get(&path).await;
    let headers = whole.headers().clone();
    assert_eq!(headers["etag"], format!("\"sha256:{digest}\"").as_str());
    assert_eq!(headers["accept-ranges"], "bytes");
    assert!(
        headers["cache-control"]
            .to_str()
            .expect("ASCII")
            .contains("immutable")
    );
    assert!(
        headers["repr-digest"]
            .to_str()
            .expect("ASCII")
            .starts_with("sha-256=:")
    );
    assert!(
        headers["content-disposition"]
            .to_str()
            .expect("ASCII")
            .contains("model.gguf")
    );
    assert_eq!(headers["content-length"], small().len().to_string().as_str());
    assert_eq!(whole.bytes().await.expect("bytes"), small());
    let head = app.request(Method::HEAD, &path).send().await.expect("answers");
    for name in [
        "etag",
        "content-length",
        "accept-ranges",
        "content-type",
        "content-disposition",
    ] {
        assert_eq!(head.headers().get(name), headers.get(name), "{name}");
    }
    let odd = app
        .get(&format!("/v1/artifacts/{id}/files/sub/%C3%A9%20%22x%22.json"))
        .await;
    assert_eq!(odd.status(), StatusCode::OK);
    problem(
        app.get(&format!("/v1/artifacts/{id}/files/other")).await,
        404,
        "not_found",
    )
    .await;
    problem(
        app.get(&format!("/v1/artifacts/{id}/files/..%2f..%2fcursor.key"))
            .await,
        404,
        "not_found",
    )
    .await;
    problem(app.get("/v1/artifacts/art_x").await, 404, "not_found").await;
}

#[tokio::test]
async fn ranges_resume_a_download() {
    let app = TestApp::scripted().await;
    let (id, digest) = artifact(&app).await;
    let path = format!("/v1/artifacts/{id}/files/model.gguf");
    let (bytes, total) = (small(), small().len());
    let etag = format!("\"sha256:{digest}\"");
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=-7", total - 7, total - 1),
    ] {
        let part = get(&app, &path, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            part.headers()["content-range"],
            format!("bytes {first}-{last}/{total}").as_str()
        );
        assert_eq!(part.bytes().await.expect("bytes"), bytes[first..=last]);
    }
    let open = get(&app, &path, &[("range", "bytes=1000-")]).await;
    assert_eq!(open.bytes().await.expect("bytes"), bytes[1000..]);
    for (name, value) in [
        ("range", "bytes=5-2"),
        ("range", "lines=1-2"),
        ("range", "bytes=0-1,5-6"),
        ("range", "nonsense"),
    ] {
        assert_eq!(
            get(&app, &path, &[(name, value)]).await.status(),
            StatusCode::OK,
            "{value} is ignored"
        );
    }
    let stale = get(&app, &path, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
    assert_eq!(stale.status(), StatusCode::OK, "a changed file is sent whole");
    let past = get(&app, &path, &[("range", "bytes=999999999-")]).await;
    assert_eq!(
        past.headers()["content-range"],
        format!("bytes */{total}").as_str()
    );
    problem(past, 416, "range_not_satisfiable").await;
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let app = TestApp::scripted().await;
    let (id, digest) = artifact(&app).await;
    let etag = format!("\"sha256:{digest}\"");
    let path = format!("/v1/artifacts/{id}/files/model.gguf");
    let same = get(&app, &path, &[("if-none-match", &etag)]).await;
    assert_eq!(
        (same.status(), same.headers()["etag"].to_str().expect("ASCII")),
        (StatusCode::NOT_MODIFIED, etag.as_str())
    );
    assert_eq!(
        get(&app, &path, &[("if-none-match", "\"other\"")]).await.status(),
        StatusCode::OK
    );
    problem(
        get(&app, &path, &[("if-match", "\"other\"")]).await,
        412,
        "precondition_failed",
    )
    .await;
}

#[tokio::test]
async fn the_archive_is_a_tar_of_the_announced_size() {
    let app = TestApp::scripted().await;
    let (id, _) = artifact(&app).await;
    let response = app.get(&format!("/v1/artifacts/{id}/archive")).await;
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    let length: usize = response.headers()["content-length"]
        .to_str()
        .expect("ASCII")
        .parse()
        .expect("a number");
    let etag = response.headers()["etag"].to_str().expect("ASCII").to_owned();
    let bytes = response.bytes().await.expect("bytes");
    assert_eq!(bytes.len(), length);
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("x.tar"), &bytes).expect("written");
    let tar = std::process::Command::new("tar")
        .args(["-xf", "x.tar"])
        .current_dir(dir.path())
        .status();
    assert!(tar.expect("tar runs").success());
    for name in ["model.gguf", "sub/é \"x\".json"] {
        assert_eq!(
            std::fs::read(dir.path().join(&id).join(name)).expect(name),
            small()
        );
    }
    let same = get(
        &app,
        &format!("/v1/artifacts/{id}/archive"),
        &[("if-none-match", &etag)],
    )
    .await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn the_catalog_lists_what_there_is() {
    let app = TestApp::start().await;
    for path in ["/v1/techniques", "/v1/formats", "/v1/presets"] {
        let list = json_of(app.get(path).await, StatusCode::OK).await;
        assert_eq!(
            (list["object"].as_str(), list["has_more"].as_bool()),
            (Some("list"), Some(false))
        );
        assert!(list["data"].is_array(), "{list}");
    }
}

#[tokio::test]
async fn formats_say_what_is_read_and_what_is_written() {
    let app = TestApp::start().await;
    let list = json_of(app.get("/v1/formats").await, StatusCode::OK).await;
    let mut seen = Vec::new();
    for format in list["data"].as_array().expect("a list") {
        let flag = |name: &str| format[name].as_bool().expect("a boolean");
        let (readable, writable) = (flag("readable"), flag("writable"));
        seen.push((text(&format["name"]), readable, writable));
        assert_eq!(format["input_summary"].is_string(), readable, "{format}");
        assert_eq!(format["options"].is_object(), writable, "{format}");
        let engines = format["engines"].as_array().expect("a list");
        assert_eq!(!engines.is_empty(), writable, "{format}");
        assert!(format["summary"].is_string(), "{format}");
    }
    let row = |name: &str, readable, writable| (name.to_owned(), readable, writable);
    assert_eq!(
        seen,
        [
            row("awq", false, true),
            row("bitsandbytes", false, true),
            row("compressed-tensors", false, true),
            row("gguf", true, true),
            row("gptq", false, true),
            row("huggingface", true, false),
            row("imatrix", false, true),
            row("low-rank", false, true),
            row("packed", false, true),
            row("peft", false, true),
            row("safetensors", true, true),
            row("tied", false, true),
        ]
    );
}
