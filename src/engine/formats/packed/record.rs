//! Records: what the index says of a tensor, and its bytes.
//!
//! Owns: packing and unpacking one tensor. Must not know: where a record lies.
//! Invariant: a record from elsewhere is unpacked or refused, and no more is allocated than it can stand for.

use super::sparse;
use crate::error::{Error, Result};
use crate::kernels::entropy::{Coder, decode, encode, split};
use crate::tensor::{DType, encode_dense};
use crate::weight::Codebook;
use serde::{Deserialize, Serialize};

/// A tensor in the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) coding: Coding,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Coding {
    Planes,
    Bytes,
    Sparse {
        /// Bytes of the stream of the mask.
        mask: u64,
        /// Weights that are stored.
        values: u64,
    },
    Codebook {
        centroids: usize,
        vector_size: usize,
        tables: usize,
        streams: Vec<u64>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) tensors: Vec<Record>,
}

/// Tables and streams of a codebook.
pub(super) fn pack(book: &Codebook, coder: Coder) -> Result<(Vec<u8>, Coding)> {
    let mut record = Vec::new();
    if !encode_dense(book.dtype, &book.table, &mut record) {
        return Err(Error::internal("a codebook of no plain type"));
    }
    let low: Vec<u8> = book.codes.iter().map(|code| (code & 0xff) as u8).collect();
    let mut streams = vec![encode(&low, coder)];
    if book.centroids > 256 {
        let high: Vec<u8> = book.codes.iter().map(|code| (code >> 8) as u8).collect();
        streams.push(encode(&high, coder));
    }
    let coding = Coding::Codebook {
        centroids: book.centroids,
        vector_size: book.width,
        tables: book.table.len() / (book.centroids * book.width).max(1),
        streams: streams.iter().map(|s| s.len() as u64).collect(),
    };
    for stream in &streams {
        record.extend(stream);
    }
    Ok((record, coding))
}

/// The bytes that a codebook decodes to.
pub(super) fn decoded(book: &Codebook) -> Result<Vec<u8>> {
    crate::tensor::encode_rows(book, book.dtype)
}

/// Bytes that a record decodes to; an error where its shape does not fit its type.
pub(super) fn decoded_bytes(record: &Record) -> Result<usize> {
    let dtype = DType::from_name(&record.dtype).ok_or_else(|| bad("its type is unknown"))?;
    let elements = record
        .shape
        .iter()
        .try_fold(1usize, |n, side| n.checked_mul(*side));
    let elements = elements.ok_or_else(|| bad("its shape is too large"))?;
    let cols = record.shape.last().copied().unwrap_or(1).max(1);
    let width = dtype.bytes(1, 1).unwrap_or(1);
    // Before anything is multiplied by it.
    elements
        .checked_mul(width)
        .ok_or_else(|| bad("its shape is too large"))?;
    let size = dtype.bytes(elements / cols, cols);
    size.ok_or_else(|| bad("its shape does not fit its type"))
}

pub(super) fn bad(what: &str) -> Error {
    Error::bad_input("invalid_packed_file", what.to_owned())
}

/// Decodes a record to the bytes of its tensor, which whoever opened the file has found to be not too many.
pub(super) fn unpack(record: &Record, bytes: &[u8]) -> Result<Vec<u8>> {
    let size = decoded_bytes(record)?;
    let dtype = DType::from_name(&record.dtype).ok_or_else(|| bad("its type is unknown"))?;
    let mut values = vec![0; size];
    match &record.coding {
        Coding::Planes => split::decode_weights(dtype, bytes, &mut values)?,
        Coding::Bytes => decode(bytes, &mut values)?,
        Coding::Sparse { mask, values: count } => sparse::unpack(dtype, bytes, (*mask, *count), &mut values)?,
        Coding::Codebook {
            centroids,
            vector_size,
            tables,
            streams,
        } => {
            let each = dtype
                .bytes(1, 1)
                .ok_or_else(|| bad("a codebook of no plain type"))?;
            let run = vector_size
                .checked_mul(each)
                .filter(|run| *run > 0 && size % run == 0);
            let run = run.ok_or_else(|| bad("its vectors do not fit its shape"))?;
            let table = centroids.checked_mul(run).and_then(|n| n.checked_mul(*tables));
            let table = table.and_then(|n| bytes.split_at_checked(n));
            let (table, mut rest) = table.ok_or_else(|| bad("its tables are longer than its record"))?;
            let expected = if *centroids > 256 { 2 } else { 1 };
            if streams.len() != expected {
                return Err(bad("it has another number of streams than its codes take"));
            }
            let mut codes = vec![0u8; size / run];
            let mut high = vec![0u8; if streams.len() > 1 { codes.len() } else { 0 }];
            for (at, length) in streams.iter().enumerate() {
                let stream = usize::try_from(*length)
                    .ok()
                    .and_then(|n| rest.split_at_checked(n));
                let (stream, more) = stream.ok_or_else(|| bad("its streams are longer than its record"))?;
                rest = more;
                match at {
                    0 => decode(stream, &mut codes)?,
                    1 => decode(stream, &mut high)?,
                    _ => return Err(bad("it has too many streams")),
                }
            }
            if !rest.is_empty() {
                return Err(bad("something follows its streams"));
            }
            if *tables == 0 || codes.len() % tables != 0 {
                return Err(bad("its tables do not fit its shape"));
            }
            let per_table = (codes.len() / tables).max(1);
            for (at, values) in values.chunks_exact_mut(run).enumerate() {
                let code = usize::from(codes[at]) | usize::from(high.get(at).copied().unwrap_or(0)) << 8;
                let first = (at / per_table * centroids + code) * run;
                let centroid = (code < *centroids)
                    .then(|| table.get(first..first + run))
                    .flatten();
                values.copy_from_slice(centroid.ok_or_else(|| bad("a code is beyond its table"))?);
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::Granularity;
    use proptest::prelude::*;

    fn book(centroids: usize, width: usize, granularity: Granularity) -> Codebook {
        let (rows, cols) = (6, 8);
        let tables = match granularity {
            Granularity::Tensor => 1,
            other => other.scales(rows, cols),
        };
        Codebook {
            rows,
            cols,
            width,
            centroids,
            granularity,
            dtype: DType::F16,
            codes: (0..rows * cols / width)
                .map(|i| ((i * 7) % centroids) as u16)
                .collect(),
            table: (0..tables * centroids * width).map(|i| i as f32 * 0.25).collect(),
        }
    }

    fn record(book: &Codebook, coding: Coding) -> Record {
        Record {
            name: "w".into(),
            dtype: book.dtype.name().into(),
            shape: vec![book.rows, book.cols],
            offset: 16,
            bytes: 0,
            sha256: String::new(),
            coding,
        }
    }

    #[test]
    fn codebooks_are_unpacked_to_their_values() {
        for (centroids, width, granularity) in [
            (16, 1, Granularity::Tensor),
            (300, 1, Granularity::Tensor),
            (4, 1, Granularity::Channel),
            (4, 1, Granularity::Group(4)),
            (16, 4, Granularity::Tensor),
        ] {
            let book = book(centroids, width, granularity);
            for coder in [Coder::Rans, Coder::Huffman] {
                let (bytes, coding) = pack(&book, coder).unwrap();
                let values = unpack(&record(&book, coding), &bytes).unwrap();
                assert_eq!(
                    values,
                    decoded(&book).unwrap(),
                    "{centroids} {width} {granularity:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_or_give_other_values(at in 0usize..400, by in 1u8.., cut in 0usize..50) {
            let book = book(16, 1, Granularity::Channel);
            let (mut bytes, coding) = pack(&book, Coder::Rans).unwrap();
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(by);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let _either = unpack(&record(&book, coding), &bytes);
        }

        #[test]
        fn absurd_shapes_are_refused_or_counted(sides in prop::collection::vec(any::<usize>(), 0..4)) {
            let book = book(16, 1, Granularity::Tensor);
            let (_, coding) = pack(&book, Coder::Rans).unwrap();
            let absurd = Record { shape: sides.clone(), ..record(&book, coding) };
            if let Ok(bytes) = decoded_bytes(&absurd) {
                prop_assert_eq!(bytes, 2 * sides.iter().product::<usize>());
            }
        }
    }
}
