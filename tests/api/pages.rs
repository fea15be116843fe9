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
    problem(app.get("/assets/0/other.js").await, 404, "not_found").await;
    problem(app.get("/assets/0/..%2fdocs.html").await, 404, "not_found").await;
}

/// What has its version in its path is never asked for again; what has another one's still answers.
#[tokio::test]
async fn assets_are_kept_for_ever_under_their_version() {
    let app = TestApp::start().await;
    let page = app.get("/").await.text().await.expect("text");
    let (_, rest) = page.split_once("\"assets/").expect("an asset");
    let (version, _) = rest.split_once('/').expect("its version");
    let kept = async |version: &str| {
        let response = app.get(&format!("/assets/{version}/style.css")).await;
        response.headers()["cache-control"]
            .to_str()
            .expect("ASCII")
            .to_owned()
    };
    assert!(kept(version).await.contains("immutable"));
    assert_eq!(kept("0123456789abcdef").await, "no-cache");
    let request = app.request(Method::GET, &format!("/assets/{version}/style.css"));
    let packed = request
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect("answers");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
}
