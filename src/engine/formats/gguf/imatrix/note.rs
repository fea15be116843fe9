//! Owns: what a GGUF says of the importance matrix it was quantized with.
//!
//! Must not know: the matrix's numbers. Invariant: the keys, their types and their lengths are those of llama.cpp's quantizer.

use super::writer_seam::FILE;
use crate::formats::gguf::value::{Metadata, Value};
use crate::plan::{ImportancePlan, ImportanceSource};

/// What the keys begin with.
pub(in crate::formats::gguf) const KEYS: &str = "quantize.imatrix.";

/// Longest text, bytes: llama.cpp holds overrides in 128 with their final NUL.
const MOST: usize = 127;

/// Where the importance came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImatrixNote {
    /// Name of the matrix's file.
    pub file: String,
    /// Name of the text it was computed on.
    pub dataset: Option<String>,
    /// Tensors it has importance for.
    pub entries: u32,
    /// Chunks of text it was computed on; 0 where that is not known.
    pub chunks: u32,
}

impl ImatrixNote {
    /// What is said of importance; one that was computed here is called as the file it would be written to.
    pub fn of(importance: &ImportancePlan) -> Self {
        Self {
            file: match &importance.source {
                ImportanceSource::Dataset(name) => name.clone(),
                _ => FILE.to_owned(),
            },
            dataset: importance.texts.first().cloned(),
            entries: importance.tensors.len() as u32,
            chunks: importance.chunks,
        }
    }

    /// Appends the keys.
    pub fn add_to(&self, metadata: &mut Metadata) {
        metadata.set("quantize.imatrix.file", Value::text(shortened(&self.file)));
        if let Some(dataset) = &self.dataset {
            metadata.set("quantize.imatrix.dataset", Value::text(shortened(dataset)));
        }
        metadata.set("quantize.imatrix.entries_count", Value::U32(self.entries));
        if self.chunks > 0 {
            metadata.set("quantize.imatrix.chunks_count", Value::U32(self.chunks));
        }
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_becomes_the_keys_llama_cpp_writes() {
        let mut metadata = Metadata::new();
        let note = ImatrixNote {
            file: "é".repeat(100),
            dataset: Some("wiki.train.raw".into()),
            entries: 210,
            chunks: 0,
        };
        note.add_to(&mut metadata);
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "quantize.imatrix.file",
                "quantize.imatrix.dataset",
                "quantize.imatrix.entries_count"
            ]
        );
        assert_eq!(metadata.get_str("quantize.imatrix.file").unwrap(), "é".repeat(63));
        assert_eq!(metadata.get_u32("quantize.imatrix.entries_count"), Some(210));
    }
}
