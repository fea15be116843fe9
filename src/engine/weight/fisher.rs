//! How much a model's output depends on a matrix' weights.
//!
//! Owns: row and column sums of the Fisher information's diagonal, and what an error costs by them. Must not know: who
//! summed them.
//! Invariant: both add up to the same total, as far as rounding lets them.

/// The diagonal of the Fisher information of one matrix, of a mean token (of a mean sequence where a model answers once for
/// each): `F[i][j] ≈ rows[i] · cols[j] / total`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fisher {
    /// Sum of each row, nats a token and squared unit of weight.
    pub rows: Vec<f32>,
    /// Sum of each column.
    pub cols: Vec<f32>,
    /// Each element, row-major, where that was asked for.
    pub each: Option<Vec<f32>>,
}

impl Fisher {
    /// That of the transposed matrix.
    #[must_use]
    pub fn turned(self) -> Self {
        let (rows, cols) = (self.rows.len(), self.cols.len());
        let turn = |each: Vec<f32>| {
            let at = |i: usize| each[i % rows * cols + i / rows];
            (0..each.len()).map(at).collect()
        };
        Self {
            rows: self.cols,
            cols: self.rows,
            each: self.each.map(turn),
        }
    }

    /// Sum of all elements.
    pub fn total(&self) -> f64 {
        self.rows.iter().map(|r| f64::from(*r)).sum()
    }

    /// Nats a token that errors of whole rows cost, by the quadratic of the divergence; `errors` has all of these rows'.
    /// A matrix that no gradient reached costs nothing.
    pub fn loss(&self, rows: impl Iterator<Item = usize>, errors: &[f32]) -> f64 {
        let (total, cols) = (self.total(), self.cols.len().max(1));
        if total <= 0.0 {
            return 0.0;
        }
        let row = |(row, errors): (usize, &[f32])| {
            let weighed = errors.iter().zip(&self.cols);
            let sum: f64 = weighed.map(|(e, c)| f64::from(*e).powi(2) * f64::from(*c)).sum();
            f64::from(self.rows[row]) * sum
        };
        0.5 * rows.zip(errors.chunks(cols)).map(row).sum::<f64>() / total
    }

    /// Share of the total that these rows have, 0 to 1.
    pub fn share(&self, rows: impl Iterator<Item = usize>) -> f64 {
        let total = self.total();
        let part: f64 = rows.map(|row| f64::from(self.rows[row])).sum();
        if total > 0.0 { part / total } else { 0.0 }
    }

    /// What each column counts beside the others, 1 in the mean. Ones throughout where the output depends on none.
    pub fn importance(&self) -> Vec<f32> {
        let sum: f64 = self.cols.iter().map(|c| f64::from(*c)).sum();
        let mean = sum / self.cols.len().max(1) as f64;
        if mean > 0.0 {
            self.cols.iter().map(|c| (f64::from(*c) / mean) as f32).collect()
        } else {
            vec![1.0; self.cols.len()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transposed_matrix_has_rows_for_columns() {
        let fisher = Fisher {
            rows: vec![6.0, 15.0],
            cols: vec![5.0, 7.0, 9.0],
            each: Some(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        };
        let turned = fisher.clone().turned();
        assert_eq!(turned.rows, fisher.cols);
        assert_eq!(turned.each, Some(vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        assert_eq!(turned.turned(), fisher);
    }
}
