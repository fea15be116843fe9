//! Writing past the page cache: a large upload costs one copy less, leaves the cache to others, and its last fsync
//! has nothing left to write.
//!
//! Owns: opening, alignment, the aligned copy.
//! Must not know: hashes, notes, when it pays.
//! Invariant: whole blocks are written or an error is returned; where the file system cannot do it, nobody notices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;

/// Offsets, lengths and addresses are multiples of this: the largest sector of common disks.
pub(super) const BLOCK: usize = 4096;

/// A file open for direct writes.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    buffer: Vec<u8>,
}

impl Direct {
    /// Opens a file that exists, if its file system can do it.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let flag = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flag).open(path);
        Some(Self {
            file: file.ok()?,
            buffer: Vec::new(),
        })
    }

    /// Writes the first `length` bytes of the chunks; offset and length are multiples of [`BLOCK`].
    pub(super) fn write(&mut self, chunks: &[Bytes], length: usize, offset: u64) -> io::Result<()> {
        if self.buffer.len() < length + BLOCK {
            self.buffer = vec![0; length + BLOCK];
        }
        let start = self.buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        let aligned = &mut self.buffer[start..][..length];
        let mut rest = &mut aligned[..];
        for chunk in chunks {
            let n = chunk.len().min(rest.len());
            let (filled, after) = rest.split_at_mut(n);
            filled.copy_from_slice(&chunk[..n]);
            rest = after;
        }
        self.file.write_all_at(aligned, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_arrive_where_they_belong() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("temp folder");
        let path = folder.path().join("data");
        std::fs::write(&path, vec![7; BLOCK]).expect("written");
        let Some(mut direct) = Direct::open(&path) else {
            return; // This file system cannot.
        };
        let chunks = [Bytes::from(vec![1; 3000]), Bytes::from(vec![2; 6000])];
        direct.write(&chunks, 2 * BLOCK, BLOCK as u64).expect("written");
        let read = std::fs::read(&path).expect("read");
        let expected = [vec![7; BLOCK], vec![1; 3000], vec![2; 2 * BLOCK - 3000]].concat();
        assert!(read == expected);
    }
}
