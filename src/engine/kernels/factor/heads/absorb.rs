//! What other projections take over when heads were merged.
//!
//! Owns: which side of which weight that is. Must not know: how heads were merged.
//! Invariant: with merged heads of error 0, attention gives what it gave before.

use rayon::prelude::*;

use super::{Layout, Merged};
use crate::error::{Error, Result};
use crate::kernels::factor::dense::{columns_to_rows, product, transposed};

/// Lets `o_proj` `[rows, query_heads · head_dim]` take over what values were turned by.
pub fn absorb_values(o: &mut [f32], layout: &Layout, query_heads: usize, merged: &Merged) -> Result<()> {
    let d = layout.head_dim;
    let readers = readers(layout, query_heads, merged)?;
    let width = query_heads * d;
    if !o.len().is_multiple_of(width) {
        return Err(Error::internal("an output projection has no whole rows"));
    }
    o.par_chunks_mut(width).for_each(|row| {
        for (q, part) in row.chunks_mut(d).enumerate() {
            let turn = &merged.absorbed[q / readers];
            let cell = |j: usize| {
                (0..d)
                    .map(|k| f64::from(part[k]) * f64::from(turn[k * d + j]))
                    .sum::<f64>()
            };
            let new: Vec<f32> = (0..d).map(|j| cell(j) as f32).collect();
            part.copy_from_slice(&new);
        }
    });
    Ok(())
}

/// Lets `q_proj` `[query_heads · head_dim, cols]` take over what keys were turned by.
pub fn absorb_keys(q: &mut [f32], layout: &Layout, query_heads: usize, merged: &Merged) -> Result<()> {
    let d = layout.head_dim;
    let readers = readers(layout, query_heads, merged)?;
    let cols = q.len() / (query_heads * d);
    if cols == 0 || q.len() != cols * query_heads * d {
        return Err(Error::internal("a query projection has no whole heads"));
    }
    for (head, rows) in q.chunks_mut(d * cols).enumerate() {
        let turn = &merged.absorbed[head / readers];
        let new = product(
            transposed(rows, d, cols).as_ref(),
            transposed(turn, d, d).transpose(),
        );
        rows.copy_from_slice(&columns_to_rows(new.as_ref()));
    }
    Ok(())
}

/// Query heads that read one old head.
fn readers(layout: &Layout, query_heads: usize, merged: &Merged) -> Result<usize> {
    if layout.heads == 0 || query_heads == 0 || !query_heads.is_multiple_of(layout.heads) {
        return Err(Error::bad_input(
            "bad_groups",
            format!(
                "{query_heads} query heads do not read {} heads alike",
                layout.heads
            ),
        ));
    }
    if merged.absorbed.len() != layout.heads {
        return Err(Error::internal("heads were merged that a layout does not have"));
    }
    Ok(query_heads / layout.heads)
}
