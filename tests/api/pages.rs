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
