//! Is this folder what its manifest says, and is the manifest what was signed?
//!
//! Owns: the findings.
//! Must not know: whom to trust; a key is handed in.
//! Invariant: every file of the folder is looked at; what the manifest does not name is a finding. Names that lead out of
//! the folder are not followed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use modelpress_engine::{MANIFEST, SIGNATURE, digest};
use serde::Deserialize;
use ssh_key::{HashAlg, PublicKey, SshSig};

use super::NAMESPACE;

/// Longest manifest and signature that are read.
const LONGEST: u64 = 64 << 20;

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The manifest cannot be used.
    #[error("modelpress.json: {0}")]
    Manifest(String),
    /// The manifest names a file that cannot be read.
    #[error("{name}: {cause}")]
    Missing {
        /// The file.
        name: String,
        /// Why not.
        cause: String,
    },
    /// A file has another length or other bytes.
    #[error("{name}: its bytes are not those that were made")]
    Changed {
        /// The file.
        name: String,
    },
    /// A file that was not made with the others.
    #[error("{name}: modelpress.json does not name it")]
    Foreign {
        /// The file.
        name: String,
    },
    /// There is no signature.
    #[error("there is no {SIGNATURE}, and a key was given to check it with")]
    Unsigned,
    /// The signature cannot be read, or is another manifest's.
    #[error("{SIGNATURE}: {0}")]
    Signature(String),
    /// The signature is good, but of another key.
    #[error("signed by {0}, which is not the key that was given")]
    AnotherKey(String),
}

/// Who signed, and whether that was the key that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// By the key that was given.
    Known(String),
    /// By this key, and nobody said whose it is.
    Unknown(String),
    /// By nobody.
    Unsigned,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    files: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Checks a folder; with a key (`ssh-ed25519 AAAA…`) also whose work it is.
pub fn verify(folder: &Path, key: Option<&PublicKey>) -> Result<Trusted, Vec<Finding>> {
    let manifest = bounded(&folder.join(MANIFEST)).map_err(|e| vec![Finding::Manifest(e.to_string())])?;
    let mut findings = Vec::new();
    let trusted = signed(folder, &manifest, key).unwrap_or_else(|finding| {
        findings.push(finding);
        Trusted::Unsigned
    });
    match serde_json::from_slice::<Manifest>(&manifest) {
        Ok(manifest) => findings.extend(files(folder, &manifest)),
        Err(error) => findings.push(Finding::Manifest(error.to_string())),
    }
    if findings.is_empty() {
        Ok(trusted)
    } else {
        Err(findings)
    }
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn signed(folder: &Path, manifest: &[u8], key: Option<&PublicKey>) -> Result<Trusted, Finding> {
    let wrong = |cause: &dyn std::fmt::Display| Finding::Signature(cause.to_string());
    let text = match bounded(&folder.join(SIGNATURE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if key.is_none() {
                Ok(Trusted::Unsigned)
            } else {
                Err(Finding::Unsigned)
            };
        }
        Err(error) => return Err(wrong(&error)),
    };
    let signature = SshSig::from_pem(&text).map_err(|e| wrong(&e))?;
    let own = PublicKey::from(signature.public_key().clone());
    own.verify(NAMESPACE, manifest, &signature)
        .map_err(|_e| wrong(&"it is no signature of this modelpress.json"))?;
    let fingerprint = own.fingerprint(HashAlg::Sha256).to_string();
    match key {
        None => Ok(Trusted::Unknown(fingerprint)),
        Some(key) if key.key_data() == own.key_data() => Ok(Trusted::Known(fingerprint)),
        Some(_) => Err(Finding::AnotherKey(fingerprint)),
    }
}

fn files(folder: &Path, manifest: &Manifest) -> Vec<Finding> {
    let mut findings: Vec<Finding> = manifest
        .files
        .iter()
        .filter_map(|entry| file(folder, entry).err())
        .collect();
    let named: BTreeSet<&str> = manifest.files.iter().map(|entry| entry.name.as_str()).collect();
    let mut there = Vec::new();
    if let Err(error) = list(folder, Path::new(""), &mut there) {
        findings.push(Finding::Manifest(error.to_string()));
    }
    let foreign = there
        .into_iter()
        .filter(|name| ![MANIFEST, SIGNATURE].contains(&name.as_str()) && !named.contains(name.as_str()));
    findings.extend(foreign.map(|name| Finding::Foreign { name }));
    findings
}

fn file(folder: &Path, entry: &Entry) -> Result<(), Finding> {
    let missing = |cause: &dyn std::fmt::Display| Finding::Missing {
        name: entry.name.clone(),
        cause: cause.to_string(),
    };
    let changed = || Finding::Changed {
        name: entry.name.clone(),
    };
    let inside = Path::new(&entry.name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside || entry.name.is_empty() {
        return Err(missing(&"a name that leads out of the folder"));
    }
    let mut open = File::open(folder.join(&entry.name)).map_err(|e| missing(&e))?;
    if open.metadata().map_err(|e| missing(&e))?.len() != entry.bytes {
        return Err(changed());
    }
    let found = digest::sha256_of(&mut open, &|| true).map_err(|e| missing(&e))?;
    if found == Some(entry.sha256.to_ascii_lowercase()) {
        Ok(())
    } else {
        Err(changed())
    }
}

/// Every file below the folder, by its relative name; links are named and not followed.
fn list(folder: &Path, below: &Path, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let name: PathBuf = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(folder, &name, found)?;
        } else {
            found.push(name.to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(())
}
