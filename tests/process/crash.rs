//! The process dies at each point of an attempt, as hard as kill -9; another one on the same folder ends the job.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use modelpress_server::worker::probe::Point;
use serde_json::{Value, json};

use crate::schema::Schema;
use crate::server::Server;
use crate::support::models::small;

const ABORTED: i32 = 6;

pub(crate) fn value(body: &str) -> Value {
    serde_json::from_str(body).expect("JSON")
}

pub(crate) fn get(server: &Server, path: &str) -> Value {
    value(&server.ask(&format!("GET {path}"), b"").1)
}

pub(crate) fn model(server: &Server) -> String {
    let id = server.id_of("/v1/models", "{}");
    let (head, body) = server.ask(&format!("PUT /v1/models/{id}/files/model.safetensors"), &small());
    assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
    let (head, body) = server.ask(&format!("POST /v1/models/{id}/commit"), b"");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    id
}

/// Asks for the job; with a server that dies at once there may be no answer.
pub(crate) fn job(server: &Server, model: &str) -> Option<String> {
    let body = json!({"model": model, "recipe": "W8A16", "formats": ["safetensors"]}).to_string();
    let headers = "Content-Type: application/json\r\nIdempotency-Key: once";
    let answer = server.try_ask("POST /v1/jobs", headers, body.as_bytes());
    let (head, body) = answer.ok()?;
    assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
    Some(value(&body)["id"].as_str().expect("an id").to_owned())
}

/// Waits until the job is over.
pub(crate) fn over(server: &Server, job: &str) -> Value {
    let patience = Instant::now() + Duration::from_mins(1);
    loop {
        let found = get(server, &format!("/v1/jobs/{job}"));
        if !["queued", "running"].contains(&found["status"].as_str().expect("a status")) {
            return found;
        }
        assert!(Instant::now() < patience, "{found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Names and digests of the files of the job's only artifact.
pub(crate) fn files(server: &Server, job: &Value) -> BTreeMap<String, String> {
    let artifacts = job["artifacts"].as_array().expect("artifacts");
    assert_eq!(artifacts.len(), 1, "{job}");
    let artifact = get(
        server,
        &format!("/v1/artifacts/{}", artifacts[0].as_str().expect("an id")),
    );
    let files = artifact["files"].as_array().expect("files").iter();
    files
        .map(|file| (text(&file["name"]), text(&file["digest"])))
        .collect()
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("readable");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { count(&path) } else { 1 }
        })
        .sum()
}

/// What the job makes when nothing goes wrong.
fn undisturbed() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start(dir.path());
    let job = job(&server, &model(&server)).expect("answers");
    unsigned(&server, &over(&server, &job))
}

/// All but the signature: each installation has a key of its own.
fn unsigned(server: &Server, job: &Value) -> BTreeMap<String, String> {
    let mut files = files(server, job);
    assert!(files.remove("modelpress.json.sig").is_some(), "{files:?}");
    files
}

fn survives(point: Point, expected: &BTreeMap<String, String>, database: &[(&str, &str)]) {
    let dir = tempfile::tempdir().expect("temp dir");
    let probe = format!("{}:abort", point.as_str());
    let dies = [database, &[("MODELPRESS_PROBE", &probe)]].concat();
    let mut server = Server::start_with(dir.path(), &dies);
    let model = model(&server);
    let accepted = job(&server, &model);
    assert_eq!(server.wait().signal(), Some(ABORTED), "{point:?}");

    let server = Server::start_with(dir.path(), database);
    let again = job(&server, &model).expect("answers");
    assert!(
        accepted.is_none_or(|id| id == again),
        "{point:?}: the key names the same job"
    );
    let ended = over(&server, &again);
    assert_eq!(ended["status"], "succeeded", "{point:?}: {ended}");
    assert_eq!(&unsigned(&server, &ended), expected, "{point:?}: the same bytes");
    let events = get(&server, &format!("/v1/jobs/{again}/events?limit=100"));
    let events = events["data"].as_array().expect("events");
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(
        numbers,
        (1..=events.len() as u64).collect::<Vec<_>>(),
        "{point:?}"
    );
    let published = events
        .iter()
        .filter(|event| event["message"] == "job is succeeded");
    assert_eq!(published.count(), 1, "{point:?}: {events:?}");
    let jobs = get(&server, "/v1/jobs");
    assert_eq!(
        jobs["data"].as_array().map(Vec::len),
        Some(1),
        "{point:?}: {jobs}"
    );
    // The model's file and the artifact's, and nothing of the attempt that died.
    assert_eq!(
        count(&dir.path().join("store/blobs")),
        // The model and the files, with the signature.
        2 + expected.len(),
        "{point:?}: {events:?}"
    );
    // Only the living process's lock; its last folder goes a moment after the job has ended.
    let patience = Instant::now() + Duration::from_secs(10);
    while count(&dir.path().join("scratch")) != 1 {
        assert!(Instant::now() < patience, "{point:?}: scratch space is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_job_survives_the_death_of_the_process_at_every_point() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: a release build has no probe to die at");
        return;
    }
    let expected = undisturbed();
    // Checkpoints are off: whether a job of a moment leaves one depends on the machine. `going_on.rs` has one that does.
    for point in Point::ALL.into_iter().filter(|point| *point != Point::Checkpoint) {
        survives(point, &expected, &[]);
        let Some(schema) = Schema::create(&format!("crash_{}", point.as_str())) else {
            println!(
                "SKIPPED on PostgreSQL: death at {point:?} (set MODELPRESS_TEST_POSTGRES_URL to run it)"
            );
            continue;
        };
        let database = [
            ("MODELPRESS_DATABASE_URL", schema.url.as_str()),
            ("MODELPRESS_LEASE_SECONDS", "3"),
            ("MODELPRESS_CHECKPOINT_SECONDS", "0"),
        ];
        survives(point, &expected, &database);
    }
}
