//! `TestApp`: the real server, started and stopped by a test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelpress_server::app::App;
use modelpress_server::child::Host;
use modelpress_server::config::{Config, Settings};
use modelpress_server::domain::ports::Stores;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::memory::MemoryStore;

/// A running server and its folder.
pub struct TestApp {
    pub dir: TempDir,
    pub address: SocketAddr,
    pub memory: Arc<MemoryStore>,
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl TestApp {
    /// The server as it is: an SQLite file in the folder. No workers, so that a job stays where a test puts it.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// The same with other settings.
    pub async fn start_with(settings: Settings) -> Self {
        let dir = TempDir::new().expect("temp dir");
        let app = App::start(config(&dir, settings)).await.expect("starts");
        Self::run(dir, app, Arc::default())
    }

    /// A server over a store in memory, whose rows a test can set and which it can make fail.
    pub async fn scripted() -> Self {
        Self::scripted_with(Settings::default()).await
    }

    /// The same with other settings.
    pub async fn scripted_with(settings: Settings) -> Self {
        let dir = TempDir::new().expect("temp dir");
        let memory = Arc::new(MemoryStore::default());
        let store: Arc<dyn Stores> = memory.clone();
        let app = App::start_with(config(&dir, settings), store)
            .await
            .expect("starts");
        Self::run(dir, app, memory)
    }

    /// Stops, does something while no server runs, and starts over the same folder.
    pub async fn restart_after<T>(self, settings: Settings, between: impl FnOnce(&Path) -> T) -> (Self, T) {
        let Self {
            dir, stop, running, ..
        } = self;
        drop(stop);
        running.await.expect("ended in order");
        let done = between(dir.path());
        let app = App::start(config(&dir, settings)).await.expect("starts");
        (Self::run(dir, app, Arc::default()), done)
    }

    fn run(dir: TempDir, app: App, memory: Arc<MemoryStore>) -> Self {
        let address = app.address().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async {
            let _dropped_means_stop = stopped.await;
        }));
        Self {
            dir,
            address,
            memory,
            client: Client::new(),
            stop: Some(stop),
            running,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("answers")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .json(body)
            .send()
            .await
            .expect("answers")
    }

    pub async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(Method::PUT, path)
            .body(body)
            .send()
            .await
            .expect("answers")
    }

    /// A draft model's id.
    pub async fn draft(&self) -> String {
        let model = json_of(
            self.post("/v1/models", &serde_json::json!({})).await,
            StatusCode::CREATED,
        )
        .await;
        text(&model["id"])
    }

    /// A ready model of one small file.
    pub async fn model(&self) -> Value {
        let id = self.draft().await;
        let put = self
            .put(
                &format!("/v1/models/{id}/files/model.safetensors"),
                super::models::small(),
            )
            .await;
        assert_eq!(put.status(), StatusCode::CREATED);
        json_of(
            self.request(Method::POST, &format!("/v1/models/{id}/commit"))
                .send()
                .await
                .expect("answers"),
            StatusCode::OK,
        )
        .await
    }

    /// Every file under the blob folder, relative: to see that nothing was left behind.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        let root = self.dir.path().join("data/store");
        let mut found = Vec::new();
        walk(&root, &mut found);
        found
            .into_iter()
            .map(|p| p.strip_prefix(&root).expect("inside").to_owned())
            .collect()
    }

    /// Asks the server to drain and waits until it has ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.running.await.expect("ended in order");
    }

    /// Drains (so that nothing is still being undone) and checks that no file is left.
    pub async fn stop_and_expect_empty(mut self) {
        drop(self.stop.take());
        (&mut self.running).await.expect("ended in order");
        assert_eq!(self.stored_files(), Vec::<PathBuf>::new());
    }

    /// Asks the server to drain and goes on.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }
}

fn config(dir: &TempDir, settings: Settings) -> Config {
    let defaults = Settings {
        data_dir: Some(dir.path().join("data")),
        listen: Some("127.0.0.1:0".into()),
        workers: Some(0),
        drain_seconds: Some(5),
        ..Settings::default()
    };
    let config = Config::load(None, settings.or(defaults)).expect("valid config");
    Config {
        // A test's program is not the server's.
        children: Host::of(env!("CARGO_BIN_EXE_modelpress").into()),
        ..config
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The body of a response that must have this status.
pub async fn json_of(response: Response, status: StatusCode) -> Value {
    let got = response.status();
    let body = response.text().await.expect("a body");
    assert_eq!(got, status, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// A problem: right status, type and code, with everything that every problem has.
pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    let got = response.status();
    let kind = response
        .headers()
        .get("content-type")
        .map(|v| v.to_str().expect("ASCII").to_owned());
    let id = response
        .headers()
        .get("x-request-id")
        .map(|v| v.to_str().expect("ASCII").to_owned());
    let body = response.text().await.expect("a body");
    assert_eq!(got.as_u16(), status, "{body}");
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{body}");
    let problem: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(problem["code"], code, "{body}");
    assert_eq!(problem["status"], status, "{body}");
    assert_eq!(problem["request_id"].as_str(), id.as_deref(), "{body}");
    assert!(
        problem["type"]
            .as_str()
            .is_some_and(|t| t.starts_with("/docs#problem-")),
        "{body}"
    );
    assert!(
        problem["title"].is_string() && problem["detail"].is_string() && problem["instance"].is_string(),
        "{body}"
    );
    problem
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
