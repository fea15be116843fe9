//! Rows of f32 on demand: the one way techniques and measurements read a tensor.
//!
//! Owns: the [`Rows`] trait, its implementation over a file, and the parallel walk over row chunks.
//! Must not know: what the rows mean. Invariant: results do not depend on the number of threads, because
//! chunks are fixed by the shape and folded in order.

use super::{DType, TensorInfo, decode, encode_dense};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Elements of f32 a worker thread holds at a time: 64 Ki elements, a quarter of a megabyte, fit in L2.
pub const CHUNK_ELEMENTS: usize = 64 * 1024;

/// Longest buffer a thread keeps between reads; a giant row's goes back at once.
const KEPT_BUFFER: usize = 4 << 20;

/// A matrix whose rows can be read as f32. Higher ranks are flattened to `[product of outer dims, last dim]`.
pub trait Rows: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Elements in a row.
    fn cols(&self) -> usize;
    /// Reads `out.len() / cols` rows from `first_row` on.
    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()>;
}

/// Rows a chunk spans: whole rows, a multiple of 32 rows where they are short, at least one.
pub fn chunk_rows(cols: usize) -> usize {
    let rows = (CHUNK_ELEMENTS / cols.max(1)).max(1);
    if rows > 32 { rows / 32 * 32 } else { rows }
}

/// Maps every chunk of rows in parallel and returns the results in row order.
/// `f(first_row, values)` sees whole rows; an error stops the walk.
pub fn try_fold_chunks<T: Send>(
    source: &dyn Rows,
    f: impl Fn(usize, &[f32]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (rows, cols) = (source.rows(), source.cols());
    let step = chunk_rows(cols);
    let chunks = rows.div_ceil(step);
    (0..chunks)
        .into_par_iter()
        .map_init(Vec::new, |buffer: &mut Vec<f32>, i| {
            let first = i * step;
            buffer.resize((rows - first).min(step) * cols, 0.0);
            source.read(first, buffer)?;
            f(first, buffer)
        })
        .collect()
}

/// All values as `dtype`, which is f32, f16 or bf16; converted in place, so that nothing is held twice. A finite value
/// that `dtype` would turn into an infinity is refused.
pub fn encode_rows(source: &dyn Rows, dtype: DType) -> Result<Vec<u8>> {
    let (rows, cols) = (source.rows(), source.cols());
    let width = dtype
        .row_bytes(cols)
        .filter(|_| matches!(dtype, DType::F32 | DType::F16 | DType::BF16))
        .ok_or_else(|| Error::internal(format!("values cannot be written as {dtype}")))?;
    let step = chunk_rows(cols);
    let mut bytes = vec![0; rows * width];
    bytes
        .par_chunks_mut((step * width).max(1))
        .enumerate()
        .try_for_each_init(
            Default::default,
            |(values, encoded): &mut (Vec<f32>, Vec<u8>), (i, out)| {
                values.resize(out.len() / width * cols, 0.0);
                source.read(i * step, values)?;
                check_range(dtype, values, i * step * cols)?;
                encoded.clear();
                if !encode_dense(dtype, values, encoded) || encoded.len() != out.len() {
                    return Err(Error::internal(format!("{dtype} has no such width")));
                }
                out.copy_from_slice(encoded);
                Ok(())
            },
        )?;
    Ok(bytes)
}

/// `first` is the flat index of `values[0]`. Infinities and NaN stay what they are; they are not made here.
fn check_range(dtype: DType, values: &[f32], first: usize) -> Result<()> {
    /// Where rounding to nearest begins to answer infinity: half a step above the largest number.
    const F16: u32 = 0x477f_f000;
    const BF16: u32 = 0x7f7f_8000;
    const INFINITY: u32 = 0x7f80_0000;
    let limit = match dtype {
        DType::F16 => F16,
        DType::BF16 => BF16,
        _ => return Ok(()),
    };
    let is_lost = |v: &f32| (limit..INFINITY).contains(&(v.to_bits() & 0x7fff_ffff));
    // Without a branch, so that it vectorises.
    if !values.iter().fold(false, |found, v| found | is_lost(v)) {
        return Ok(());
    }
    let at = values.iter().position(is_lost).unwrap_or(0);
    Err(Error::numeric(
        "value_overflow",
        format!(
            "element {} is {:e}, too large for {dtype}",
            first + at,
            values[at]
        ),
    ))
}

/// Rows of a tensor as it lies in its file: positional reads, nothing cached, nothing mapped, so that a file
/// that shrinks under us is an error and not a signal.
pub struct SourceRows<'a> {
    /// The tensor.
    pub info: &'a TensorInfo,
    /// Its file, open for reading.
    pub file: Arc<File>,
}

impl SourceRows<'_> {
    /// Reads the raw bytes of `out.len()` from `offset` within the tensor.
    pub fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(out, self.info.offset + offset)
            .map_err(|e| Error::io(format_args!("tensor {}", self.info.name), &e))
    }
}

impl Rows for SourceRows<'_> {
    fn rows(&self) -> usize {
        self.info.rows()
    }

    fn cols(&self) -> usize {
        self.info.cols()
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let cols = self.cols();
        let row_bytes = self.info.dtype.row_bytes(cols).ok_or_else(|| {
            Error::internal(format!(
                "tensor {}: a row is no whole number of blocks",
                self.info.name
            ))
        })?;
        // One buffer a thread: a fresh one for each chunk would be zeroed, and its pages faulted in, every time.
        thread_local!(static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        RAW.with_borrow_mut(|raw| {
            raw.resize(out.len() / cols.max(1) * row_bytes, 0);
            self.read_bytes((first_row * row_bytes) as u64, raw)?;
            decode(self.info.dtype, raw, out);
            if raw.capacity() > KEPT_BUFFER {
                *raw = Vec::new();
            }
            Ok(())
        })
    }
}

/// A matrix already in memory: used by stages that follow another one, and by tests.
pub struct MemoryRows<'a> {
    /// Row-major values.
    pub values: &'a [f32],
    /// Elements in a row.
    pub cols: usize,
}

impl Rows for MemoryRows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let first = first_row * self.cols;
        out.copy_from_slice(&self.values[first..first + out.len()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_infinity_is_made() {
        for (dtype, last, first_lost) in [
            (DType::F16, 65_519.996, 65_520.0),
            (
                DType::BF16,
                f32::from_bits(0x7f7f_7fff),
                f32::from_bits(0x7f7f_8000),
            ),
        ] {
            let rows = |values| MemoryRows { values, cols: 2 };
            let fine = [1.0, -last, f32::INFINITY, f32::NAN];
            encode_rows(&rows(&fine), dtype).unwrap();
            let mut out = Vec::new();
            assert!(crate::tensor::encode_dense(dtype, &[first_lost], &mut out));
            let mut back = [0.0];
            decode(dtype, &out, &mut back);
            assert!(back[0].is_infinite(), "{dtype} would have made one");
            let error = encode_rows(&rows(&[1.0, 2.0, 3.0, -first_lost]), dtype).unwrap_err();
            assert_eq!(error.code, "value_overflow");
            assert!(error.message.contains("element 3 is -"), "{error}");
        }
        encode_rows(
            &MemoryRows {
                values: &[f32::MAX],
                cols: 1,
            },
            DType::F32,
        )
        .unwrap();
    }
}
