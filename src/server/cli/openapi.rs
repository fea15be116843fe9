//! `modelpress openapi`.

use std::path::PathBuf;

use modelpress_engine::catalog::pages;

use super::Failure;
use crate::http::openapi::text;

/// Where the document goes.
#[derive(Debug, clap::Args)]
pub(super) struct OpenapiArgs {
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write a page for each technique into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "write")]
    pages: Option<PathBuf>,
}

pub(super) fn run(args: &OpenapiArgs) -> Result<(), Failure> {
    if let Some(path) = &args.write {
        return Ok(std::fs::write(path, text())?);
    }
    if let Some(folder) = &args.pages {
        std::fs::create_dir_all(folder)?;
        for page in pages() {
            std::fs::write(folder.join(page.name), page.text)?;
        }
        return Ok(());
    }
    super::say(text().trim_end());
    Ok(())
}
