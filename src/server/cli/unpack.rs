//! `modelpress unpack`.

use std::path::PathBuf;

use modelpress_engine::SourceFile;
use modelpress_engine::formats::packed::unpack_to;

use super::{BAD_MODEL, FAILED, Failure, USAGE, say};

/// What to unpack, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct UnpackArgs {
    /// The folder of an artifact of the format `packed`
    folder: PathBuf,
    /// Folder for the checkpoint: config.json, tokenizer, model.safetensors; must be new or empty
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &UnpackArgs) -> Result<(), Failure> {
    let taken = std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    if taken {
        let message = format!(
            "{} is there already; choose a new or empty folder",
            args.out.display()
        );
        return Err(Failure::new(USAGE, message));
    }
    let files = SourceFile::from_path(&args.folder)
        .map_err(|error| Failure::new(BAD_MODEL, format!("{}: {error}", args.folder.display())))?;
    let written = unpack_to(&files, &args.out, &|| false).map_err(|error| {
        let code = if error.code == "io" { FAILED } else { BAD_MODEL };
        Failure::new(code, format!("{}: {error}", args.folder.display()))
    })?;
    let bytes: u64 = written.iter().map(|file| file.bytes).sum();
    say(format!(
        "{} files, {bytes} bytes in {}",
        written.len(),
        args.out.display()
    ));
    Ok(())
}
