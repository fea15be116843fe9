//! Embedding tables: of tokens, and of positions that a model has learned.
//!
//! Owns: which row each token takes, what happens past the last row. Must not know: families.
//! Invariant: a sequence's positions are those it has alone.

use crate::error::{Error, Result};
use crate::network::Batch;
use candle_core::Tensor;

/// Rows of a table, one for each id.
pub(super) fn rows(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let ids = Tensor::from_slice(ids, ids.len(), table.device())?;
    Ok(table.index_select(&ids, 0)?)
}

/// Rows of a table of `context` learned positions, one for each token.
///
/// With `padding`, the id of the padding token, `RoBERTa`'s count: tokens count from `padding` + 1, a padding token has
/// position `padding` and does not count.
pub(super) fn positions(batch: &Batch, padding: Option<usize>, context: usize) -> Result<Vec<u32>> {
    if let Some(length) = batch.lengths.iter().find(|length| **length > context) {
        return Err(Error::bad_input(
            "sequence_too_long",
            format!(
                "a sequence has {length} tokens, and the model has learned positions for {context}: give a smaller \
                 max_seq_length, or shorter rows"
            ),
        ));
    }
    let Some(padding) = padding.map(|p| p as u32) else {
        return Ok(batch.positions.clone());
    };
    let mut counted = padding;
    let mut row = |(id, position): (&u32, &u32)| {
        if *position == 0 {
            counted = padding;
        }
        if *id == padding {
            return padding;
        }
        counted += 1;
        counted
    };
    Ok(batch.ids.iter().zip(&batch.positions).map(&mut row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_the_padding_token_and_skip_it() {
        let batch = Batch::new(&[&[5, 1, 6], &[7, 8]]);
        assert_eq!(positions(&batch, None, 3).unwrap(), [0, 1, 2, 0, 1]);
        assert_eq!(positions(&batch, Some(1), 3).unwrap(), [2, 1, 3, 2, 3]);
    }

    #[test]
    fn a_sequence_past_the_table_is_refused() {
        let error = positions(&Batch::new(&[&[1; 4]]), None, 3).unwrap_err();
        assert_eq!(error.code, "sequence_too_long");
    }
}
