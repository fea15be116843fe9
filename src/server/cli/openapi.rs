//! `modelpress openapi`.

use std::path::PathBuf;

use super::Failure;
use crate::http::openapi::text;

/// Where the document goes.
#[derive(Debug, clap::Args)]
pub(super) struct OpenapiArgs {
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &OpenapiArgs) -> Result<(), Failure> {
    if let Some(path) = &args.write {
        return Ok(std::fs::write(path, text())?);
    }
    super::say(text().trim_end());
    Ok(())
}
