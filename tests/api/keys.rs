//! Keys: who may enter, what for, and whose things they see.

use std::path::Path;

use modelpress_server::config::{Auth, Settings};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, json_of, problem, text};

/// A key of this tenant, made as the command line makes one.
fn command(folder: &Path, args: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .arg("keys")
        .args(args)
        .args(["--data-dir", folder.join("data").to_str().expect("UTF-8")])
        .output()
        .expect("runs")
}

async fn with_key(app: &TestApp, key: &str, method: Method, path: &str, body: Option<&Value>) -> Response {
    let request = app.request(method, path).bearer_auth(key);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    request.send().await.expect("answers")
}

async fn made(app: &TestApp, admin: &str, body: &Value) -> (String, Value) {
    let answer = with_key(app, admin, Method::POST, "/v1/keys", Some(body)).await;
    let body = json_of(answer, StatusCode::CREATED).await;
    (text(&body["token"]), body["key"].clone())
}

fn required() -> Settings {
    Settings {
        auth: Some(Auth::Required),
        ..Settings::default()
    }
}

/// A server that asks for keys, with an admin's.
async fn guarded() -> (TestApp, String) {
    let app = TestApp::start().await;
    let asked = json!({"name": "admin", "scopes": ["admin"]});
    let made = json_of(app.post("/v1/keys", &asked).await, StatusCode::CREATED).await;
    let (app, ()) = app.restart_after(required(), |_folder| ()).await;
    (app, text(&made["token"]))
}

/// Every operation of the document that names a scope refuses strangers, and keys without the scope; the others answer.
#[tokio::test]
async fn every_operation_asks_for_what_its_document_says() {
    let (app, admin) = guarded().await;
    let (narrow, _) = made(&app, &admin, &json!({"name": "n", "scopes": ["artifacts:read"]})).await;
    let (other, _) = made(&app, &admin, &json!({"name": "o", "scopes": ["uploads:write"]})).await;
    let document = json_of(app.get("/openapi.json").await, StatusCode::OK).await;
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (verb, operation) in item.as_object().expect("operations") {
            let method: Method = verb.to_uppercase().parse().expect("a method");
            let path = path.replace("{id}", "x").replace("{path}", "x");
            let stranger = app.request(method.clone(), &path).send().await.expect("answers");
            let scope = operation["security"][0]["key"][0].as_str();
            if scope.is_none() && operation["security"][0]["key"].is_array() {
                // Any key will do.
                assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED, "{verb} {path}");
                let own = json_of(with_key(&app, &narrow, method, &path, None).await, StatusCode::OK).await;
                assert_eq!(
                    (&own["scopes"], &own["key"]["name"]),
                    (&json!(["artifacts:read"]), &json!("n"))
                );
                continue;
            }
            if scope.is_none() {
                assert_ne!(stranger.status(), StatusCode::UNAUTHORIZED, "{verb} {path}");
                continue;
            }
            asked += 1;
            let challenge = stranger.headers()["www-authenticate"]
                .to_str()
                .expect("ASCII")
                .to_owned();
            assert_eq!(challenge, "Bearer realm=\"modelpress\"");
            if method != Method::HEAD {
                problem(stranger, 401, "unauthenticated").await;
            }
            let key = if scope == Some("artifacts:read") {
                &other
            } else {
                &narrow
            };
            let refused = with_key(&app, key, method.clone(), &path, None).await;
            let challenge = refused.headers()["www-authenticate"].to_str().expect("ASCII");
            assert!(challenge.contains("insufficient_scope") && challenge.contains(scope.expect("named")));
            if method != Method::HEAD {
                problem(refused, 403, "insufficient_scope").await;
            }
            let may = with_key(&app, &admin, method, &path, None).await.status();
            assert!(
                ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&may),
                "{verb} {path}: {may}"
            );
        }
    }
    assert!(asked >= 30, "only {asked} operations ask for a key");
    app.stop().await;
}

/// A wrong, mistyped, revoked or expired key gets the same answer as an unknown one.
#[tokio::test]
async fn a_key_ends() {
    let (app, admin) = guarded().await;
    let (reader, key) = made(&app, &admin, &json!({"name": "reader", "scopes": ["jobs:read"]})).await;
    let here = &app;
    let list = |token: String| async move { with_key(here, &token, Method::GET, "/v1/jobs", None).await };
    assert_eq!(list(reader.clone()).await.status(), StatusCode::OK);
    let seen = with_key(
        &app,
        &admin,
        Method::GET,
        &format!("/v1/keys/{}", text(&key["id"])),
        None,
    )
    .await;
    let seen = json_of(seen, StatusCode::OK).await;
    assert!(
        seen["last_used_at"].is_string() && seen.get("token").is_none(),
        "{seen}"
    );

    let at = reader.len() - 20;
    let typo = if reader.as_bytes()[at] == b'0' { "1" } else { "0" };
    let mut mistyped = reader.clone();
    mistyped.replace_range(at..=at, typo);
    problem(list(mistyped).await, 401, "unauthenticated").await;
    problem(list("hf_abc".into()).await, 401, "unauthenticated").await;
    let basic = app.request(Method::GET, "/v1/jobs").basic_auth("a", Some("b"));
    problem(basic.send().await.expect("answers"), 401, "unauthenticated").await;

    let rotate = format!("/v1/keys/{}/rotate", text(&key["id"]));
    let rotated = with_key(
        &app,
        &admin,
        Method::POST,
        &rotate,
        Some(&json!({"overlap_seconds": 3600})),
    )
    .await;
    let rotated = json_of(rotated, StatusCode::CREATED).await;
    assert_eq!(
        (&rotated["key"]["name"], &rotated["key"]["scopes"]),
        (&key["name"], &key["scopes"])
    );
    let second = text(&rotated["token"]);
    assert_eq!(
        list(reader.clone()).await.status(),
        StatusCode::OK,
        "both are good for an hour"
    );
    assert_eq!(list(second.clone()).await.status(), StatusCode::OK);
    let now = json!({"overlap_seconds": 0});
    let again = format!("/v1/keys/{}/rotate", text(&rotated["key"]["id"]));
    let third = with_key(&app, &admin, Method::POST, &again, Some(&now)).await;
    let third = json_of(third, StatusCode::CREATED).await;
    problem(list(second).await, 401, "unauthenticated").await;

    let path = format!("/v1/keys/{}", text(&third["key"]["id"]));
    let revoked = with_key(&app, &admin, Method::DELETE, &path, None).await;
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    problem(list(text(&third["token"])).await, 401, "unauthenticated").await;
    let rotated = with_key(
        &app,
        &admin,
        Method::POST,
        &format!("{path}/rotate"),
        Some(&json!({})),
    )
    .await;
    problem(rotated, 409, "conflict").await;
    app.stop().await;
}

/// What a wrong request for a key gets back names the field.
#[tokio::test]
async fn wrong_requests_for_keys() {
    let app = TestApp::start().await;
    for (body, at) in [
        (json!({"name": "", "scopes": ["admin"]}), "/name"),
        (json!({"name": "k", "scopes": []}), "/scopes"),
        (json!({"name": "k", "scopes": ["jobs:read", "root"]}), "/scopes/1"),
        (
            json!({"name": "k", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}),
            "/expires_at",
        ),
        (
            json!({"name": "k", "scopes": ["admin"], "tenant": "x"}),
            "/tenant",
        ),
    ] {
        let refused = problem(app.post("/v1/keys", &body).await, 422, "fields_invalid").await;
        assert_eq!(refused["errors"][0]["pointer"], at, "{refused}");
    }
    app.stop().await;
}

/// The command line makes keys of any tenant while no server runs; one tenant does not see another's models, jobs, keys.
#[tokio::test]
async fn a_tenant_sees_only_its_own() {
    let app = TestApp::start().await;
    let model = app.model().await;
    let job = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    let job = json_of(app.post("/v1/jobs", &job).await, StatusCode::ACCEPTED).await;
    let busy = command(app.dir.path(), &["create", "--name", "late"]);
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(!busy.status.success() && said.contains("POST /v1/keys"), "{said}");

    let (app, [mine, theirs]) = app
        .restart_after(required(), |folder| {
            let create = |tenant: &str| {
                let made = command(folder, &["create", "--name", "k", "--tenant", tenant]);
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                String::from_utf8(made.stdout).expect("UTF-8").trim().to_owned()
            };
            [create("default"), create("other")]
        })
        .await;
    for path in [
        format!("/v1/models/{}", text(&model["id"])),
        format!("/v1/models/{}/tensors", text(&model["id"])),
        format!("/v1/jobs/{}", text(&job["id"])),
        format!("/v1/jobs/{}/events", text(&job["id"])),
    ] {
        assert_eq!(
            with_key(&app, &mine, Method::GET, &path, None).await.status(),
            StatusCode::OK,
            "{path}"
        );
        problem(
            with_key(&app, &theirs, Method::GET, &path, None).await,
            404,
            "not_found",
        )
        .await;
    }
    for list in ["/v1/models", "/v1/jobs", "/v1/datasets", "/v1/artifacts"] {
        let page = json_of(
            with_key(&app, &theirs, Method::GET, list, None).await,
            StatusCode::OK,
        )
        .await;
        assert_eq!(page["data"], json!([]), "{list}");
    }
    // The installation is for those who run it; an overview is everybody's own.
    let house = with_key(&app, &theirs, Method::GET, "/v1/system", None).await;
    problem(house, 403, "insufficient_scope").await;
    let house = with_key(&app, &mine, Method::GET, "/v1/system", None).await;
    assert_eq!(house.status(), StatusCode::OK);
    let overview = with_key(&app, &theirs, Method::GET, "/v1/overview", None).await;
    let overview = json_of(overview, StatusCode::OK).await;
    assert_eq!(
        (&overview["jobs"]["queued"], &overview["stored_bytes"]),
        (&json!(0), &json!(0))
    );
    let keys = json_of(
        with_key(&app, &theirs, Method::GET, "/v1/keys", None).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(keys["data"].as_array().map(Vec::len), Some(1), "{keys}");
    let cancel = format!("/v1/jobs/{}/cancel", text(&job["id"]));
    problem(
        with_key(&app, &theirs, Method::POST, &cancel, None).await,
        404,
        "not_found",
    )
    .await;
    let stolen = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    let stolen = with_key(&app, &theirs, Method::POST, "/v1/jobs", Some(&stolen)).await;
    assert!(stolen.status().is_client_error(), "{stolen:?}");
    app.stop().await;
}

/// A server that others can reach does not start without a key, and says how to make one.
#[tokio::test]
async fn a_public_address_needs_a_key() {
    let folder = tempfile::tempdir().expect("temp folder");
    let settings = Settings {
        data_dir: Some(folder.path().to_owned()),
        listen: Some("0.0.0.0:0".into()),
        workers: Some(0),
        ..Settings::default()
    };
    let config = |auth| {
        let settings = Settings {
            auth,
            ..settings.clone()
        };
        modelpress_server::config::Config::load(None, settings).expect("valid")
    };
    let refused = modelpress_server::app::App::start(config(None))
        .await
        .expect_err("nobody could use it");
    let said = refused.to_string();
    assert!(
        said.contains("modelpress keys create") && said.contains("auth = \"off\""),
        "{said}"
    );
    modelpress_server::app::App::start(config(Some(Auth::Off)))
        .await
        .expect("starts");
}

/// Who changed what is written down, with key and request; what failed, or changed nothing, is not.
#[tokio::test]
async fn changes_are_written_down() {
    let (app, admin) = guarded().await;
    let (writer, key) = made(&app, &admin, &json!({"name": "w", "scopes": ["models:write"]})).await;
    let send = |method, path: String, body: Value| {
        let (app, writer) = (&app, &writer);
        async move { with_key(app, writer, method, &path, Some(&body)).await }
    };
    let model = send(Method::POST, "/v1/models".into(), json!({})).await;
    let request = model.headers()["x-request-id"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    let model = text(&json_of(model, StatusCode::CREATED).await["id"]);
    let path = format!("/v1/models/{model}");
    assert_eq!(
        send(Method::GET, path.clone(), json!({})).await.status(),
        StatusCode::OK
    );
    assert!(
        send(Method::POST, format!("{path}/commit"), json!({}))
            .await
            .status()
            .is_client_error()
    );
    assert!(
        send(Method::POST, "/v1/jobs".into(), json!({}))
            .await
            .status()
            .is_client_error()
    );
    assert_eq!(
        send(Method::DELETE, path, json!({})).await.status(),
        StatusCode::NO_CONTENT
    );

    problem(
        with_key(&app, &writer, Method::GET, "/v1/audit", None).await,
        403,
        "insufficient_scope",
    )
    .await;
    let page = with_key(&app, &admin, Method::GET, "/v1/audit?limit=3", None).await;
    let page = json_of(page, StatusCode::OK).await;
    let seen: Vec<(&str, &str)> = page["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            (
                entry["action"].as_str().expect("a word"),
                entry["target"].as_str().expect("an id"),
            )
        })
        .collect();
    let id = text(&key["id"]);
    let expected = [
        ("DELETE /v1/models/{id}", model.as_str()),
        ("POST /v1/models", model.as_str()),
        ("POST /v1/keys", id.as_str()),
    ];
    assert_eq!(seen, expected);
    let made = &page["data"][1];
    assert_eq!(
        (text(&made["key"]), text(&made["request_id"])),
        (id.clone(), request)
    );
    assert_eq!(made["client"], "127.0.0.1");
    app.stop().await;
}
