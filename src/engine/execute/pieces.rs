//! Tensors that an earlier attempt made and encoded, on disk until the artifact is whole.
//!
//! Owns: their files, and which tensors are worth one. Must not know: techniques, formats by name.
//! Invariant: a piece is used only if it is of this very plan and its bytes are those that were written. One that is
//! made again is the same, so it may be missing.

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::report::TensorReport;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Bytes a second that writing a piece, hashing it and reading it again cost at least; what is made faster is not kept.
const SPEED: f64 = 100e6;
/// Longest head that is read.
const HEAD: u64 = 1 << 20;
/// Marks a float in a report that is kept by its bits: JSON does not promise to read the same float again.
const BITS: &str = "f64_bits";

/// One tensor as a format holds it: the bytes of each entry.
pub(super) type Parts = Vec<Vec<u8>>;

/// A folder of pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    folder: PathBuf,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    fingerprint: String,
    sha256: String,
    report: Value,
    /// Of the entries.
    lengths: Vec<u64>,
}

impl Pieces {
    pub(super) fn at(scratch: &Path, fingerprint: String) -> Self {
        Self {
            folder: scratch.join(super::resume::PIECES),
            fingerprint,
        }
    }

    /// Whether a tensor that took so long is worth a piece.
    pub(super) fn is_worth(seconds: f64, parts: &[Vec<u8>]) -> bool {
        let bytes: usize = parts.iter().map(Vec::len).sum();
        seconds * SPEED > bytes as f64
    }

    fn path(&self, tensor: usize, format: usize) -> PathBuf {
        self.folder.join(format!("{tensor}-{format}"))
    }

    /// Keeps a tensor as the format of that number holds it.
    pub(super) fn put(
        &self,
        tensor: usize,
        format: usize,
        report: &TensorReport,
        parts: &[Vec<u8>],
    ) -> Result<()> {
        let io = |e: std::io::Error| Error::io("writing a tensor to scratch", &e);
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        let report = serde_json::to_value(report).map_err(|e| Error::internal(e.to_string()))?;
        let head = Head {
            fingerprint: self.fingerprint.clone(),
            sha256: hex(&hash.finalize()),
            report: by_bits(report),
            lengths: parts.iter().map(|part| part.len() as u64).collect(),
        };
        let mut head = serde_json::to_vec(&head).map_err(|e| Error::internal(e.to_string()))?;
        head.push(b'\n');
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let path = self.path(tensor, format);
        let part = path.with_extension("part");
        let mut file = File::create(&part).map_err(io)?;
        for bytes in std::iter::once(&head).chain(parts) {
            file.write_all(bytes).map_err(io)?;
        }
        drop(file);
        std::fs::rename(&part, &path).map_err(io)
    }

    /// A tensor that an earlier attempt kept whole; nothing of one that is not there, or not as it was.
    pub(super) fn get(&self, tensor: usize, format: usize) -> Option<(TensorReport, Parts)> {
        let file = File::open(self.path(tensor, format)).ok()?;
        let length = file.metadata().ok()?.len();
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        let read = (&mut file).take(HEAD).read_until(b'\n', &mut line).ok()?;
        let head: Head = serde_json::from_slice(&line).ok()?;
        let planned = head
            .lengths
            .iter()
            .try_fold(read as u64, |sum, n| sum.checked_add(*n));
        if head.fingerprint != self.fingerprint || planned != Some(length) {
            return None;
        }
        let mut hash = Sha256::new();
        let mut parts = Parts::with_capacity(head.lengths.len());
        for length in head.lengths {
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            file.read_exact(&mut bytes).ok()?;
            hash.update(&bytes);
            parts.push(bytes);
        }
        let report = serde_json::from_value(from_bits(head.report)).ok()?;
        (hex(&hash.finalize()) == head.sha256).then_some((report, parts))
    }
}

/// Floats by their bits.
fn by_bits(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let bits = number.as_f64().unwrap_or_default().to_bits();
            json!({ BITS: bits })
        }
        Value::Array(values) => values.into_iter().map(by_bits).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, by_bits(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn from_bits(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(bits) = fields.get(BITS).and_then(Value::as_u64) {
                return json!(f64::from_bits(bits));
            }
            let fields = fields.into_iter().map(|(name, value)| (name, from_bits(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(values) => values.into_iter().map(from_bits).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> TensorReport {
        TensorReport {
            name: "w".into(),
            shape: vec![2, 3],
            parameters: 6,
            source_dtype: "BF16".into(),
            kind: "int4 g64".into(),
            compressed: true,
            source_entropy_bits: 1.0 / 3.0,
            code_entropy_bits: 2.0,
            stored_bits_per_weight: 4.25,
            mse: 5e-324,
            predicted_mse: None,
            snr_db: Some(-0.1),
            max_abs_error: 0.0,
            mean_square: 1e300,
            zero_ratio: 0.5,
        }
    }

    #[test]
    fn a_piece_comes_back_as_it_was_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let pieces = Pieces::at(folder.path(), "this plan".into());
        let parts = vec![vec![1, 2, 3], vec![], vec![b'\n'; 70_000]];
        pieces.put(7, 1, &report(), &parts).unwrap();
        assert_eq!(pieces.get(7, 1), Some((report(), parts)));
        assert_eq!((pieces.get(7, 0), pieces.get(8, 1)), (None, None));
        assert_eq!(Pieces::at(folder.path(), "another".into()).get(7, 1), None);

        let path = folder.path().join("tensors/7-1");
        let whole = std::fs::read(&path).unwrap();
        for (what, bytes) in [
            ("cut off", whole[..whole.len() - 1].to_vec()),
            ("longer", [&whole[..], b"x"].concat()),
            ("another byte", {
                let mut bytes = whole.clone();
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            }),
            ("empty", vec![]),
            ("no head", b"{}\n".to_vec()),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(pieces.get(7, 1), None, "{what}");
        }
    }

    #[test]
    fn only_what_took_long_is_kept() {
        let parts = vec![vec![0; 1_000_000]];
        assert!(Pieces::is_worth(0.02, &parts) && !Pieces::is_worth(0.005, &parts));
    }
}
