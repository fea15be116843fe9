//! What a layer's weight was multiplied with: the inputs' squares, column by column.
//!
//! Owns: sums and counts, and the means that quantizers weigh columns by. Must not know: who summed them.
//! Invariant: whole rows of sums, one row for each count.

/// Sums of squares of a tensor's inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputSquares {
    /// For each column, matrix after matrix where a tensor holds several (experts).
    pub sums: Vec<f32>,
    /// Inputs that were summed, for each matrix.
    pub counts: Vec<f32>,
}

impl InputSquares {
    /// Mean square of each column's inputs. A matrix that saw none has 1 throughout: every column counts alike.
    pub fn means(&self) -> Vec<f32> {
        let cols = self.sums.len() / self.counts.len().max(1);
        let rows = self.sums.chunks(cols.max(1)).zip(&self.counts);
        rows.flat_map(|(sums, count)| {
            let count = count.round();
            sums.iter()
                .map(move |sum| if count > 0.0 { sum / count } else { 1.0 })
        })
        .collect()
    }
}
