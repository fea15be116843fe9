//! Fewer key and value heads: GQA or MQA out of a model with more.
//!
//! Owns: how heads of a group are brought to one, and what makes up for it elsewhere. Must not know: attention's layout in a
//! checkpoint, which heads form a group by what they do (groups are neighbours).
//! Invariant: with the matrices returned, an error of 0 is a model that does exactly the same; aligned heads are never
//! further than mean-pooled ones.
//!
//! Mean pooling is Ainslie et al., "GQA", 2023. Heads of a group can first be turned towards each other where another weight turns
//! back (Yu et al., "Effectively compress KV heads for LLM", 2024; Jin et al., "Align attention heads before merging", 2024). Head
//! h is taken as `A_h` · merged, and `A_h` goes elsewhere:
//!
//! - Values: `softmax · v` is linear, so `o_proj` takes it: the columns of each query head that reads h become `O · A_h`.
//!   Any `A_h` is allowed.
//! - Keys: `q · (A_h k) = (A_hᵀ q) · k`, so `q_proj` takes it: the rows of each such query head become `A_hᵀ · Q`. With rotary
//!   positions `A_h` must commute with the rotation of every position, which in each plane are the matrices
//!   `[[x, −y], [y, x]]`; in dimensions that are not rotated any is allowed.
//! - Where keys are normalised after their projection (QK-norm) nothing commutes with that: only [`Alignment::Mean`] is
//!   right for them. A projection's bias is one more column of it.

mod absorb;
mod align;

use faer::Mat;

use align::{Maps, project, rotate};

use super::dense::{check, columns_to_rows, product, transposed};
use super::whitened::Whitening;
use super::{Stop, go_on};
use crate::error::{Error, Result};

pub use absorb::{absorb_keys, absorb_values};

/// Sides of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Heads there are.
    pub heads: usize,
    /// Heads there will be; neighbours go together.
    pub groups: usize,
    /// Rows of a head.
    pub head_dim: usize,
    /// Columns: inputs of the projection.
    pub cols: usize,
}

/// What `A_h` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// Any matrix: values, keys without rotary positions.
    Any,
    /// What commutes with rotary positions over the first `dims` rows, whose planes are rows (i, i + dims / 2): LLaMA, `NeoX`.
    RotaryHalves {
        /// Rows that are rotated: even, at most the rows of a head.
        dims: usize,
    },
    /// The same with planes of rows (2i, 2i + 1): GPT-J, GGUF's LLaMA.
    RotaryPairs {
        /// Rows that are rotated: even, at most the rows of a head.
        dims: usize,
    },
}

/// How heads are brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// They are averaged as they are; every `A_h` is 1.
    Mean,
    /// They are turned towards their mean and averaged: every `A_h` is orthogonal (generalised Procrustes, Gower 1975).
    Rotation,
    /// The best merged head there is for any `A_h` allowed: the largest singular directions of all heads together.
    Linear,
}

/// Fewer heads, and what makes up for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// `[groups · head_dim, cols]`, row-major.
    pub heads: Vec<f32>,
    /// For each old head `A_h` `[head_dim, head_dim]`, row-major: head h ≈ `A_h` · its group's head.
    pub absorbed: Vec<Vec<f32>>,
    /// Root of the squared (weighted) distance over the squared norm; 0 for heads of zeros.
    pub relative_error: f64,
}

impl Layout {
    fn check(&self, freedom: Freedom) -> Result<()> {
        if self.groups == 0 || !self.heads.is_multiple_of(self.groups) {
            return Err(Error::bad_input(
                "bad_groups",
                format!(
                    "{} heads cannot be shared among {} groups",
                    self.heads, self.groups
                ),
            ));
        }
        match freedom {
            Freedom::RotaryHalves { dims } | Freedom::RotaryPairs { dims }
                if dims % 2 == 1 || dims > self.head_dim =>
            {
                Err(Error::bad_input(
                    "bad_rotary_dims",
                    format!(
                        "{dims} of {} rows of a head cannot be rotated in planes",
                        self.head_dim
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn per_group(&self) -> usize {
        self.heads / self.groups
    }
}

/// Bytes that [`merge`] holds at its peak, beside what is given.
pub fn working_bytes(layout: &Layout) -> u64 {
    let rows = layout.per_group() * layout.head_dim;
    let matrices = layout.heads * layout.head_dim * layout.head_dim;
    // A group as it is and weighed, its Gram matrix with what decomposing it takes, the results.
    let group = 8 * (3 * rows * layout.cols + 6 * rows * rows) as u64;
    group + 4 * (layout.groups * layout.head_dim * layout.cols + matrices) as u64
}

/// Merges neighbouring heads of `w` `[heads · head_dim, cols]`; `inputs` weighs its columns.
///
/// # Errors
/// `bad_groups`, `bad_rotary_dims`, `non_finite_values`; `cancelled`.
pub fn merge(
    w: &[f32],
    layout: &Layout,
    freedom: Freedom,
    alignment: Alignment,
    inputs: &Whitening,
    stop: Stop<'_>,
) -> Result<Merged> {
    layout.check(freedom)?;
    check(w, layout.heads * layout.head_dim, layout.cols)?;
    if inputs.inputs() != layout.cols {
        return Err(Error::internal(
            "columns are weighed that a projection does not have",
        ));
    }
    let rows = layout.per_group() * layout.head_dim;
    let mut heads = Vec::with_capacity(layout.groups * layout.head_dim * layout.cols);
    let mut absorbed = Vec::with_capacity(layout.heads);
    let (mut lost, mut total) = (0.0, 0.0);
    for group in w.chunks(rows * layout.cols) {
        go_on(stop)?;
        let weighed = inputs.apply(group, rows);
        let gram = product(weighed.transpose(), weighed.as_ref());
        drop(weighed);
        let found = merge_group(&gram, layout, freedom, alignment, stop)?;
        let (loss, norm) = found.loss(&gram);
        (lost, total) = (lost + loss, total + norm);
        let whole = transposed(group, rows, layout.cols);
        heads.extend(columns_to_rows(
            product(whole.as_ref(), found.pool.transpose()).as_ref(),
        ));
        let each = (0..layout.per_group()).map(|h| {
            let turn = found.turn.subrows(h * layout.head_dim, layout.head_dim);
            columns_to_rows(turn.transpose())
        });
        absorbed.extend(each);
    }
    Ok(Merged {
        heads,
        absorbed,
        relative_error: if total > 0.0 { (lost / total).sqrt() } else { 0.0 },
    })
}

fn merge_group(
    gram: &Mat<f64>,
    layout: &Layout,
    freedom: Freedom,
    alignment: Alignment,
    stop: Stop<'_>,
) -> Result<Maps> {
    let (d, s) = (layout.head_dim, layout.per_group());
    let mut maps = Maps {
        pool: Mat::zeros(d, s * d),
        turn: Mat::zeros(s * d, d),
    };
    for block in blocks(freedom, d) {
        go_on(stop)?;
        let b = block.rows.len();
        let at = |k: usize| k / b * d + block.rows[k % b];
        let own = Mat::from_fn(s * b, s * b, |i, j| gram[(at(i), at(j))]);
        let found = match alignment {
            Alignment::Mean => Maps::rotations(&vec![Mat::identity(b, b); s]),
            Alignment::Rotation => rotate(&own, s, block.plane)?,
            Alignment::Linear => project(&own, s, block.plane, stop)?,
        };
        for k in 0..s * b {
            for (r, row) in block.rows.iter().enumerate() {
                maps.pool[(*row, at(k))] = found.pool[(r, k)];
                maps.turn[(at(k), *row)] = found.turn[(k, r)];
            }
        }
    }
    Ok(maps)
}

/// Rows of a head that may be mixed with each other.
struct Block {
    rows: Vec<usize>,
    /// Only as the real form of a complex number.
    plane: bool,
}

fn blocks(freedom: Freedom, head_dim: usize) -> Vec<Block> {
    let (dims, step) = match freedom {
        Freedom::Any => (0, 0),
        Freedom::RotaryHalves { dims } => (dims, dims / 2),
        Freedom::RotaryPairs { dims } => (dims, 1),
    };
    let plane = |i: usize| {
        let first = if step == 1 { 2 * i } else { i };
        Block {
            rows: vec![first, first + step],
            plane: true,
        }
    };
    let mut blocks: Vec<Block> = (0..dims / 2).map(plane).collect();
    if dims < head_dim {
        blocks.push(Block {
            rows: (dims..head_dim).collect(),
            plane: false,
        });
    }
    blocks
}

#[cfg(test)]
mod tests;
