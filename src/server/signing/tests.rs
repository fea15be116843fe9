//! What is signed here is checked here, and by OpenSSH.

use std::fs;
use std::path::Path;
use std::process::Command;

use modelpress_engine::{Artifact, ArtifactFile, MANIFEST, SIGNATURE, digest};
use serde_json::json;
use ssh_key::PublicKey;

use super::{Finding, NAMESPACE, Signer, Trusted, verify};

fn signer(folder: &Path, seed: u8) -> Signer {
    Signer::open_or_make(&folder.join(format!("key-{seed}")), [seed; 32]).expect("makes a key")
}

fn public(signer: &Signer) -> PublicKey {
    PublicKey::from_openssh(&signer.public_key()).expect("a key")
}

/// An artifact of two files with its manifest, signed.
fn signed(folder: &Path, signer: &Signer) -> Artifact {
    fs::create_dir_all(folder.join("1_Pooling")).expect("makes");
    let mut files = Vec::new();
    for (name, text) in [("model.gguf", "weights"), ("1_Pooling/config.json", "{}")] {
        let path = folder.join(name);
        fs::write(&path, text).expect("writes");
        files.push(ArtifactFile {
            name: name.to_owned(),
            path,
            bytes: text.len() as u64,
            sha256: digest::sha256(text.as_bytes()),
        });
    }
    let named = files
        .iter()
        .map(|f| json!({"name": f.name, "bytes": f.bytes, "sha256": f.sha256}));
    let manifest = json!({"files": named.collect::<Vec<_>>()}).to_string();
    let path = folder.join(MANIFEST);
    fs::write(&path, &manifest).expect("writes");
    files.push(ArtifactFile {
        name: MANIFEST.to_owned(),
        path,
        bytes: manifest.len() as u64,
        sha256: digest::sha256(manifest.as_bytes()),
    });
    let mut artifact = Artifact {
        format: "gguf".to_owned(),
        files,
    };
    signer.sign(&mut artifact).expect("signs");
    artifact
}

#[test]
fn what_was_signed_is_known_until_a_byte_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, out) = (folder.path(), folder.path().join("out"));
    let (own, other) = (signer(keys, 1), signer(keys, 2));
    let artifact = signed(&out, &own);
    let names: Vec<&str> = artifact.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names.last(), Some(&SIGNATURE));
    let known = Trusted::Known(own.fingerprint());
    assert_eq!(verify(&out, Some(&public(&own))), Ok(known));
    assert_eq!(verify(&out, None), Ok(Trusted::Unknown(own.fingerprint())));
    assert_eq!(
        verify(&out, Some(&public(&other))),
        Err(vec![Finding::AnotherKey(own.fingerprint())])
    );
    // The same key opened again signs alike.
    let before = fs::read(out.join(SIGNATURE)).expect("reads");
    signed(&out, &Signer::open(&keys.join("key-1")).expect("opens"));
    assert_eq!(fs::read(out.join(SIGNATURE)).expect("reads"), before);

    fs::write(out.join("model.gguf"), "Weights").expect("writes");
    fs::write(out.join("extra.py"), "import os").expect("writes");
    fs::remove_file(out.join("1_Pooling/config.json")).expect("removes");
    let found = verify(&out, None).expect_err("three findings");
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("model.gguf: its bytes are not"), "{said:?}");
    assert!(said[1].starts_with("1_Pooling/config.json: "), "{said:?}");
    assert!(said[2].starts_with("extra.py: "), "{said:?}");
}

#[test]
fn another_manifest_is_not_what_was_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = signer(folder.path(), 1);
    let out = folder.path().join("out");
    signed(&out, &own);
    let text = fs::read_to_string(out.join(MANIFEST)).expect("reads");
    fs::write(out.join(MANIFEST), text.replace("model.gguf", "../key-1")).expect("writes");
    let found = verify(&out, None).expect_err("findings");
    assert!(matches!(found[0], Finding::Signature(_)), "{found:?}");
    let missing = &found[1];
    assert!(
        missing.to_string().contains("leads out of the folder"),
        "{missing}"
    );
    fs::remove_file(out.join(SIGNATURE)).expect("removes");
    let found = verify(&out, Some(&public(&own))).expect_err("findings");
    assert_eq!(found[0], Finding::Unsigned);
}

/// Whoever comes first, all processes of an installation have one key.
#[test]
fn processes_that_start_at_once_have_one_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("signing.key");
    let keys: Vec<String> = std::thread::scope(|scope| {
        let path = &path;
        let start = |seed: u8| {
            scope.spawn(move || {
                Signer::open_or_make(path, [seed; 32])
                    .expect("makes")
                    .fingerprint()
            })
        };
        let running: Vec<_> = (0..8).map(start).collect();
        running.into_iter().map(|one| one.join().expect("ends")).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(
        fs::read_dir(folder.path()).expect("reads").count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    fs::write(&path, "no key").expect("writes");
    let said = Signer::open(&path).expect_err("no key").to_string();
    assert!(said.contains("ssh-keygen -t ed25519"), "{said}");
    assert!(said.starts_with(&path.display().to_string()), "{said}");
}

/// OpenSSH's own tool is the judge, where it is installed.
#[test]
fn openssh_accepts_the_signature() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = signer(folder.path(), 3);
    let out = folder.path().join("out");
    signed(&out, &own);
    let allowed = folder.path().join("allowed");
    fs::write(&allowed, format!("press@example.com {}\n", own.public_key())).expect("writes");
    let check = |manifest: &Path| {
        Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", NAMESPACE, "-I", "press@example.com", "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(out.join(SIGNATURE))
            .stdin(fs::File::open(manifest).expect("opens"))
            .output()
    };
    let Ok(output) = check(&out.join(MANIFEST)) else {
        println!("SKIPPED: there is no ssh-keygen here");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let other = check(&out.join("model.gguf")).expect("runs");
    assert!(!other.status.success());
}
