//! The embedded pages.

use reqwest::{Method, StatusCode};

use crate::support::app::{TestApp, problem};

#[tokio::test]
async fn pages_load_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    for path in ["/", "/docs"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let html = response.text().await.expect("text");
        assert!(
            !html.contains("http://") && !html.contains("https://"),
            "{path} names another host"
        );
        for asset in html
            .split("\"assets/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            let response = app.get(&format!("/assets/{asset}")).await;
            assert_eq!(response.status(), StatusCode::OK, "{asset}");
            let etag = response.headers()["etag"].clone();
            let again = app
                .request(Method::GET, &format!("/assets/{asset}"))
                .header("if-none-match", etag)
                .send()
                .await;
            assert_eq!(again.expect("answers").status(), StatusCode::NOT_MODIFIED);
        }
    }
    problem(app.get("/assets/other.js").await, 404, "not_found").await;
    problem(app.get("/assets/..%2fdocs.html").await, 404, "not_found").await;
}

/// The first screen's commands are the ones that work: without its tokenizer no model becomes a GGUF.
#[tokio::test]
async fn the_first_commands_send_what_the_recipe_needs() {
    let app = TestApp::start().await;
    let script = app.get("/assets/home.js").await.text().await.expect("text");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(script.contains(&format!("-F file=@{file}")), "{file}");
    }
    let page = app.get("/").await.text().await.expect("text");
    assert!(page.contains(">Recipe<"), "which job is which");
}
