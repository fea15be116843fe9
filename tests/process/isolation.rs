//! What happens to the process that does the work: the server goes on, the job says what became of it.

use std::path::Path;
use std::time::{Duration, Instant};

use modelpress_engine::SourceFile;
use modelpress_server::child::{Cause, Ear, End, Host, Job, Order, Word};
use modelpress_server::telemetry::usage::Used;
use serde_json::Value;

use crate::crash::{get, job, model, over};
use crate::server::Server;

const PATIENCE: Duration = Duration::from_mins(1);

/// A server whose children come to grief like this, and a job.
fn at_work(data: &Path, mishap: &str) -> (Server, String) {
    // A second try after a lack of memory has all that workers may plan for: no more than a test should take.
    let server = Server::start_with(
        data,
        &[
            ("MODELPRESS_PROBE", mishap),
            ("MODELPRESS_WORKER_MEMORY_BYTES", "1GiB"),
        ],
    );
    let model = model(&server);
    let job = job(&server, &model).expect("answers");
    (server, job)
}

fn fails_with(mishap: &str, code: &str, words: &str) {
    let data = tempfile::tempdir().expect("temp dir");
    let (server, job) = at_work(data.path(), mishap);
    let ended = over(&server, &job);
    assert_eq!(ended["status"], "failed", "{mishap}: {ended}");
    assert_eq!(ended["error"]["code"], code, "{mishap}: {ended}");
    let message = ended["error"]["message"].as_str().expect("a message");
    assert!(message.contains(words), "{mishap}: {message}");
    assert_eq!(
        ended["attempt"], 2,
        "{mishap}: once more, in case it was the machine"
    );
    assert_eq!(get(&server, "/livez")["status"], "ok", "{mishap}");
}

#[test]
fn an_engine_that_crashes_takes_only_its_attempt_down() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: nothing goes wrong on purpose in a release build");
        return;
    }
    fails_with("inside:panic", "internal", "the server's log has the details");
    fails_with("inside:abort", "internal", "the server's log has the details");
    fails_with("inside:hog", "out_of_memory", "more than its limit of");
}

/// The process that works for the server, once there is one that is not among those.
fn child_of(server: &Server, but: &[u32]) -> u32 {
    let begun = Instant::now();
    loop {
        let found = server.children().into_iter().find(|child| !but.contains(child));
        match found {
            Some(child) => return child,
            None => assert!(begun.elapsed() < PATIENCE, "no child"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(process: u32) {
    let status = std::process::Command::new("kill")
        .args(["-KILL", &process.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Until the attempt is so far that it hangs.
fn hangs(server: &Server, job: &str) {
    let begun = Instant::now();
    while get(server, &format!("/v1/jobs/{job}"))["stage"] == Value::Null {
        assert!(begun.elapsed() < PATIENCE, "the attempt does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_child_that_the_system_kills_is_tried_again_and_then_blamed_on_memory() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: nothing goes wrong on purpose in a release build");
        return;
    }
    let data = tempfile::tempdir().expect("temp dir");
    let (server, job) = at_work(data.path(), "inside:hang");
    hangs(&server, &job);
    let planned = get(&server, &format!("/v1/jobs/{job}"))["planned_memory_bytes"].clone();
    assert!(planned.as_u64() < Some(1 << 30), "{planned}");
    let first = child_of(&server, &[]);
    kill(first);
    kill(child_of(&server, &[first]));
    let ended = over(&server, &job);
    assert_eq!(ended["error"]["code"], "out_of_memory", "{ended}");
    let message = ended["error"]["message"].as_str().expect("a message");
    assert!(message.contains("was killed when it used"), "{message}");
    assert_eq!(
        ended["planned_memory_bytes"],
        1 << 30,
        "the second try had it all to itself"
    );
}

#[test]
fn a_child_that_does_not_listen_is_ended_when_its_job_is_cancelled() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: nothing goes wrong on purpose in a release build");
        return;
    }
    let data = tempfile::tempdir().expect("temp dir");
    let (server, job) = at_work(data.path(), "inside:hang");
    hangs(&server, &job);
    let (head, body) = server.ask(&format!("POST /v1/jobs/{job}/cancel"), b"{}");
    assert!(head.starts_with("HTTP/1.1 20"), "{head}\n{body}");
    assert_eq!(over(&server, &job)["status"], "cancelled");
    assert_eq!(server.children(), Vec::<u32>::new());
}

#[test]
fn no_child_outlives_its_server() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: nothing goes wrong on purpose in a release build");
        return;
    }
    let data = tempfile::tempdir().expect("temp dir");
    let (mut server, job) = at_work(data.path(), "inside:hang");
    hangs(&server, &job);
    let child = child_of(&server, &[]);
    server.signal("-KILL");
    server.wait();
    let begun = Instant::now();
    while Path::new(&format!("/proc/{child}")).exists() {
        assert!(begun.elapsed() < PATIENCE, "process {child} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Deaf;

impl Ear for Deaf {
    fn hear(&self, _word: Word) {}

    fn used(&self, _used: Used) {}

    fn patience(&self) -> Option<Duration> {
        None
    }
}

#[test]
fn files_that_need_more_memory_than_a_child_has_end_the_child() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("data.jsonl");
    // One record as long as the file.
    std::fs::write(&path, format!("{{\"text\": \"{}\"}}\n", "x".repeat(64 << 20))).expect("writes");
    let order = Order::ReadDataset {
        files: vec![SourceFile::new("data.jsonl".to_owned(), path)],
    };
    let host = Host::of(env!("CARGO_BIN_EXE_modelpress").into());
    let run = |memory_bytes| {
        host.run(
            &Job {
                order: &order,
                memory_bytes,
            },
            &Deaf,
        )
    };
    match run(24 << 20) {
        End::Died(death) => assert_eq!(death.cause, Cause::Memory, "{death:?}"),
        other => panic!("{other:?}"),
    }
    // With enough there is an answer, whatever it is.
    assert!(matches!(run(1 << 30), End::Answer(_)));
}
