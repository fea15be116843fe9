//! Datasets: text, conversations, token ids or arrays that a technique is calibrated with or a model evaluated on, and
//! importance matrices that were computed elsewhere.
//!
//! Owns: [`Dataset`], which kinds of files are read, the streaming of their records, the text that comes with us.
//! Must not know: tokenizers, chat templates, windows, recipes.
//! Invariant: at most one record and its bytes are in memory, and a record has at most [`MAX_RECORD_BYTES`].
//!
//! Opening looks at the beginning of every file and reads the first record; [`Dataset::summary`] reads everything
//! once, and that is what an upload goes through. Whoever uses a dataset later streams it again.

mod arrays;
mod imatrix;
mod lines;
mod named;
mod npy;
mod record;
mod sniff;
mod text;

pub use named::{BUILTIN, Datasets};
pub use record::{Content, ContentKind, Label, Message, Record};

use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::formats::gguf::imatrix::ImportanceFile;
use arrays::Table;
use serde::{Deserialize, Serialize};
use std::fs::File;

/// Most stored bytes of one record: a line of JSON, a row of an array, a piece of a text file. A longer line or row
/// is refused; a longer text file comes in pieces of this size, cut at line breaks.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// How a dataset's files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// Plain text, one document a file.
    Txt,
    /// One JSON object a line.
    Jsonl,
    /// `NumPy` arrays.
    Npy,
    /// Safetensors arrays under known names.
    Safetensors,
    /// llama.cpp's importance matrix, in either form.
    Imatrix,
}

impl DatasetFormat {
    /// Name as the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Jsonl => "jsonl",
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
            Self::Imatrix => "imatrix",
        }
    }
}

/// What the API shows of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// How the files are written.
    pub format: DatasetFormat,
    /// What a record holds.
    pub content: ContentKind,
    /// Number of files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of records, counted.
    pub records: u64,
    /// Records with a label.
    pub labelled: u64,
    /// Records with a second text.
    pub paired: u64,
}

/// An opened dataset.
#[derive(Debug)]
pub struct Dataset {
    /// How the files are written.
    pub format: DatasetFormat,
    /// What every record holds.
    pub content: ContentKind,
    /// Bytes of all files.
    pub bytes: u64,
    parts: Vec<Part>,
}

/// One file, as far as it is known before its records are read.
#[derive(Debug)]
enum Part {
    Builtin(&'static str),
    Text(SourceFile),
    Lines(SourceFile),
    Table(Table),
    /// With the number of its entries.
    Imatrix(SourceFile, u64),
}

/// Records of one file.
type Stream<'a> = Box<dyn Iterator<Item = Result<Record>> + Send + 'a>;

impl Dataset {
    /// Opens files: recognises what they are and reads the first record.
    pub fn open(files: &[SourceFile]) -> Result<Self> {
        let format = sniff::format_of(files)?;
        let mut bytes = 0;
        let mut parts = Vec::with_capacity(files.len());
        for file in files {
            let io = |e: std::io::Error| Error::io(&file.name, &e);
            bytes += std::fs::metadata(&file.path).map_err(io)?.len();
            parts.push(match format {
                DatasetFormat::Txt => Part::Text(file.clone()),
                DatasetFormat::Jsonl => Part::Lines(file.clone()),
                DatasetFormat::Npy => Part::Table(npy::open(file)?),
                DatasetFormat::Safetensors => Part::Table(arrays::open(file)?),
                DatasetFormat::Imatrix => {
                    Part::Imatrix(file.clone(), imatrix::read(file)?.entries.len() as u64)
                }
            });
        }
        if format == DatasetFormat::Imatrix {
            return Self::of_imatrix(bytes, parts);
        }
        Self::begin(format, bytes, parts)
    }

    fn of_imatrix(bytes: u64, parts: Vec<Part>) -> Result<Self> {
        if parts.len() > 1 {
            return Err(Error::bad_input(
                "mixed_dataset",
                format!("{} importance matrices: make a dataset of each", parts.len()),
            ));
        }
        Ok(Self {
            format: DatasetFormat::Imatrix,
            content: ContentKind::Importance,
            bytes,
            parts,
        })
    }

    /// The importance matrix that this dataset is.
    pub fn importance(&self) -> Result<ImportanceFile> {
        match self.parts.first() {
            Some(Part::Imatrix(file, _)) => imatrix::read(file),
            _ => Err(Error::bad_input(
                "not_an_imatrix",
                format!(
                    "the dataset holds {}, it is no importance matrix",
                    self.content.name()
                ),
            )),
        }
    }

    /// The calibration text that comes with this version: its first two thirds.
    pub fn builtin() -> Self {
        Self::embedded(parted().0)
    }

    /// The last third of that text, to measure with.
    pub fn held_out() -> Self {
        Self::embedded(parted().1)
    }

    fn embedded(text: &'static str) -> Self {
        Self {
            format: DatasetFormat::Txt,
            content: ContentKind::Text,
            bytes: text.len() as u64,
            parts: vec![Part::Builtin(text)],
        }
    }

    fn begin(format: DatasetFormat, bytes: u64, parts: Vec<Part>) -> Result<Self> {
        let mut dataset = Self {
            format,
            // Known once the first record is.
            content: ContentKind::Text,
            bytes,
            parts,
        };
        let mut first = None;
        for part in &dataset.parts {
            first = part.stream()?.next().transpose()?;
            if first.is_some() {
                break;
            }
        }
        let first = first.ok_or_else(|| {
            Error::bad_input(
                "empty_dataset",
                "the dataset has no record: every file is empty or holds blank text only",
            )
        })?;
        dataset.content = first.content.kind();
        Ok(dataset)
    }

    /// Every record, file by file, in order. After an error there are no more.
    pub fn records(&self) -> Records<'_> {
        Records {
            dataset: self,
            next: 0,
            current: None,
        }
    }

    /// Reads everything once: checks every record and counts.
    pub fn summary(&self) -> Result<DatasetSummary> {
        let mut summary = DatasetSummary {
            format: self.format,
            content: self.content,
            files: self.parts.len(),
            bytes: self.bytes,
            records: 0,
            labelled: 0,
            paired: 0,
        };
        if let Some(Part::Imatrix(_, entries)) = self.parts.first() {
            summary.records = *entries;
            return Ok(summary);
        }
        for record in self.records() {
            let record = record?;
            summary.records += 1;
            summary.labelled += u64::from(record.label.is_some());
            summary.paired += u64::from(record.text_pair.is_some());
        }
        Ok(summary)
    }
}

/// The text that comes with us, cut at the end of a paragraph behind two thirds.
fn parted() -> (&'static str, &'static str) {
    let text = include_str!("builtin.txt");
    let from = text.ceil_char_boundary(text.len() / 3 * 2);
    let cut = text[from..].find("\n\n").map_or(text.len(), |at| from + at + 2);
    text.split_at(cut)
}

impl Part {
    fn name(&self) -> &str {
        match self {
            Self::Builtin(_) => BUILTIN,
            Self::Text(file) | Self::Lines(file) | Self::Imatrix(file, _) => &file.name,
            Self::Table(table) => table.name(),
        }
    }

    fn stream(&self) -> Result<Stream<'_>> {
        let open = |file: &SourceFile| File::open(&file.path).map_err(|e| Error::io(&file.name, &e));
        Ok(match self {
            Self::Builtin(text) => Box::new(text::pieces(text.as_bytes(), BUILTIN)),
            Self::Text(file) => Box::new(text::pieces(open(file)?, &file.name)),
            Self::Lines(file) => Box::new(lines::rows(open(file)?, &file.name)),
            Self::Table(table) => Box::new(table.rows()),
            Self::Imatrix(_, _) => Box::new(std::iter::empty()),
        })
    }
}

/// The records of a dataset.
pub struct Records<'a> {
    dataset: &'a Dataset,
    next: usize,
    current: Option<Stream<'a>>,
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Records<'_> {
    fn step(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.current.as_mut().and_then(Iterator::next) {
                let record = record?;
                return self.same_kind(record).map(Some);
            }
            let Some(part) = self.dataset.parts.get(self.next) else {
                return Ok(None);
            };
            self.next += 1;
            self.current = Some(part.stream()?);
        }
    }

    /// Whoever reads a dataset should not have to expect another kind in the middle of it.
    fn same_kind(&self, record: Record) -> Result<Record> {
        let (first, found) = (self.dataset.content, record.content.kind());
        if first == found {
            return Ok(record);
        }
        let name = self.dataset.parts[self.next - 1].name();
        Err(Error::bad_input(
            "mixed_records",
            format!(
                "{name}: a record holds {}, the ones before it hold {}: make two datasets of them",
                found.name(),
                first.name()
            ),
        ))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose()?;
        if step.is_err() {
            self.next = self.dataset.parts.len();
            self.current = None;
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests;
