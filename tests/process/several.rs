//! Several machines: two servers and three workers over one PostgreSQL and one bucket, while processes are killed,
//! connections break and the database restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chaos::Chaos;
use crate::cluster::Cluster;
use crate::crash::{self, value};
use crate::llama;
use crate::s3::S3;
use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(150);
const LEASE: &str = "9";
const JSON: &str = "Content-Type: application/json";

/// One database, one bucket, and what breaks before them.
struct Site {
    database: Chaos,
    bucket: Chaos,
    _s3: S3,
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Option<Self> {
        let cluster = Cluster::start()?;
        let s3 = S3::start();
        Some(Self {
            database: Chaos::before(cluster.address),
            bucket: Chaos::before(s3.address),
            _s3: s3,
            cluster,
            folder: tempfile::tempdir().expect("temp folder"),
        })
    }

    /// A process with a data folder of its own: all they share is behind the two proxies.
    fn process(&self, verb: &str, name: &str) -> Server {
        self.process_with(verb, name, ("MODELPRESS_PROBE", ""))
    }

    fn process_with(&self, verb: &str, name: &str, variable: (&str, &str)) -> Server {
        let database = Cluster::url_at(self.database.address);
        let bucket = S3::url_at(self.bucket.address, "models");
        let variables = [
            ("MODELPRESS_DATABASE_URL", database.as_str()),
            ("MODELPRESS_BLOB_URL", &bucket),
            ("MODELPRESS_WORKERS", if verb == "serve" { "0" } else { "1" }),
            ("MODELPRESS_WORKER_THREADS", "1"),
            ("MODELPRESS_LEASE_SECONDS", LEASE),
            ("MODELPRESS_RESERVE_BYTES", "1MiB"),
            (
                "MODELPRESS_CURSOR_SECRET",
                "the same on every machine, long enough",
            ),
            ("AWS_READ_TIMEOUT", "3 seconds"),
            variable,
        ];
        Server::begin(verb, &self.folder.path().join(name), &variables)
    }
}

/// Asks until there is an answer that is not of an outage.
fn ask(server: &Server, head: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let begun = Instant::now();
    loop {
        let answer = server.try_ask(head, headers, body);
        if let Ok((head, body)) = &answer {
            let status: u16 = head[9..12].parse().expect("a status");
            if ![500, 503].contains(&status) {
                return (status, body.clone());
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{head}: {answer:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn get(server: &Server, path: &str) -> Value {
    let (status, body) = ask(server, &format!("GET {path}"), "Accept: */*", b"");
    assert_eq!(status, 200, "{path}: {body}");
    value(&body)
}

/// What is asked for: a job that takes a moment, and some that take longer.
fn recipes(dataset: &str) -> Vec<Value> {
    let calibrated = |group: u32| {
        json!({"stages": [{"technique": "gptq", "options": {"group_size": group}}], "formats": ["compressed-tensors"],
            "calibration": {"dataset": dataset, "num_samples": 64, "max_seq_length": 256}})
    };
    let plain = |bits: u32, group: u32| {
        json!({"stages": [{"technique": "rtn", "options": {"n_bits": bits, "granularity": "group", "group_size": group}}],
            "formats": ["safetensors"]})
    };
    let mut recipes: Vec<Value> = [8, 16, 32].map(calibrated).into();
    recipes.extend(
        [2, 4, 8]
            .into_iter()
            .flat_map(|bits| [16, 32].map(|group| plain(bits, group))),
    );
    recipes
}

/// Uploads the model, each file begun at one server and ended at the other, and the data; answers their identifiers.
fn upload(one: &Server, other: &Server, folder: &Path) -> (String, String) {
    llama::write(folder);
    let mut files = Vec::new();
    for name in ["config.json", "model.safetensors"] {
        let bytes = std::fs::read(folder.join(name)).expect("written");
        let upload = one.id_of("/v1/uploads", &json!({"length": bytes.len()}).to_string());
        let half = bytes.len() / 2;
        for (server, from, piece) in [(one, 0, &bytes[..half]), (other, half, &bytes[half..])] {
            let headers = format!("Content-Type: application/octet-stream\r\nUpload-Offset: {from}");
            let (status, said) = ask(server, &format!("PATCH /v1/uploads/{upload}"), &headers, piece);
            assert!(status < 300, "{status} {said}");
        }
        files.push(json!({"name": name, "upload": upload}));
    }
    let body = json!({"files": files}).to_string();
    let (status, said) = ask(one, "POST /v1/models", JSON, body.as_bytes());
    assert_eq!(status, 201, "{said}");
    let model = value(&said)["id"].as_str().expect("an id").to_owned();
    let row = |r: usize| {
        let ids: Vec<usize> = (0..256)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    let rows = (0..64).map(row).collect::<Vec<_>>().join("\n");
    let (status, said) = ask(
        one,
        "POST /v1/datasets",
        "Content-Type: application/jsonl",
        rows.as_bytes(),
    );
    assert_eq!(status, 201, "{said}");
    (model, value(&said)["id"].as_str().expect("an id").to_owned())
}

/// Asks for a job, again and again under one key, until it is accepted.
fn accepted(server: &Server, model: &str, recipe: &Value) -> String {
    let body = json!({"model": model, "recipe": recipe}).to_string();
    let key: String = recipe
        .to_string()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(200)
        .collect();
    let headers = format!("{JSON}\r\nIdempotency-Key: {key}");
    let (status, said) = ask(server, "POST /v1/jobs", &headers, body.as_bytes());
    assert!([200, 202].contains(&status), "{status} {said}");
    value(&said)["id"].as_str().expect("an id").to_owned()
}

/// Waits until the job is over, with success.
fn succeeded(server: &Server, job: &str) -> Value {
    let begun = Instant::now();
    loop {
        let found = get(server, &format!("/v1/jobs/{job}"));
        let status = found["status"].as_str().expect("a status");
        if status == "succeeded" {
            return found;
        }
        assert!(
            ["queued", "running"].contains(&status) && begun.elapsed() < PATIENCE,
            "{found}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Names and digests of what a job made, but for those that name the server's own dataset.
fn made(server: &Server, job: &Value) -> BTreeMap<String, String> {
    let mut files = crash::files(server, job);
    for about in ["README.md", "modelpress.json", "modelpress.json.sig"] {
        assert!(files.remove(about).is_some(), "{about}: {files:?}");
    }
    assert!(!files.is_empty(), "{files:?}");
    files
}

/// What the jobs make on one machine where nothing breaks.
fn undisturbed() -> Vec<BTreeMap<String, String>> {
    let (data, model) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    let server = Server::start(data.path());
    let (model, dataset) = upload(&server, &server, model.path());
    let jobs: Vec<String> = recipes(&dataset)
        .iter()
        .map(|recipe| accepted(&server, &model, recipe))
        .collect();
    jobs.iter()
        .map(|job| made(&server, &succeeded(&server, job)))
        .collect()
}

/// The workers that had the job; its events have no gaps and one end.
fn history(server: &Server, job: &str) -> BTreeSet<String> {
    let events = get(server, &format!("/v1/jobs/{job}/events?limit=100"));
    let events = events["data"].as_array().expect("events");
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(
        numbers,
        (1..=events.len() as u64).collect::<Vec<_>>(),
        "{events:?}"
    );
    let ends = ["job is succeeded", "job is failed", "job is cancelled"];
    let ended = events
        .iter()
        .filter(|event| ends.iter().any(|end| event["message"] == *end));
    assert_eq!(ended.count(), 1, "{events:?}");
    let workers = events.iter().filter_map(|event| event["data"]["worker"].as_str());
    workers.map(str::to_owned).collect()
}

fn kill(mut process: Server) {
    process.signal("-KILL");
    process.wait();
}

#[test]
fn jobs_end_once_with_the_same_bytes_whatever_breaks() {
    let Some(site) = Site::start() else {
        println!(
            "SKIPPED: jobs_end_once_with_the_same_bytes_whatever_breaks (needs PostgreSQL's initdb and pg_ctl)"
        );
        return;
    };
    let folder = tempfile::tempdir().expect("temp folder");
    let (one, other) = (site.process("serve", "one"), site.process("serve", "other"));
    // The first dies in the middle of its first job, as by kill -9.
    let mut doomed = site.process_with("worker", "a", ("MODELPRESS_PROBE", "stage:abort"));
    let mut workers: Vec<Server> = ["b", "c"]
        .iter()
        .map(|name| site.process("worker", name))
        .collect();
    let (model, dataset) = upload(&one, &other, folder.path());
    let recipes = recipes(&dataset);
    let (now, later) = recipes.split_at(recipes.len() / 2);
    let mut jobs: Vec<String> = now.iter().map(|recipe| accepted(&one, &model, recipe)).collect();

    assert!(!doomed.wait().success());
    site.database.cut();
    site.bucket.cut();
    jobs.extend(later.iter().map(|recipe| accepted(&other, &model, recipe)));
    workers.push(site.process("worker", "a"));
    site.database.stall(Duration::from_secs(2));
    site.bucket.stall(Duration::from_secs(4));
    site.database.cut();
    site.bucket.refuse(Duration::from_secs(1));
    kill(workers.remove(0));
    site.database.refuse(Duration::from_secs(1));
    site.cluster.crash();
    site.cluster.begin();
    workers.push(site.process("worker", "b"));

    let ended: Vec<Value> = jobs.iter().map(|job| succeeded(&other, job)).collect();
    let made: Vec<_> = ended.iter().map(|job| made(&other, job)).collect();
    assert_eq!(made, undisturbed(), "the same bytes as on one machine");
    let hands: Vec<BTreeSet<String>> = jobs.iter().map(|job| history(&one, job)).collect();
    assert!(
        hands.iter().any(|hands| hands.len() > 1),
        "one was taken over: {hands:?}"
    );
    let workers: BTreeSet<&String> = hands.iter().flatten().collect();
    assert!(workers.len() >= 3, "spread over workers: {workers:?}");
    let artifact = ended[0]["artifacts"][0].as_str().expect("an id");
    let archive = format!("GET /v1/artifacts/{artifact}/files/modelpress.json");
    let (status, said) = ask(&other, &archive, "Accept: */*", b"");
    assert!(status == 200 && said.contains("gptq"), "{status} {said}");
}
