//! How much a server does: `GET /v1/jobs/{id}` against a bare axum handler that answers as many bytes, claims a second,
//! and an upload against dd with the server's peak memory.
//!
//! `cargo bench --bench serve` runs all; `-- get`, `-- claims`, `-- upload [GiB]` one of them. Servers are processes of
//! their own, and so is the bare handler. Postgres is the one at `MODELPRESS_TEST_POSTGRES_URL`; rounds alternate, so that
//! a busy machine slows all alike, and medians are compared.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench reports to people and stops at the first surprise"
)]

#[expect(unreachable_pub, reason = "tests share it")]
#[path = "../support/models.rs"]
mod models;
#[path = "../support/schema.rs"]
mod schema;
#[path = "../process/server.rs"]
#[expect(dead_code, reason = "tests ask more of it")]
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelpress_server::domain::ports::{Commit, Room, Store, SystemClock};
use modelpress_server::domain::queue::{Node, Queue};
use modelpress_server::domain::{Document, FileRef, JobId, Model, ModelId, ModelState, NewJob};
use modelpress_server::store::{Rows, postgres, sqlite};
use schema::Schema;
use serde_json::{Value, json};
use server::Server;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

const CLIENTS: usize = 200;
const SECONDS: u64 = 5;
/// More than the upload's: seconds in which others have the machine are in one or two of them.
const GET_ROUNDS: usize = 7;
const ROUNDS: usize = 3;
const CLAIMERS: usize = 8;
const CLAIMS: usize = 3000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wants = |what: &str| args.is_empty() || args[0] == what;
    if args.first().is_some_and(|arg| arg == "bare") {
        return runtime.block_on(bare(args[1].parse().expect("a length")));
    }
    if wants("get") {
        gets(&runtime);
    }
    if wants("claims") {
        claims(&runtime);
    }
    if wants("upload") {
        let gib = args
            .get(1)
            .map_or(1, |text| text.parse().expect("a number of GiB"));
        upload(gib);
    }
}

/// The least that axum can do: as many bytes as a job has, always the same.
async fn bare(length: usize) {
    let body = format!("{{\"x\":\"{}\"}}", "a".repeat(length.saturating_sub(8)));
    let answer = move || {
        let body = body.clone();
        async move { ([("content-type", "application/json")], body) }
    };
    let router = axum::Router::new().route("/v1/jobs/{id}", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    println!("{}", listener.local_addr().expect("bound"));
    axum::serve(listener, router).await.expect("serves");
}

struct Bare(Child, SocketAddr);

impl Bare {
    fn start(length: usize) -> Self {
        use std::io::BufRead as _;
        let own = std::env::current_exe().expect("this program");
        let child = Command::new(own)
            .args(["bare", &length.to_string()])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("starts");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("an address");
        Self(child, line.trim().parse().expect("an address"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What a run of clients saw.
#[derive(Clone, Copy)]
struct Seen {
    a_second: f64,
    half: Duration,
    slowest: Duration,
}

/// One client on one connection until the end; answers how long each answer took.
async fn client(address: SocketAddr, request: Arc<str>, until: Instant) -> Vec<Duration> {
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.set_nodelay(true).expect("set");
    let (mut times, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
    while Instant::now() < until {
        let begun = Instant::now();
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut filled = 0;
        let whole = loop {
            let read = socket.read(&mut buffer[filled..]).await.expect("answers");
            assert!(read > 0, "closed");
            filled += read;
            if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 200"), "{head}");
                let length = head.split("content-length: ").nth(1).expect("a length");
                let length = length.split("\r\n").next().expect("a line");
                break end + 4 + length.parse::<usize>().expect("a number");
            }
        };
        while filled < whole {
            filled += socket.read(&mut buffer[filled..]).await.expect("the body");
        }
        times.push(begun.elapsed());
    }
    times
}

async fn load(address: SocketAddr, path: &str) -> Seen {
    let request: Arc<str> = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(SECONDS);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(address, request.clone(), until));
    }
    let mut times: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    Seen {
        a_second: times.len() as f64 / seconds,
        half: times[times.len() / 2],
        slowest: times[times.len() * 99 / 100],
    }
}

/// A job that waits: the server has no workers.
fn waiting_job(server: &Server) -> (String, usize) {
    let id = server.id_of("/v1/models", "{}");
    server.ask(
        &format!("PUT /v1/models/{id}/files/model.safetensors"),
        &models::small(),
    );
    server.ask(&format!("POST /v1/models/{id}/commit"), b"");
    let body = json!({"model": id, "recipe": "W8A16", "formats": ["safetensors"]}).to_string();
    let (head, body) = server.ask("POST /v1/jobs", body.as_bytes());
    assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
    let job: Value = serde_json::from_str(&body).expect("JSON");
    (
        format!("/v1/jobs/{}", job["id"].as_str().expect("an id")),
        body.len(),
    )
}

fn serve(data: &Path, database: Option<&str>) -> Server {
    let mut variables = vec![
        ("MODELPRESS_WORKERS", "0"),
        ("MODELPRESS_LOG_FILTER", "warn,modelpress_server::app=info"),
    ];
    variables.extend(database.map(|url| ("MODELPRESS_DATABASE_URL", url)));
    Server::start_with(data, &variables)
}

fn median(mut seen: Vec<Seen>) -> Seen {
    seen.sort_by(|a, b| a.a_second.total_cmp(&b.a_second));
    seen[seen.len() / 2]
}

fn gets(runtime: &tokio::runtime::Runtime) {
    let (one, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let schema = Schema::create("bench_get");
    let mut servers = vec![("SQLite", serve(one.path(), None))];
    if let Some(schema) = &schema {
        servers.push(("Postgres", serve(other.path(), Some(&schema.url))));
    }
    let jobs: Vec<(String, usize)> = servers.iter().map(|(_, server)| waiting_job(server)).collect();
    let bare = Bare::start(jobs[0].1);
    let mut rounds: Vec<Vec<Seen>> = vec![Vec::new(); servers.len() + 1];
    for _ in 0..GET_ROUNDS {
        rounds[0].push(runtime.block_on(load(bare.1, &jobs[0].0)));
        for (n, (_, server)) in servers.iter().enumerate() {
            rounds[n + 1].push(runtime.block_on(load(server.address, &jobs[n].0)));
        }
    }
    let seen: Vec<Seen> = rounds.into_iter().map(median).collect();
    let names = ["a bare handler"]
        .into_iter()
        .chain(servers.iter().map(|(name, _)| *name));
    let bare = seen[0].a_second;
    for (name, seen) in names.zip(&seen) {
        println!(
            "GET, {CLIENTS} clients, {name}: {:.0} a second ({:.0} % of bare), half within {:.1} ms, 99 % within {:.1} ms",
            seen.a_second,
            100.0 * seen.a_second / bare,
            seen.half.as_secs_f64() * 1e3,
            seen.slowest.as_secs_f64() * 1e3
        );
    }
}

/// Rows of a ready model and of jobs that wait for it.
async fn fill(rows: &Rows, jobs: usize) {
    let at = OffsetDateTime::now_utc();
    let model = ModelId::from_uuid(Uuid::now_v7());
    let draft = Model {
        id: model,
        name: None,
        metadata: std::collections::BTreeMap::new(),
        state: ModelState::Draft,
        files: Vec::new(),
        digest: None,
        summary: None,
        created_at: at,
        committed_at: None,
        pull: None,
    };
    rows.insert_model(&draft).await.expect("new");
    let file = FileRef {
        name: "model.safetensors".into(),
        digest: "a".repeat(64),
        bytes: 10,
    };
    rows.put_model_file(model, &file).await.expect("a draft");
    let commit = Commit {
        digest: "d".into(),
        files: vec![file],
        summary: json!({}),
        tensors: Vec::new(),
        at,
    };
    rows.commit_model(model, &commit).await.expect("the same files");
    for _ in 0..jobs {
        let job = NewJob {
            id: JobId::from_uuid(Uuid::now_v7()),
            model,
            recipe: json!("Q4_K_M"),
            plan: Document::from_store("{}".into()),
            need_memory_bytes: 1,
            techniques: vec!["ggml".into()],
            datasets: Vec::new(),
            metadata: std::collections::BTreeMap::new(),
            priority: 0,
            dedupe_key: None,
            traceparent: None,
            idempotency: None,
            created_at: at,
        };
        rows.enqueue(&job, Room::of(1_000_000)).await.expect("room");
    }
}

async fn claimed(rows: Arc<Rows>, name: &str) {
    fill(&rows, CLAIMS).await;
    let begun = Instant::now();
    let mut claimers = JoinSet::new();
    for number in 0..CLAIMERS {
        let rows = rows.clone();
        claimers.spawn(async move {
            let node = Node {
                worker: format!("w-{number}"),
                ttl: Duration::from_mins(10),
                memory_bytes: 1 << 30,
                most_memory_bytes: 1 << 30,
                patience: Duration::ZERO,
                techniques: vec!["ggml".into()],
                most_of_tenant: None,
            };
            let mut claims = 0;
            while rows.claim(&node).await.expect("claims").is_some() {
                claims += 1;
            }
            claims
        });
    }
    let claims: usize = claimers.join_all().await.into_iter().sum();
    assert_eq!(claims, CLAIMS, "each job once");
    println!(
        "claims, {CLAIMERS} workers, {name}: {:.0} a second",
        claims as f64 / begun.elapsed().as_secs_f64()
    );
}

fn claims(runtime: &tokio::runtime::Runtime) {
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let rows = sqlite::open(&folder.path().join("db"), Arc::new(SystemClock)).await;
        claimed(Arc::new(rows.expect("opens")), "SQLite").await;
    });
    if let Some(schema) = Schema::create("bench_claims") {
        runtime.block_on(async {
            let rows = postgres::open(&schema.url, Arc::new(SystemClock)).await;
            claimed(Arc::new(rows.expect("opens")), "Postgres").await;
        });
    }
}

fn upload(gib: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path(), None);
    let draft = server.id_of("/v1/models", "{}");
    let source = folder.path().join("source");
    let blocks = format!("count={}", gib << 10);
    let dd = |from: &Path, to: &Path| {
        let begun = Instant::now();
        let (from, to) = (format!("if={}", from.display()), format!("of={}", to.display()));
        let done = Command::new("dd")
            .args([&from, &to, "bs=1M", &blocks, "conv=fsync", "status=none"])
            .status();
        assert!(done.expect("dd runs").success());
        begun.elapsed().as_secs_f64()
    };
    dd(Path::new("/dev/urandom"), &source);
    let (mut disk, mut through) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        disk.push(dd(&source, &folder.path().join("copy")));
        let url = format!("http://{}/v1/models/{draft}/files/f{round}.json", server.address);
        let begun = Instant::now();
        let sent = Command::new("curl")
            .args(["-sSf", "-o", "/dev/null", "-T"])
            .arg(&source)
            .arg(&url)
            .status();
        assert!(sent.expect("curl runs").success());
        through.push(begun.elapsed().as_secs_f64());
        // The same bytes are stored once; another copy has to be written again.
        let mut bytes = std::fs::OpenOptions::new()
            .write(true)
            .open(&source)
            .expect("opens");
        std::io::Write::write_all(&mut bytes, &[round as u8; 16]).expect("written");
    }
    disk.sort_by(f64::total_cmp);
    through.sort_by(f64::total_cmp);
    let (disk, through) = (disk[ROUNDS / 2], through[ROUNDS / 2]);
    println!(
        "upload of {gib} GiB: {through:.1} s, dd conv=fsync {disk:.1} s, so {:.0} % of its speed; the server's peak {} MiB",
        100.0 * disk / through,
        server.peak_kib() >> 10
    );
}
