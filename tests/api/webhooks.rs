//! Webhooks: a receiver on this machine that really listens, and what it hears.

use std::time::Duration;

use modelpress_server::config::{Auth, Settings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::support::app::{TestApp, json_of, problem, text};

fn allowing(hosts: &[&str]) -> Settings {
    Settings {
        outbound_allowed: Some(hosts.iter().map(|host| (*host).to_owned()).collect()),
        ..Settings::default()
    }
}

/// A server that may call its own machine.
async fn started() -> TestApp {
    TestApp::start_with(allowing(&["127.0.0.1"])).await
}

async fn hook(app: &TestApp, body: &Value) -> (String, String) {
    let made = json_of(app.post("/v1/webhooks", body).await, StatusCode::CREATED).await;
    assert!(made["webhook"].get("secret").is_none(), "{made}");
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

async fn empty_post(app: &TestApp, path: &str) -> reqwest::Response {
    app.request(Method::POST, path).send().await.expect("answers")
}

/// The messages of a webhook, once none of them waits any more, newest first.
async fn settled(app: &TestApp, hook: &str) -> Vec<Value> {
    let look = async {
        loop {
            let page = app.get(&format!("/v1/webhooks/{hook}/deliveries")).await;
            let page = json_of(page, StatusCode::OK).await;
            let list = page["data"].as_array().expect("a list").clone();
            if list.iter().all(|message| message["status"] != "pending") {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look)
        .await
        .expect("settles")
}

async fn job(app: &TestApp) -> Value {
    let model = app.model().await;
    let asked = json!({"model": model["id"], "recipe": "W8A16", "formats": ["safetensors"]});
    json_of(app.post("/v1/jobs", &asked).await, StatusCode::ACCEPTED).await
}

/// A job's changes arrive, signed, as small notices; only those that were asked for.
#[tokio::test]
async fn changes_of_jobs_arrive_signed() {
    let (app, receiver) = (started().await, Receiver::start(&[]).await);
    let asked =
        json!({"url": receiver.url(), "description": "ci", "events": ["job.queued", "job.cancelled"]});
    let (id, secret) = hook(&app, &asked).await;
    let job = job(&app).await;
    let queued = receiver.hears(1).await.remove(0);
    empty_post(&app, &format!("/v1/jobs/{}/cancel", text(&job["id"]))).await;
    let cancelled = receiver.hears(2).await.remove(1);
    assert_eq!(queued.head[0], "POST /hook HTTP/1.1");
    assert_eq!(queued.header("content-type"), "application/json");
    for (heard, kind) in [(&queued, "job.queued"), (&cancelled, "job.cancelled")] {
        assert!(heard.is_signed_by(&[&secret]), "{heard:?}");
        let body: Value = serde_json::from_str(&heard.body).expect("JSON");
        assert_eq!((&body["type"], &body["data"]["id"]), (&json!(kind), &job["id"]));
        assert_eq!(body["data"]["model"], job["model"]);
        assert!(body["timestamp"].is_string(), "{body}");
    }
    let list = settled(&app, &id).await;
    assert_eq!(list.len(), 2);
    assert_eq!(text(&list[0]["id"]), cancelled.header("webhook-id"));
    let attempt = &list[0]["attempts"][0];
    assert_eq!(
        (&attempt["status_code"], &attempt["number"]),
        (&json!(204), &json!(1))
    );
    let seen = json_of(app.get(&format!("/v1/webhooks/{id}")).await, StatusCode::OK).await;
    assert_eq!(
        (&seen["status"], &seen["description"]),
        (&json!("enabled"), &json!("ci"))
    );
    assert!(
        seen["last_success_at"].is_string() && seen.get("secret").is_none(),
        "{seen}"
    );
    let metrics = app.get("/metrics").await.text().await.expect("text");
    assert!(
        metrics.contains("modelpress_webhook_deliveries_total{outcome=\"succeeded\"} 2"),
        "{metrics}"
    );
    app.stop().await;
}

/// A receiver that is out for a moment says when to come back, and gets the same message then.
#[tokio::test]
async fn a_failed_try_is_made_again() {
    let script = ["503 Out\r\nretry-after: 1|not now", "200 OK|thanks"];
    let (app, receiver) = (started().await, Receiver::start(&script).await);
    let (id, _) = hook(&app, &json!({"url": receiver.url()})).await;
    let sent = json_of(
        empty_post(&app, &format!("/v1/webhooks/{id}/test")).await,
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(
        (&sent["status"], &sent["event"]),
        (&json!("pending"), &json!("webhook.test"))
    );
    let heard = receiver.hears(2).await;
    assert_eq!(heard[0].header("webhook-id"), heard[1].header("webhook-id"));
    assert_eq!(heard[0].header("webhook-id"), sent["id"]);
    assert_eq!(heard[0].body, heard[1].body);
    let stamp = |n: usize| {
        heard[n]
            .header("webhook-timestamp")
            .parse::<i64>()
            .expect("a number")
    };
    assert!(stamp(1) > stamp(0), "of the try, not of the message");
    let message = settled(&app, &id).await.remove(0);
    assert_eq!(message["status"], "succeeded");
    let tries = message["attempts"].as_array().expect("a list");
    assert_eq!(
        (&tries[0]["status_code"], &tries[0]["response"]),
        (&json!(503), &json!("not now"))
    );
    assert!(text(&tries[0]["error"]).contains("2xx"), "{message}");
    assert_eq!(
        (&tries[1]["status_code"], &tries[1]["error"]),
        (&json!(200), &Value::Null)
    );

    let path = format!("/v1/webhooks/{id}/deliveries/{}/replay", text(&message["id"]));
    json_of(empty_post(&app, &path).await, StatusCode::ACCEPTED).await;
    let heard = receiver.hears(3).await;
    assert_eq!(
        (heard[2].header("webhook-id"), &heard[2].body),
        (heard[0].header("webhook-id"), &heard[0].body)
    );
    assert_eq!(
        settled(&app, &id).await[0]["attempts"].as_array().map(Vec::len),
        Some(3)
    );
    app.stop().await;
}

/// Redirects lead nowhere; 410 turns the webhook off, which the audit log says; its owner turns it on again.
#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled() {
    let elsewhere = Receiver::start(&[]).await;
    let redirect: &'static str =
        Box::leak(format!("307 Moved\r\nlocation: {}", elsewhere.url()).into_boxed_str());
    let (app, receiver) = (started().await, Receiver::start(&[redirect, "410 Gone"]).await);
    let (id, _) = hook(&app, &json!({"url": receiver.url(), "events": ["job.failed"]})).await;
    let test = format!("/v1/webhooks/{id}/test");
    let first = json_of(empty_post(&app, &test).await, StatusCode::ACCEPTED).await;
    receiver.hears(1).await;
    json_of(empty_post(&app, &test).await, StatusCode::ACCEPTED).await;
    receiver.hears(2).await;
    let list = settled(&app, &id).await;
    assert_eq!(
        (list.len(), &list[0]["status"], &list[1]["status"]),
        (2, &json!("failed"), &json!("failed"))
    );
    let moved = &list[1]["attempts"][0];
    assert_eq!(
        (&list[1]["id"], &moved["status_code"]),
        (&first["id"], &json!(307))
    );
    assert!(
        text(&moved["error"]).contains("redirects are not followed"),
        "{moved}"
    );
    assert!(elsewhere.heard().is_empty());

    let path = format!("/v1/webhooks/{id}");
    let seen = json_of(app.get(&path).await, StatusCode::OK).await;
    assert_eq!(
        (&seen["status"], &seen["disabled_reason"]),
        (&json!("disabled"), &json!("it answered 410 Gone"))
    );
    let audit = json_of(app.get("/v1/audit?limit=1").await, StatusCode::OK).await;
    assert_eq!(
        audit["data"][0]["action"],
        "webhook.disabled: it answered 410 Gone"
    );
    assert_eq!(audit["data"][0]["target"], id);
    problem(empty_post(&app, &test).await, 409, "conflict").await;

    let patch = app
        .request(Method::PATCH, &path)
        .json(&json!({"enabled": true, "description": null}));
    let seen = json_of(patch.send().await.expect("answers"), StatusCode::OK).await;
    assert_eq!(
        (&seen["status"], &seen["events"]),
        (&json!("enabled"), &json!(["job.failed"]))
    );
    json_of(empty_post(&app, &test).await, StatusCode::ACCEPTED).await;
    receiver.hears(3).await;
    assert_eq!(settled(&app, &id).await[0]["status"], "succeeded");
    let gone = app.request(Method::DELETE, &path).send().await.expect("answers");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    problem(app.get(&path).await, 404, "not_found").await;
    app.stop().await;
}

/// While a secret is rotated the receiver may know either.
#[tokio::test]
async fn both_secrets_sign_for_a_while() {
    let (app, receiver) = (started().await, Receiver::start(&[]).await);
    let (id, old) = hook(&app, &json!({"url": receiver.url()})).await;
    let (test, rotate) = (
        format!("/v1/webhooks/{id}/test"),
        format!("/v1/webhooks/{id}/rotate"),
    );
    let rotated = app.post(&rotate, &json!({"overlap_seconds": 3600})).await;
    let rotated = json_of(rotated, StatusCode::OK).await;
    let new = text(&rotated["secret"]);
    assert!(
        new != old && rotated["webhook"]["old_secret_until"].is_string(),
        "{rotated}"
    );
    empty_post(&app, &test).await;
    assert!(receiver.hears(1).await[0].is_signed_by(&[&new, &old]));
    let again = json_of(
        app.post(&rotate, &json!({"overlap_seconds": 0})).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(again["webhook"]["old_secret_until"], Value::Null);
    empty_post(&app, &test).await;
    assert!(receiver.hears(2).await[1].is_signed_by(&[&text(&again["secret"])]));
    let long = app.post(&rotate, &json!({"overlap_seconds": 2_592_001})).await;
    assert_eq!(
        problem(long, 422, "fields_invalid").await["errors"][0]["pointer"],
        "/overlap_seconds"
    );
    app.stop().await;
}

/// What leads inside the network is refused when it is asked for, in every spelling, and so is what is no such URL.
#[tokio::test]
async fn urls_that_lead_inside_are_refused() {
    let app = TestApp::start().await;
    for url in [
        "https://127.0.0.1/hook",
        "https://2130706433/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost:8080/hook",
        "http://example.com/hook",
        "https://me:secret@example.com/",
        "ftp://example.com/",
        "hook",
        "",
    ] {
        let refused = problem(
            app.post("/v1/webhooks", &json!({"url": url})).await,
            422,
            "fields_invalid",
        )
        .await;
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/url"), &json!("url_not_allowed")),
            "{url}"
        );
    }
    let wrong = app
        .post(
            "/v1/webhooks",
            &json!({"url": "https://example.com/", "events": ["job.done"]}),
        )
        .await;
    let wrong = problem(wrong, 422, "fields_invalid").await;
    assert_eq!(wrong["errors"][0]["pointer"], "/events/0");
    assert!(text(&wrong["detail"]).contains("job.succeeded"), "{wrong}");
    let list = json_of(app.get("/v1/webhooks").await, StatusCode::OK).await;
    assert_eq!(list["data"], json!([]));
    app.stop().await;
}

/// A webhook that was fine when it was made is looked at again whenever something is sent to it: a name may lead
/// elsewhere by then, and the operator may have changed their mind.
#[tokio::test]
async fn addresses_are_looked_at_again_when_something_is_sent() {
    let receiver = Receiver::start(&[]).await;
    let app = TestApp::start_with(allowing(&["127.0.0.1", "::1", "localhost"])).await;
    let port = receiver.address.port();
    let mut hooks = Vec::new();
    for url in [
        format!("https://localhost:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        receiver.url(),
    ] {
        hooks.push(hook(&app, &json!({"url": url})).await.0);
    }
    let (app, ()) = app.restart_after(Settings::default(), |_folder| ()).await;
    for id in &hooks {
        empty_post(&app, &format!("/v1/webhooks/{id}/test")).await;
    }
    for (id, says) in hooks
        .iter()
        .zip(["not on", "leads to 127.0.0.1", "must begin with https"])
    {
        let look = async {
            loop {
                let page = json_of(
                    app.get(&format!("/v1/webhooks/{id}/deliveries")).await,
                    StatusCode::OK,
                )
                .await;
                if let Some(error) = page["data"][0]["attempts"][0]["error"].as_str() {
                    return error.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(30), look)
            .await
            .expect("is tried");
        assert!(
            error.contains(says) || error.contains("outbound_allowed"),
            "{error}"
        );
    }
    assert!(receiver.heard().is_empty(), "nobody was called");
    app.stop().await;
}

/// A key of `jobs:write` cannot make one, a reader cannot change one, and another tenant sees none.
#[tokio::test]
async fn webhooks_are_for_those_who_may() {
    let app = TestApp::start().await;
    let asked = json!({"name": "admin", "scopes": ["admin"]});
    let admin = json_of(app.post("/v1/keys", &asked).await, StatusCode::CREATED).await;
    let made = json_of(
        app.post("/v1/webhooks", &json!({"url": "https://1.1.1.1/"}))
            .await,
        StatusCode::CREATED,
    )
    .await;
    let required = Settings {
        auth: Some(Auth::Required),
        ..Settings::default()
    };
    let (app, ()) = app.restart_after(required, |_folder| ()).await;
    let admin = text(&admin["token"]);
    let key = |scope: &'static str| {
        let (app, admin) = (&app, &admin);
        async move {
            let asked = json!({"name": "k", "scopes": [scope]});
            let made = app
                .request(Method::POST, "/v1/keys")
                .bearer_auth(admin)
                .json(&asked);
            text(&json_of(made.send().await.expect("answers"), StatusCode::CREATED).await["token"])
        }
    };
    let (reader, writer) = (key("webhooks:read").await, key("jobs:write").await);
    let path = format!("/v1/webhooks/{}", text(&made["webhook"]["id"]));
    let ask = |key: String, method: Method| {
        app.request(method, &path)
            .bearer_auth(key)
            .json(&json!({}))
            .send()
    };
    assert_eq!(
        ask(reader.clone(), Method::GET).await.expect("answers").status(),
        StatusCode::OK
    );
    for (key, method) in [(reader, Method::PATCH), (writer, Method::GET)] {
        problem(
            ask(key, method).await.expect("answers"),
            403,
            "insufficient_scope",
        )
        .await;
    }
    app.stop().await;
}
