//! `modelpress doctor`: what it finds, and that it names a fix.

use std::path::Path;
use std::process::Command;

use crate::crash::model;
use crate::s3::S3;
use crate::server::Server;

/// Exit code and findings of a data folder.
fn doctor(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .args(["doctor", "--data-dir"])
        .arg(data)
        .args(more)
        .env_remove("MODELPRESS_CONFIG")
        .env("MODELPRESS_RESERVE_BYTES", "1MiB")
        .output()
        .expect("runs");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("UTF-8"),
    )
}

/// The line about a subject, with the fix below it if it has one.
fn about<'a>(said: &'a str, subject: &str) -> (&'a str, Option<&'a str>) {
    let mut lines = said.lines();
    let line = lines.find(|line| line.get(9..).is_some_and(|rest| rest.starts_with(subject)));
    assert!(line.is_some(), "nothing about {subject}: {said}");
    let line = line.unwrap_or_default();
    let fix = lines
        .next()
        .and_then(|next| next.trim_start().strip_prefix("fix: "));
    (line, fix)
}

#[test]
fn a_server_that_runs_is_well_and_what_is_lost_is_named() {
    let folder = tempfile::tempdir().expect("temp folder");
    let data = folder.path().join("data");
    let (code, said) = doctor(&data, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(about(&said, "database").0.contains("not made yet"), "{said}");
    assert!(!data.exists(), "it changes nothing");

    let server = Server::start(&data);
    model(&server);
    let listen = server.address.to_string();
    let (code, said) = doctor(&data, &["--listen", &listen]);
    assert_eq!(code, Some(0), "{said}");
    for subject in ["data folder", "open files", "memory", "database", "files"] {
        assert!(about(&said, subject).0.starts_with("ok"), "{said}");
    }
    assert!(about(&said, "files").0.contains("all 1 are there"), "{said}");
    assert!(about(&said, "address").0.contains("in use"), "{said}");
    drop(server);

    let blobs = data.join("store/blobs");
    let shelf = std::fs::read_dir(&blobs)
        .expect("readable")
        .next()
        .expect("one")
        .expect("entry");
    let blob = std::fs::read_dir(shelf.path())
        .expect("readable")
        .next()
        .expect("one")
        .expect("entry");
    std::fs::write(blob.path(), b"short").expect("written");
    let (code, said) = doctor(&data, &[]);
    let (line, fix) = about(&said, "files");
    let digest = blob.file_name().into_string().expect("ASCII");
    assert!(
        line.starts_with("broken") && line.contains(&digest) && line.contains("1 of 1"),
        "{said}"
    );
    assert!(
        fix.is_some_and(|fix| fix.contains("backup")) && code == Some(1),
        "{said}"
    );
}

#[test]
fn what_would_not_work_is_said_before_it_does_not() {
    let folder = tempfile::tempdir().expect("temp folder");
    let data = folder.path().join("data");
    let (code, said) = doctor(&data, &["--listen", "0.0.0.0:0"]);
    assert_eq!(
        about(&said, "keys").1,
        Some("modelpress keys create --name admin")
    );
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = doctor(
        &data,
        &[
            "--listen",
            "0.0.0.0:0",
            "--auth",
            "off",
            "--workers",
            "64",
            "--worker-memory-bytes",
            "1TiB",
        ],
    );
    assert!(about(&said, "keys").0.starts_with("warning"), "{said}");
    assert!(
        about(&said, "memory")
            .1
            .is_some_and(|fix| fix.contains("worker_memory_bytes")),
        "{said}"
    );
    assert_eq!(code, Some(0), "warnings are no failure: {said}");
    let (code, said) = doctor(&data, &["--reserve-bytes", "1000TiB"]);
    assert!(
        about(&said, "data folder").0.starts_with("broken") && code == Some(1),
        "{said}"
    );

    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("modelpress.db"), "no database at all").expect("written");
    let (code, said) = doctor(&data, &[]);
    let (line, fix) = about(&said, "database");
    assert!(
        line.starts_with("broken") && fix.is_some_and(|fix| fix.contains("modelpress restore")),
        "{said}"
    );
    assert_eq!(code, Some(1));
    let (code, said) = doctor(&data, &["--database-url", "postgres://nobody@127.0.0.1:1/none"]);
    assert!(
        about(&said, "database")
            .1
            .is_some_and(|fix| fix.contains("database_url")),
        "{said}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_bucket_is_written_read_and_compared_with_the_database() {
    let folder = tempfile::tempdir().expect("temp folder");
    let data = folder.path().join("data");
    let bucket = S3::start();
    let url = bucket.url("models");
    std::fs::create_dir_all(&data).expect("made");
    let (code, said) = doctor(&data, &["--blob-url", &url]);
    assert!(about(&said, "database").0.contains("not made yet"), "{said}");
    assert!(
        about(&said, "bucket").0.contains("written, read") && code == Some(0),
        "before the first start: {said}"
    );
    let server = Server::start_with(&data, &[("MODELPRESS_BLOB_URL", &url)]);
    model(&server);
    drop(server);
    let (code, said) = doctor(&data, &["--blob-url", &url]);
    assert_eq!(code, Some(0), "{said}");
    assert!(about(&said, "bucket").0.contains("written, read"), "{said}");
    assert!(about(&said, "bucket clock").0.starts_with("ok"), "{said}");
    assert!(about(&said, "files").0.contains("all 1 are there"), "{said}");
    assert!(!said.contains("test/secret"), "{said}");

    std::fs::remove_dir_all(bucket.folder().join("models/data")).expect("removed");
    let (code, said) = doctor(&data, &["--blob-url", &url]);
    let (line, fix) = about(&said, "files");
    assert!(line.starts_with("broken") && line.contains("1 of 1"), "{said}");
    assert!(
        fix.is_some_and(|fix| fix.contains("old versions")) && code == Some(1),
        "{said}"
    );

    let other = url.replace("test-key", "nobody");
    let (code, said) = doctor(&data, &["--blob-url", &other]);
    let (line, fix) = about(&said, "bucket");
    assert!(line.starts_with("broken") && code == Some(1), "{said}");
    assert!(fix.is_some_and(|fix| fix.contains("s3:PutObject")), "{said}");
}
