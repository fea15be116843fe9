//! Digests as text: what recipes, files and artifacts are named by.
//!
//! Owns: their one spelling. Must not know: what is hashed. Invariant: hex is lower-case.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        })
}

/// SHA-256 of these bytes, hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of all that can be read, hex; nothing where `go_on`, which is asked every megabyte, says no.
///
/// # Errors
/// Those of reading.
pub fn sha256_of(source: &mut dyn Read, go_on: &dyn Fn() -> bool) -> io::Result<Option<String>> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    while go_on() {
        match source.read(&mut chunk)? {
            0 => return Ok(Some(hex(&hash.finalize()))),
            count => hash.update(&chunk[..count]),
        }
    }
    Ok(None)
}
