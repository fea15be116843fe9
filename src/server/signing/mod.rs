//! Signatures of artifacts: who made these files, and whether they are still what was made.
//!
//! Owns: this installation's key, the form of signatures, checking a folder.
//! Must not know: jobs, rows, requests.
//! Invariant: a signature is over the manifest's bytes, and the manifest has the digest of every other file; the same
//! key gives the same manifest the same signature.
//!
//! The form is OpenSSH's (`PROTOCOL.sshsig`, Ed25519), so that `ssh-keygen -Y verify` and `check-novalidate` check it too.

mod verify;

pub use verify::{Finding, Trusted, verify};

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use modelpress_engine::{Artifact, ArtifactFile, MANIFEST, SIGNATURE, digest};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

/// What signatures are for, as OpenSSH's tools ask.
pub const NAMESPACE: &str = "modelpress";
/// Whose key it is, where nobody says.
const COMMENT: &str = "modelpress";

/// Why there is no key, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
    /// It is no key that can be used.
    #[error(
        "{}: {cause}; it must be an Ed25519 key in OpenSSH's form without a passphrase (ssh-keygen -t ed25519 -N '')",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// There is nothing to sign.
    #[error("an artifact has no {MANIFEST}")]
    NoManifest,
    /// The signature cannot be made.
    #[error("signature: {0}")]
    Signature(#[from] ssh_key::Error),
}

/// The key of this installation.
pub struct Signer {
    key: PrivateKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.fingerprint())
    }
}

impl Signer {
    /// The key in this file.
    pub fn open(path: &Path) -> Result<Self, SigningError> {
        let text = fs::read_to_string(path).map_err(|cause| SigningError::File {
            path: path.to_owned(),
            cause,
        })?;
        let wrong = |cause: String| SigningError::Key {
            path: path.to_owned(),
            cause,
        };
        let key = PrivateKey::from_openssh(&text).map_err(|error| wrong(error.to_string()))?;
        if !matches!(key.key_data(), KeypairData::Ed25519(_)) {
            return Err(wrong(format!("a key of type {}", key.algorithm())));
        }
        Ok(Self { key })
    }

    /// The key in this file, which is made of `seed` if there is none yet.
    pub fn open_or_make(path: &Path, seed: [u8; 32]) -> Result<Self, SigningError> {
        if path.exists() {
            return Self::open(path);
        }
        let made = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let text = PrivateKey::new(made, COMMENT)?.to_openssh(LineEnding::LF)?;
        // Whole under its name or not at all: another process of this installation may look at the same moment.
        let new = path.with_extension(format!("{}.new", uuid::Uuid::now_v7()));
        let put = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            let linked = fs::hard_link(&new, path);
            fs::remove_file(&new)?;
            linked
        };
        match put() {
            // It was first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => {
                return Err(SigningError::File {
                    path: path.to_owned(),
                    cause,
                });
            }
            Ok(()) => {}
        }
        Self::open(path)
    }

    /// `ssh-ed25519 AAAA…`, as in OpenSSH's files.
    pub fn public_key(&self) -> String {
        // The public half of a key that was read can be written.
        self.key.public_key().to_openssh().unwrap_or_default()
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Signs an artifact's manifest, into a file beside it that becomes one of the artifact's.
    pub fn sign(&self, artifact: &mut Artifact) -> Result<(), SigningError> {
        let manifest = artifact.files.iter().find(|file| file.name == MANIFEST);
        let manifest = manifest.ok_or(SigningError::NoManifest)?;
        let file = |path: &Path| {
            let path = path.to_owned();
            move |cause| SigningError::File { path, cause }
        };
        let bytes = fs::read(&manifest.path).map_err(file(&manifest.path))?;
        let signature = self.key.sign(NAMESPACE, HashAlg::Sha512, &bytes)?;
        let text = signature.to_pem(LineEnding::LF)?;
        let path = manifest.path.with_file_name(SIGNATURE);
        fs::write(&path, &text).map_err(file(&path))?;
        artifact.files.push(ArtifactFile {
            name: SIGNATURE.to_owned(),
            bytes: text.len() as u64,
            sha256: digest::sha256(text.as_bytes()),
            path,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
