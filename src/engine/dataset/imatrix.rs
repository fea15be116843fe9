//! Importance matrices: one file of sums, no records.
//!
//! Owns: telling them from other files, opening one. Must not know: what its sums are used for.
//! Invariant: what is opened was read once from front to back; it is read again by whoever wants its numbers.

use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::formats::gguf::imatrix::ImportanceFile;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longest name of a tensor in the older form; one ends as weights' names do.
const LONGEST_NAME: usize = 63;

/// True where a file begins as an importance matrix does, in either form.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.starts_with(b"GGUF") || is_older_form(head).is_some()
}

/// Number of entries, length of the first name, the name.
fn is_older_form(head: &[u8]) -> Option<()> {
    let number = |at: usize| Some(i32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let (entries, length) = (number(0)?, usize::try_from(number(4)?).ok()?);
    let name = head.get(8..8 + length.min(LONGEST_NAME + 1))?;
    let fits = entries > 0 && length <= LONGEST_NAME && name.iter().all(u8::is_ascii_graphic);
    (fits && name.ends_with(b".weight")).then_some(())
}

/// Reads the file and checks it.
pub(super) fn read(file: &SourceFile) -> Result<ImportanceFile> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let handle = File::open(&file.path).map_err(io)?;
    let length = handle.metadata().map_err(io)?.len();
    let read_at = |offset: u64, out: &mut [u8]| handle.read_exact_at(out, offset);
    ImportanceFile::read(&read_at, length).map_err(|e| Error {
        message: format!("{}: {}", file.name, e.message),
        ..e
    })
}
