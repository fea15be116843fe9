//! kill -9 between the blocks of a calibrated job; another process, here or elsewhere, goes on behind the last one.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::crash::{files, get, over, value};
use crate::llama;
use crate::schema::Schema;
use crate::server::Server;

const ABORTED: i32 = 6;
const KILLED: i32 = 9;
const BLOCKS: u64 = 4;
const ROWS: usize = 64;
/// Enough for a checkpoint between the first block and the last.
const MANY_ROWS: usize = 512;

/// Uploads the model and so many rows of data and asks for the job.
fn begin(server: &Server, folder: &Path, rows: usize) -> String {
    llama::write(folder);
    let model = server.id_of("/v1/models", "{}");
    for name in ["config.json", "model.safetensors"] {
        let bytes = std::fs::read(folder.join(name)).expect("written");
        let (head, body) = server.ask(&format!("PUT /v1/models/{model}/files/{name}"), &bytes);
        assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
    }
    let (head, body) = server.ask(&format!("POST /v1/models/{model}/commit"), b"");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    let row = |r: usize| {
        let ids: Vec<usize> = (0..256)
            .map(|i| (r * 31 + i * i * 7 + i * r) % llama::VOCAB)
            .collect();
        json!({"input_ids": ids}).to_string()
    };
    let data = (0..rows).map(row).collect::<Vec<_>>().join("\n");
    let headers = "Content-Type: application/jsonl";
    let (head, body) = server
        .try_ask("POST /v1/datasets", headers, data.as_bytes())
        .expect("answers");
    assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
    let job = json!({"model": model, "recipe": {
        "stages": [{"technique": "gptq", "options": {"group_size": 32}}],
        "formats": ["compressed-tensors"],
        "calibration": {"dataset": value(&body)["id"], "num_samples": rows, "max_seq_length": 256}}});
    let (head, body) = server.ask("POST /v1/jobs", job.to_string().as_bytes());
    assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
    value(&body)["id"].as_str().expect("an id").to_owned()
}

/// The mark that the job left of its finished blocks, once it is there.
fn mark(data: &Path) -> Option<(PathBuf, Value)> {
    let kept = std::fs::read_dir(data.join("scratch/kept")).ok()?;
    let path = kept.flatten().next()?.path().join("mark.json");
    let bytes = std::fs::read(&path).ok()?;
    Some((
        path,
        serde_json::from_slice(&bytes).expect("renamed when it is whole"),
    ))
}

/// All but the files that hold the recipe, which names the server's own dataset.
fn made(server: &Server, job: &Value) -> BTreeMap<String, String> {
    let mut files = files(server, job);
    for about in ["README.md", "modelpress.json", "modelpress.json.sig"] {
        assert!(files.remove(about).is_some(), "{about}: {files:?}");
    }
    assert!(files.len() > 1, "{files:?}");
    files
}

fn undisturbed(rows: usize) -> BTreeMap<String, String> {
    let (data, model) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    let server = Server::start(data.path());
    let job = begin(&server, model.path(), rows);
    made(&server, &over(&server, &job))
}

#[test]
fn a_calibrated_job_killed_between_blocks_goes_on_behind_them_to_the_same_bytes() {
    let expected = undisturbed(ROWS);
    let (data, model) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    let mut server = Server::start(data.path());
    let job = begin(&server, model.path(), ROWS);
    let patience = Instant::now() + Duration::from_mins(1);
    while mark(data.path()).is_none() {
        assert!(Instant::now() < patience, "no block ends");
        std::thread::sleep(Duration::from_millis(1));
    }
    server.signal("-KILL");
    assert_eq!(server.wait().signal(), Some(KILLED));
    let (path, left) = mark(data.path()).expect("it was there");
    let blocks = left["blocks"].as_u64().expect("a number");
    assert!((1..BLOCKS).contains(&blocks) && left["ended"] == false, "{left}");
    assert!(
        path.to_string_lossy().contains(job.trim_start_matches("job_")),
        "{path:?}"
    );

    let server = Server::start(data.path());
    let ended = over(&server, &job);
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let events = get(&server, &format!("/v1/jobs/{job}/events?limit=100"));
    let said = format!("goes on behind block {blocks}, where an earlier attempt ended");
    let messages = events["data"].as_array().expect("events").iter();
    assert!(
        messages.clone().any(|e| e["message"] == said.as_str()),
        "{events}"
    );
    assert_eq!(made(&server, &ended), expected, "the same bytes");
    assert!(!path.exists(), "a job that is over keeps nothing");
}

/// How many files all checkpoints have.
fn checkpoint_files(schema: &Schema) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut connection = PgConnection::connect(&schema.url)
            .await
            .expect("PostgreSQL answers");
        let row = sqlx::query("SELECT count(*) FROM job_checkpoint")
            .fetch_one(&mut connection)
            .await;
        row.expect("one row").get(0)
    })
}

/// Two machines share a database and an object store, here a folder, and nothing else.
#[test]
fn a_job_goes_on_behind_its_checkpoint_on_another_machine_to_the_same_bytes() {
    let Some(schema) = Schema::create("elsewhere") else {
        println!("SKIPPED: checkpoints are for PostgreSQL (set MODELPRESS_TEST_POSTGRES_URL to run it)");
        return;
    };
    if !cfg!(debug_assertions) {
        println!("SKIPPED: a release build has no probe to die at");
        return;
    }
    let expected = undisturbed(MANY_ROWS);
    let (here, elsewhere, model) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    let both = [
        ("MODELPRESS_DATABASE_URL", schema.url.as_str()),
        ("MODELPRESS_LEASE_SECONDS", "3"),
        ("MODELPRESS_CHECKPOINT_SECONDS", "1"),
        ("MODELPRESS_CURSOR_SECRET", "the same secret on every machine"),
    ];
    let dies = [&both[..], &[("MODELPRESS_PROBE", "checkpoint:abort")]].concat();
    let mut server = Server::start_with(here.path(), &dies);
    let job = begin(&server, model.path(), MANY_ROWS);
    assert_eq!(
        server.wait().signal(),
        Some(ABORTED),
        "dies behind its first checkpoint"
    );
    let left = checkpoint_files(&schema);
    assert!(left >= 3, "a mark, hidden states and weights: {left} files");

    std::os::unix::fs::symlink(here.path().join("store"), elsewhere.path().join("store")).expect("links");
    let server = Server::start_with(elsewhere.path(), &both);
    let ended = over(&server, &job);
    assert_eq!(
        (&ended["status"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended}"
    );
    let events = get(&server, &format!("/v1/jobs/{job}/events?limit=100"));
    let said = |words: &str| {
        let mut messages = events["data"].as_array().expect("events").iter();
        messages.any(|e| e["message"].as_str().expect("a message").contains(words))
    };
    assert!(said("goes on from what an attempt elsewhere left"), "{events}");
    assert!(said("where an earlier attempt ended"), "{events}");
    assert_eq!(made(&server, &ended), expected, "the same bytes");
    assert_eq!(checkpoint_files(&schema), 0, "a job that is over keeps nothing");
}
