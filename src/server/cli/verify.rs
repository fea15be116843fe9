//! `modelpress verify`.

use std::fs;
use std::path::PathBuf;

use ssh_key::PublicKey;

use super::{FAILED, Failure, USAGE, complain, say};
use crate::signing::{Trusted, verify};

/// What to check, and whose work it should be.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// An artifact's folder, as it was downloaded and unpacked
    folder: PathBuf,
    /// The key it must be signed with: the line that GET /v1/signing-key shows ("ssh-ed25519 AAAA…"), or a file with it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    match verify(&args.folder, key.as_ref()) {
        Ok(Trusted::Known(fingerprint)) => say(format!(
            "good: every file is as it was made, signed by {fingerprint}"
        )),
        Ok(Trusted::Unknown(fingerprint)) => say(format!(
            "intact: every file is as modelpress.json says, signed by {fingerprint}; give --key to check whose key that is"
        )),
        Ok(Trusted::Unsigned) => say("intact: every file is as modelpress.json says; it is not signed"),
        Err(findings) => {
            for finding in &findings {
                complain(&finding.to_string());
            }
            let folder = args.folder.display();
            return Err(Failure::new(FAILED, format!("{folder} is not what was made")));
        }
    }
    Ok(())
}

fn read_key(text: &str) -> Result<PublicKey, Failure> {
    let line = if text.starts_with("ssh-") {
        text.to_owned()
    } else {
        fs::read_to_string(text).map_err(|error| Failure::new(USAGE, format!("--key {text}: {error}")))?
    };
    PublicKey::from_openssh(line.trim()).map_err(|error| Failure::new(USAGE, format!("--key: {error}")))
}
