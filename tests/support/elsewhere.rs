//! Places on this machine that models come from: a hub with the paths and answers of the real one, and the host its large
//! files lie on. Connections can be cut and held up.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use modelpress_server::domain::model::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The commit that every revision is.
pub(super) const COMMIT: &str = "12fd25f77366fa6b3b4b768ec3050bf629380bac";

/// A request: its target, and what matters of its head.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) range: Option<String>,
}

/// What is sent back.
struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn of(status: &'static str, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self {
            status,
            headers: headers.collect(),
            body: body.into(),
        }
    }
}

/// What happens to an answer on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mishap {
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// Nothing comes after so many bytes, and the connection stays.
    Stall(usize),
    /// One byte is another one.
    Garble,
    /// It is out for a moment.
    Busy,
}

#[derive(Default)]
struct Inner {
    /// By path, on the host of large files and of plain ones.
    blobs: BTreeMap<String, Vec<u8>>,
    /// By name, of the repository.
    files: BTreeMap<String, Vec<u8>>,
    /// What opens the repository, if it is closed.
    token: Option<&'static str>,
    /// Where a large file leads to, if not where it lies.
    detour: Option<String>,
    mishaps: VecDeque<Mishap>,
    asked: Vec<Asked>,
}

/// One host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Host {
    async fn start(answer: impl Fn(&Host, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let host = Self {
            address: listener.local_addr().expect("bound"),
            inner: Arc::default(),
        };
        let (here, answer) = (host.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (here, answer) = (here.clone(), answer.clone());
                tokio::spawn(async move { here.serve(stream, answer.as_ref()).await });
            }
        });
        host
    }

    /// A host of plain files, which knows ranges.
    pub(super) async fn files() -> Self {
        Self::start(Self::blob).await
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.lock().blobs.insert(path.to_owned(), bytes);
    }

    /// What happens to the next answers with a body of some size.
    pub(super) fn mishaps(&self, mishaps: &[Mishap]) {
        self.lock().mishaps.extend(mishaps);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("whole")
    }

    async fn serve(&self, mut stream: TcpStream, answer: &(impl Fn(&Host, &Asked) -> Reply + Send + Sync)) {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(n) if n > 0 => read.extend_from_slice(&piece[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8(read).expect("text");
        let header = |name: &str| {
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.map(str::to_owned)
        };
        let asked = Asked {
            target: head.split(' ').nth(1).expect("a target").to_owned(),
            authorization: header("authorization"),
            range: header("range"),
        };
        self.lock().asked.push(asked.clone());
        let mut reply = answer(self, &asked);
        let mishap = if reply.body.len() > 1000 {
            self.lock().mishaps.pop_front()
        } else {
            None
        };
        if let Some(Mishap::Busy) = mishap {
            reply = Reply::of("503 Busy", &[("retry-after", "1")], "");
        }
        let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            write!(text, "{name}: {value}\r\n").expect("text");
        }
        write!(text, "content-length: {}\r\n\r\n", reply.body.len()).expect("text");
        if let Some(Mishap::Garble) = mishap {
            *reply.body.last_mut().expect("a byte") ^= 1;
        }
        let sent = match mishap {
            Some(Mishap::Cut(bytes) | Mishap::Stall(bytes)) => &reply.body[..bytes],
            _ => &reply.body,
        };
        let _gone = stream.write_all(text.as_bytes()).await;
        let _gone = stream.write_all(sent).await;
        if let Some(Mishap::Stall(_)) = mishap {
            // Until the other side has had enough.
            let _ended = stream.read(&mut [0; 1]).await;
        }
    }

    fn blob(&self, asked: &Asked) -> Reply {
        let path = asked.target.split('?').next().unwrap_or_default();
        let Some(bytes) = self.lock().blobs.get(path).cloned() else {
            return Reply::of("404 Not Found", &[], "");
        };
        let first = asked
            .range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes="));
        match first.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok()) {
            None => Reply::of("200 OK", &[("accept-ranges", "bytes")], bytes),
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
                Reply::of(
                    "206 Partial Content",
                    &[("content-range", &range)],
                    &bytes[first..],
                )
            }
        }
    }
}

/// A hub with one repository, `org/tiny`, and the host its large files lie on.
pub(super) struct Hub {
    pub(super) front: Host,
    pub(super) storage: Host,
}

impl Hub {
    pub(super) async fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let storage = Host::files().await;
        let there = storage.clone();
        let front = Host::start(move |host, asked| hub(host, &there, asked)).await;
        for (name, bytes) in files {
            front.lock().files.insert((*name).to_owned(), bytes.clone());
            if is_large(name) {
                storage.put(&format!("/repos/{}", digest(bytes)), bytes.clone());
            }
        }
        Self { front, storage }
    }

    /// Asks for a token from now on.
    pub(super) fn close(&self, token: &'static str) {
        self.front.lock().token = Some(token);
    }

    /// Large files lead elsewhere from now on.
    pub(super) fn detour(&self, url: &str) {
        self.front.lock().detour = Some(url.to_owned());
    }

    pub(super) fn url(&self) -> String {
        self.front.url("")
    }

    /// Waits until storage was asked so often.
    pub(super) async fn is_asked(&self, count: usize) -> Vec<Asked> {
        let look = async {
            while self.storage.asked().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), look)
            .await
            .expect("is asked");
        self.storage.asked()
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf") || name.ends_with(".bin")
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hub(host: &Host, storage: &Host, asked: &Asked) -> Reply {
    let (files, token, detour) = {
        let inner = host.lock();
        (inner.files.clone(), inner.token, inner.detour.clone())
    };
    let path = asked.target.split('?').next().unwrap_or_default();
    let known = path.starts_with("/api/models/org/tiny/") || path.starts_with("/org/tiny/");
    let open = token.is_none_or(|token| asked.authorization.as_deref() == Some(&format!("Bearer {token}")));
    if let Some(name) = path.strip_prefix("/api/resolve-cache/models/org/tiny/") {
        return Reply::of("200 OK", &[("x-repo-commit", COMMIT)], files[name].clone());
    }
    if !known {
        let headers = [
            ("x-error-code", "RepoNotFound"),
            ("x-error-message", "Repository not found"),
        ];
        return Reply::of("404 Not Found", &headers, r#"{"error":"Repository not found"}"#);
    }
    if !open {
        let says = "Access to model org/tiny is restricted. You must have access to it and be authenticated.";
        let headers = [("x-error-code", "GatedRepo"), ("x-error-message", says)];
        return Reply::of("401 Unauthorized", &headers, r#"{"error":"restricted"}"#);
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/tiny/revision/") {
        if !["main", "refs%2Fpr%2F1"].contains(&revision) {
            let headers = [
                ("x-error-code", "RevisionNotFound"),
                ("x-error-message", "Invalid rev id"),
            ];
            return Reply::of("404 Not Found", &headers, r#"{"error":"Invalid rev id"}"#);
        }
        let siblings: Vec<Value> = files.iter().map(|(name, bytes)| sibling(name, bytes)).collect();
        let info = json!({"_id": "6", "id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "private": false,
            "gated": token.is_some(), "tags": ["safetensors"], "siblings": siblings});
        return Reply::of(
            "200 OK",
            &[("content-type", "application/json")],
            info.to_string(),
        );
    }
    let name = path
        .strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"))
        .unwrap_or_default();
    let Some(bytes) = files.get(name) else {
        let headers = [
            ("x-error-code", "EntryNotFound"),
            ("x-error-message", "Entry not found"),
        ];
        return Reply::of("404 Not Found", &headers, "Entry not found");
    };
    if !is_large(name) {
        let to = format!("/api/resolve-cache/models/org/tiny/{name}");
        return Reply::of(
            "307 Temporary Redirect",
            &[("location", &to), ("x-repo-commit", COMMIT)],
            "",
        );
    }
    let digest = digest(bytes);
    let to = detour.unwrap_or_else(|| storage.url(&format!("/repos/{digest}?X-Amz-Signature=secret")));
    let (etag, size) = (format!("\"{digest}\""), bytes.len().to_string());
    let headers = [
        ("location", to.as_str()),
        ("x-linked-etag", &etag),
        ("x-linked-size", &size),
        ("x-repo-commit", COMMIT),
    ];
    Reply::of("302 Found", &headers, "")
}

fn sibling(name: &str, bytes: &[u8]) -> Value {
    let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40)});
    if is_large(name) {
        file["lfs"] = json!({"sha256": digest(bytes), "size": bytes.len(), "pointerSize": 134});
    }
    file
}
