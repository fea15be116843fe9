//! `decode_command`: a program of the operator's times what was made, and harms nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crash::{get, job, model, over};
use crate::server::Server;

/// A program of these lines.
fn program(folder: &Path, lines: &str) -> String {
    let path = folder.join("decode-speed");
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may run");
    path.display().to_string()
}

/// The job's end, its report and its history, on a server that times with this program.
fn timed_by(lines: &str) -> (Value, Value, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = program(folder.path(), lines);
    let data = folder.path().join("data");
    let server = Server::start_with(&data, &[("MODELPRESS_DECODE_COMMAND", &program)]);
    let id = job(&server, &model(&server)).expect("answers");
    let ended = over(&server, &id);
    let report = get(&server, &format!("/v1/jobs/{id}/report"));
    let events = get(&server, &format!("/v1/jobs/{id}/events?limit=100"));
    (ended, report, events.to_string())
}

/// It is given the format and the folder with everything but the signature, and none of the server's variables.
#[test]
fn what_it_says_is_in_the_report() {
    let lines = r#"test -s "$2/model.safetensors" && test -s "$2/modelpress.json" && test -z "$MODELPRESS_DATA_DIR" || exit 1
        echo "{\"decode_tokens_per_second\": 41.5, \"runtime\": \"$1 by a script\"}""#;
    let (ended, report, _) = timed_by(lines);
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let decode = &report["decode"][0];
    assert_eq!(decode["tokens_per_second"], 41.5, "{report}");
    assert_eq!(decode["runtime"], "safetensors by a script");
}

#[test]
fn what_it_cannot_do_is_a_warning_and_no_engine_is_nothing() {
    let (ended, report, events) = timed_by("echo no GPU >&2; exit 1");
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(report.get("decode").is_none(), "{report}");
    assert!(
        events.contains("could not be timed") && events.contains("no GPU"),
        "{events}"
    );
    let (_, _, events) = timed_by("echo nonsense");
    assert!(events.contains("no JSON object"), "{events}");
    let (ended, report, events) = timed_by("exit 3");
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(
        report.get("decode").is_none() && !events.contains("timed"),
        "{events}"
    );
}

#[test]
fn one_that_hangs_ends_with_its_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = program(folder.path(), "touch \"$2/began\"; exec sleep 600");
    let data = folder.path().join("data");
    let server = Server::start_with(&data, &[("MODELPRESS_DECODE_COMMAND", &program)]);
    let id = job(&server, &model(&server)).expect("answers");
    let patience = Instant::now() + Duration::from_mins(1);
    while !holds(&data, "began") {
        assert!(
            Instant::now() < patience,
            "{}",
            get(&server, &format!("/v1/jobs/{id}"))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = Instant::now();
    server.ask(&format!("POST /v1/jobs/{id}/cancel"), b"");
    assert_eq!(over(&server, &id)["status"], "cancelled");
    assert!(asked.elapsed() < Duration::from_secs(20));
}

fn holds(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.file_name().is_some_and(|own| own == name) || path.is_dir() && holds(&path, name))
}
