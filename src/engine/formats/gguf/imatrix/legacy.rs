//! Owns: the form importance matrices had before they were GGUF (`imatrix.dat`). Read only.
//!
//! Must not know: GGUF. Invariant: as above it; a length is compared with what is left of the file before anything is
//! allocated for it.
//!
//! Little-endian: number of entries, then for each the length of its name, the name, calls, values, and for each value
//! `mean · calls` as f32; then chunks, length and text of the dataset's name, which old files lack. Numbers are `int32`.

use super::{ImportanceEntry, ImportanceFile, ReadAt, decode, invalid};
use crate::error::{Error, Result};
use crate::formats::gguf::container::MAX_NAME_BYTES;
use std::collections::HashSet;

struct Cursor<'a> {
    read_at: &'a ReadAt<'a>,
    pos: u64,
    end: u64,
}

impl Cursor<'_> {
    fn left(&self) -> u64 {
        self.end - self.pos
    }

    fn bytes(&mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        if len > self.left() {
            let left = self.left();
            return Err(invalid(format!("{what} needs {len} bytes, {left} are left")));
        }
        let mut bytes = vec![0; len as usize];
        (self.read_at)(self.pos, &mut bytes).map_err(|e| Error::io("importance matrix", &e))?;
        self.pos += len;
        Ok(bytes)
    }

    fn int(&mut self, what: &str) -> Result<i32> {
        let bytes = self.bytes(4, what)?;
        Ok(i32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    /// A number that must not be below `least`.
    fn count(&mut self, least: i32, what: &str) -> Result<u64> {
        let got = self.int(what)?;
        match u64::try_from(got) {
            Ok(count) if got >= least => Ok(count),
            _ => Err(invalid(format!("{what} is {got}"))),
        }
    }

    fn text(&mut self, most: u64, what: &str) -> Result<String> {
        let len = self.count(0, what)?;
        if len > most {
            return Err(invalid(format!("{what} is {len}: the most is {most}")));
        }
        let bytes = self.bytes(len, what)?;
        String::from_utf8(bytes).map_err(|e| invalid(format!("{what}: {e}")))
    }
}

pub(super) fn read(read_at: &ReadAt<'_>, file_len: u64) -> Result<ImportanceFile> {
    let mut cursor = Cursor {
        read_at,
        pos: 0,
        end: file_len,
    };
    let mut file = ImportanceFile::default();
    let mut seen = HashSet::new();
    for index in 0..cursor.count(1, "the number of entries")? {
        let name = cursor.text(MAX_NAME_BYTES, &format!("the name of entry {index}"))?;
        let calls = cursor.int(&name)?;
        let values = cursor.count(1, &format!("the number of values of {name}"))?;
        let in_sum2 = decode(&cursor.bytes(4 * values, &name)?);
        if !seen.insert(name.clone()) {
            return Err(invalid(format!("{name} appears twice")));
        }
        file.entries.push(ImportanceEntry {
            name,
            in_sum2,
            // Without calls the values are means already.
            counts: vec![calls.max(1) as f32],
        });
    }
    if cursor.left() > 0 {
        file.chunk_count = cursor.count(0, "the number of chunks")? as u32;
    }
    if cursor.left() > 0 {
        let dataset = cursor.text(u64::from(u16::MAX), "the dataset's name")?;
        file.datasets.extend((!dataset.is_empty()).then_some(dataset));
    }
    Ok(file)
}
