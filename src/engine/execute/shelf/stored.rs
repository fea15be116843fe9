//! Weights as bytes on the shelf: a line of JSON, then numbers.
//!
//! Owns: that layout. Must not know: files. Invariant: what is read is what was put, to the bit, or it is refused.

use super::{bytes_of, floats_of};
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::weight::{Affine, Corrected, Dense, Granularity, LowRank, NESTED_BLOCK, Nested, Nf4, Weight};
use serde::{Deserialize, Serialize};

/// What it begins with.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Head {
    Affine {
        rows: usize,
        cols: usize,
        n_bits: u8,
        symmetric: bool,
        granularity: Granularity,
        scale_dtype: DType,
        scales: usize,
        /// Columns whose group follows; none where they lie in order.
        grouped: usize,
    },
    Dense {
        rows: usize,
        cols: usize,
        dtype: DType,
    },
    LowRank(Factors),
    Corrected {
        product: Factors,
        block_size: usize,
        value_dtype: DType,
        nested: bool,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Factors {
    rows: usize,
    cols: usize,
    rank: usize,
    dtype: DType,
}

impl From<&LowRank> for Factors {
    fn from(w: &LowRank) -> Self {
        Self {
            rows: w.rows,
            cols: w.cols,
            rank: w.rank,
            dtype: w.dtype,
        }
    }
}

fn broken() -> Error {
    Error::internal("a weight in scratch is broken")
}

/// A weight in parts that lie behind one another.
pub(super) fn parts(weight: &Weight) -> Result<Vec<Vec<u8>>> {
    let (head, mut parts) = match weight {
        Weight::Affine(w) => affine_parts(w),
        Weight::Dense(w) => (
            Head::Dense {
                rows: w.rows,
                cols: w.cols,
                dtype: w.dtype,
            },
            vec![w.bytes.clone()],
        ),
        Weight::LowRank(w) => (
            Head::LowRank(w.into()),
            vec![bytes_of(&w.left), bytes_of(&w.right)],
        ),
        Weight::Corrected(w) => corrected_parts(w),
        _ => return Err(Error::internal("a weight of this kind does not go on the shelf")),
    };
    let mut line = serde_json::to_vec(&head).map_err(|e| Error::internal(e.to_string()))?;
    line.push(b'\n');
    parts.insert(0, line);
    Ok(parts)
}

fn affine_parts(w: &Affine) -> (Head, Vec<Vec<u8>>) {
    let head = Head::Affine {
        rows: w.rows,
        cols: w.cols,
        n_bits: w.n_bits,
        symmetric: w.symmetric,
        granularity: w.granularity,
        scale_dtype: w.scale_dtype,
        scales: w.scales.len(),
        grouped: w.g_idx.len(),
    };
    let groups = w.g_idx.iter().flat_map(|g| g.to_le_bytes()).collect();
    (
        head,
        vec![w.codes.clone(), bytes_of(&w.scales), w.zeros.clone(), groups],
    )
}

/// Factors, codes, the absmax as they are read, and where these are codes themselves those, their scales and the offset.
fn corrected_parts(w: &Corrected) -> (Head, Vec<Vec<u8>>) {
    let head = Head::Corrected {
        product: (&w.product).into(),
        block_size: w.base.block_size,
        value_dtype: w.base.value_dtype,
        nested: w.base.nested.is_some(),
    };
    let mut parts = vec![
        bytes_of(&w.product.left),
        bytes_of(&w.product.right),
        w.base.codes.clone(),
        bytes_of(&w.base.absmax),
    ];
    if let Some(nested) = &w.base.nested {
        parts.extend([
            nested.codes.clone(),
            bytes_of(&nested.absmax),
            bytes_of(&[nested.offset]),
        ]);
    }
    (head, parts)
}

/// The weight that these bytes are.
pub(super) fn weight(bytes: &[u8]) -> Result<Weight> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
    let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|_parse| broken())?;
    let body = &bytes[end + 1..];
    match head {
        Head::Affine { .. } => affine(&head, body),
        Head::Dense { rows, cols, dtype } => Ok(Weight::Dense(Dense {
            rows,
            cols,
            dtype,
            bytes: body.to_vec(),
        })),
        Head::LowRank(factors) => product(factors, body).map(Weight::LowRank),
        Head::Corrected {
            product,
            block_size,
            value_dtype,
            nested,
        } => corrected(product, (block_size, value_dtype, nested), body).map(Weight::Corrected),
    }
}

fn affine(head: &Head, body: &[u8]) -> Result<Weight> {
    let Head::Affine {
        rows,
        cols,
        n_bits,
        symmetric,
        granularity,
        scale_dtype,
        scales,
        grouped,
    } = *head
    else {
        return Err(broken());
    };
    let codes = rows * cols;
    if body.len() != codes + 5 * scales + 4 * grouped {
        return Err(broken());
    }
    let (codes, rest) = body.split_at(codes);
    let (scales, rest) = rest.split_at(4 * scales);
    let (zeros, groups) = rest.split_at(rest.len() - 4 * grouped);
    Ok(Weight::Affine(Affine {
        rows,
        cols,
        n_bits,
        symmetric,
        granularity,
        scale_dtype,
        codes: codes.to_vec(),
        scales: floats_of(scales),
        zeros: zeros.to_vec(),
        g_idx: groups
            .as_chunks::<4>()
            .0
            .iter()
            .map(|g| u32::from_le_bytes(*g))
            .collect(),
    }))
}

fn product(factors: Factors, body: &[u8]) -> Result<LowRank> {
    let Factors {
        rows,
        cols,
        rank,
        dtype,
    } = factors;
    let mut left = floats_of(body);
    if left.len() != rank * (rows + cols) {
        return Err(broken());
    }
    let right = left.split_off(rank * rows);
    Ok(LowRank {
        rows,
        cols,
        rank,
        dtype,
        left,
        right,
    })
}

fn corrected(
    factors: Factors,
    (block_size, value_dtype, nested): (usize, DType, bool),
    body: &[u8],
) -> Result<Corrected> {
    let (rows, cols) = (factors.rows, factors.cols);
    let blocks = (rows * cols).div_ceil(block_size.max(1));
    let cut = |body: &mut &[u8], bytes: usize| -> Result<Vec<u8>> {
        let (first, rest) = body.split_at_checked(bytes).ok_or_else(broken)?;
        *body = rest;
        Ok(first.to_vec())
    };
    let mut body = body;
    let product = product(
        factors,
        &cut(&mut body, 4 * factors.rank * (factors.rows + factors.cols))?,
    )?;
    let codes = cut(&mut body, rows * cols)?;
    let absmax = floats_of(&cut(&mut body, 4 * blocks)?);
    let nested = if nested {
        let codes = cut(&mut body, blocks)?;
        let absmax = floats_of(&cut(&mut body, 4 * blocks.div_ceil(NESTED_BLOCK))?);
        let offset = floats_of(&cut(&mut body, 4)?).first().copied().unwrap_or(0.0);
        Some(Nested {
            codes,
            absmax,
            offset,
        })
    } else {
        None
    };
    if !body.is_empty() {
        return Err(broken());
    }
    let base = Nf4 {
        rows,
        cols,
        block_size,
        value_dtype,
        codes,
        absmax,
        nested,
    };
    Ok(Corrected { base, product })
}
