//! Backup of a server that runs, and what comes back from it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::crash::{files, get, job, model, over};
use crate::server::Server;

fn run(verb: &str, folder: &Path, data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .arg(verb)
        .args([folder.as_os_str(), "--data-dir".as_ref(), data.as_os_str()])
        .env_remove("MODELPRESS_CONFIG")
        .output()
        .expect("runs")
}

fn works(verb: &str, folder: &Path, data: &Path) -> String {
    let output = run(verb, folder, data);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{verb}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn refused(verb: &str, folder: &Path, data: &Path, because: &str) {
    let output = run(verb, folder, data);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains(because),
        "{verb}: {said}"
    );
}

/// The files of the blob store, below a folder.
fn blobs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable") {
        for file in std::fs::read_dir(entry.expect("entry").path()).expect("readable") {
            found.push(file.expect("entry").path());
        }
    }
    found.sort();
    found
}

/// A running server is backed up; restored elsewhere, its models, jobs, reports and artifacts are there, byte for byte,
/// and it works on.
#[test]
fn what_is_backed_up_while_it_runs_comes_back() {
    let folder = tempfile::tempdir().expect("temp folder");
    let [data, backup, new] = ["data", "backup", "new"].map(|name| folder.path().join(name));
    let server = Server::start(&data);
    let first = job(&server, &model(&server)).expect("accepted");
    let done = over(&server, &first);
    let said = works("backup", &backup, &data);
    assert!(said.contains("blobs of"), "{said}");
    let copied = blobs(&backup.join("store/blobs"));
    assert!(copied.len() >= 2, "{copied:?}");

    // Again into the same folder: nothing to copy. What is deleted here goes there.
    assert!(works("backup", &backup, &data).contains(" 0 bytes copied"));
    let gone = server.id_of("/v1/models", "{}");
    let put = format!("PUT /v1/models/{gone}/files/config.json");
    server.ask(&put, br#"{"gone": true}"#);
    works("backup", &backup, &data);
    assert_eq!(blobs(&backup.join("store/blobs")).len(), copied.len() + 1);
    server.ask(&format!("DELETE /v1/models/{gone}"), b"");
    works("backup", &backup, &data);
    assert_eq!(blobs(&backup.join("store/blobs")), copied);

    let report = server.ask(&format!("GET /v1/jobs/{first}/report"), b"").1;
    let expected = files(&server, &done);
    drop(server);
    works("restore", &backup, &new);
    let server = Server::start(&new);
    let restored = get(&server, &format!("/v1/jobs/{first}"));
    assert_eq!(restored["status"], "succeeded");
    assert_eq!(files(&server, &restored), expected);
    assert_eq!(server.ask(&format!("GET /v1/jobs/{first}/report"), b"").1, report);
    let artifact = restored["artifacts"][0].as_str().expect("an id");
    let (head, read) = server.ask(
        &format!("GET /v1/artifacts/{artifact}/files/modelpress.json"),
        b"",
    );
    assert!(
        head.starts_with("HTTP/1.1 200") && read.contains("safetensors"),
        "{head}"
    );
    let again = server.id_of("/v1/models", "{}");
    assert!(again.starts_with("mdl_"));
    refused("restore", &backup, &new, "exists and is not overwritten");
}

/// What cannot be trusted is not restored, and says which blob; what is no backup is not backed up into.
#[test]
fn damage_is_noticed() {
    let folder = tempfile::tempdir().expect("temp folder");
    let [data, backup, new] = ["data", "backup", "new"].map(|name| folder.path().join(name));
    let server = Server::start(&data);
    model(&server);
    drop(server);
    works("backup", &backup, &data);

    let blob = blobs(&backup.join("store/blobs")).remove(0);
    let digest = blob
        .file_name()
        .expect("a name")
        .to_str()
        .expect("ASCII")
        .to_owned();
    let good = std::fs::read(&blob).expect("readable");
    let mut bad = good.clone();
    bad[0] ^= 1;
    std::fs::write(&blob, bad).expect("written");
    refused("restore", &backup, &new, &digest);
    assert!(!new.join("modelpress.db").exists());
    std::fs::write(&blob, good).expect("written");
    works("restore", &backup, &new);

    std::fs::remove_file(backup.join("modelpress-backup.json")).expect("removed");
    let third = folder.path().join("third");
    refused("restore", &backup, &third, "no complete backup");
    std::fs::write(backup.join("thesis.txt"), "years of work").expect("written");
    refused("backup", &backup, &data, "thesis.txt");
    refused(
        "backup",
        &folder.path().join("b2"),
        &folder.path().join("nothing"),
        "no database",
    );
}
