//! Streaming tar archives (POSIX pax) of files whose sizes are known before.
//!
//! Owns: the 512-byte headers, pax records for long names and large files, the total length.
//! Must not know: where the bytes come from.
//! Invariant: [`total_bytes`] is exactly what [`head`] + content + [`padding`] + [`END`] add up to.

use std::io;

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the archive, with `/`.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Unix time of its creation.
    pub modified: u64,
}

const BLOCK: usize = 512;
/// Largest size that eleven octal digits hold.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
const NAME_BYTES: usize = 100;

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The bytes before a file's content.
pub fn head(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(BLOCK);
    let records = pax_records(entry);
    if !records.is_empty() {
        out.extend_from_slice(&block(
            "././@PaxHeader",
            records.len() as u64,
            entry.modified,
            b'x',
        )?);
        out.extend_from_slice(records.as_bytes());
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let short: String = entry
        .name
        .chars()
        .filter(char::is_ascii)
        .take(NAME_BYTES)
        .collect();
    let size = if entry.bytes > MAX_OCTAL_SIZE {
        0
    } else {
        entry.bytes
    };
    out.extend_from_slice(&block(&short, size, entry.modified, b'0')?);
    Ok(out)
}

/// Zeros after a file's content.
pub fn padding(bytes: u64) -> &'static [u8] {
    let used = usize::try_from(bytes % BLOCK as u64).unwrap_or(0);
    if used == 0 { &[] } else { &END[..BLOCK - used] }
}

/// The length of the whole archive.
pub fn total_bytes(entries: &[Entry]) -> io::Result<u64> {
    let mut total = END.len() as u64;
    for entry in entries {
        total += head(entry)?.len() as u64 + entry.bytes + padding(entry.bytes).len() as u64;
    }
    Ok(total)
}

fn pax_records(entry: &Entry) -> String {
    let mut records = String::new();
    if entry.name.len() > NAME_BYTES || !entry.name.is_ascii() {
        records.push_str(&record("path", &entry.name));
    }
    if entry.bytes > MAX_OCTAL_SIZE {
        records.push_str(&record("size", &entry.bytes.to_string()));
    }
    records
}

/// `"<length> key=value\n"`, where the length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let line = format!("{length}{rest}");
        if line.len() == length {
            return line;
        }
        length = line.len();
    }
}

fn block(name: &str, size: u64, modified: u64, kind: u8) -> io::Result<[u8; BLOCK]> {
    use std::io::Write as _;
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, room: usize, text: &[u8]| (&mut block[at..at + room]).write_all(text);
    put(0, NAME_BYTES, name.as_bytes())?;
    put(100, 8, b"0000644\0")?;
    put(108, 8, b"0000000\0")?;
    put(116, 8, b"0000000\0")?;
    put(124, 12, format!("{size:011o}\0").as_bytes())?;
    put(
        136,
        12,
        format!("{:011o}\0", modified.min(MAX_OCTAL_SIZE)).as_bytes(),
    )?;
    put(148, 8, b"        ")?;
    put(156, 1, &[kind])?;
    put(257, 8, b"ustar\x0000")?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    (&mut block[148..156]).write_all(format!("{sum:06o}\0 ").as_bytes())?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut entries = Vec::new();
        for (name, content) in files {
            let entry = Entry {
                name: (*name).to_owned(),
                bytes: content.len() as u64,
                modified: 1_700_000_000,
            };
            out.extend(head(&entry).expect("fits"));
            out.extend_from_slice(content);
            out.extend_from_slice(padding(entry.bytes));
            entries.push(entry);
        }
        out.extend_from_slice(&END);
        assert_eq!(out.len() as u64, total_bytes(&entries).expect("fits"));
        out
    }

    #[test]
    fn the_system_tar_reads_it() {
        let long = format!("deep/{}/model.safetensors", "x".repeat(180));
        let block = [7u8; 512];
        let files: [(&str, &[u8]); 4] = [
            ("a/config.json", b"{}"),
            (&long, b"weights"),
            ("a/é.txt", b""),
            ("a/block", &block),
        ];
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("x.tar"), archive(&files)).expect("written");
        let status = std::process::Command::new("tar")
            .args(["-xf", "x.tar"])
            .current_dir(dir.path())
            .status()
            .expect("tar runs");
        assert!(status.success());
        for (name, content) in files {
            assert_eq!(
                std::fs::read(dir.path().join(name)).expect(name),
                content,
                "{name}"
            );
        }
    }

    #[test]
    fn large_sizes_are_in_a_pax_record() {
        let entry = Entry {
            name: "big".into(),
            bytes: 9 << 30,
            modified: 0,
        };
        let head = head(&entry).expect("fits");
        assert_eq!(head.len(), 3 * BLOCK);
        assert!(
            String::from_utf8_lossy(&head).contains("19 size=9663676416\n"),
            "{head:?}"
        );
        assert_eq!(record("path", &"x".repeat(90)).len(), 99);
    }
}
