//! A codebook for each group of a matrix.
//!
//! Owns: cutting rows into groups, codebooks of one length. Must not know: how one group is fitted.
//! Invariant: groups are fitted one by one, so the bits do not depend on the number of threads.

use super::assign::{Assign, Boundaries, Codes};
use super::distinct::usable_weights;
use super::{Distinct, Fit, Spec, fit};
use crate::error::{Error, Result};
use rayon::prelude::*;

/// Codebooks and codes of a matrix `[rows, cols]` in groups of consecutive columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// `[rows, groups, k]`, each codebook ascending; one that needs fewer repeats its last.
    pub centroids: Vec<f32>,
    /// Of every value, within its group's codebook.
    pub codes: Codes,
    /// Sum over all groups.
    pub inertia: f64,
}

/// Fits a codebook to each `size` consecutive values of each row, `[rows, cols]`; the last group of a row may be
/// shorter. Column `j` weighs `weights[j]`, all alike without weights; a group whose columns all weigh 0 counts each as
/// 1. `stop` is asked before each group.
///
/// Errors: those of [`fit`] and [`Distinct::of`]; `bad_group_size` where a size is 0 or the values are no rows;
/// `cancelled`.
pub fn fit_groups(
    values: &[f32],
    cols: usize,
    size: usize,
    weights: Option<&[f32]>,
    spec: &Spec,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Groups> {
    spec.check()?;
    check_shape(values, cols, size, weights)?;
    let weights = usable_weights(weights)?;
    let mut codes = Codes::zeros(values.len(), spec.centroids);
    let task = Task {
        cols,
        size,
        weights,
        spec,
        stop,
    };
    let (centroids, inertia) = match &mut codes {
        Codes::Narrow(codes) => task.run(values, codes)?,
        Codes::Wide(codes) => task.run(values, codes)?,
    };
    Ok(Groups {
        centroids,
        codes,
        inertia,
    })
}

fn check_shape(values: &[f32], cols: usize, size: usize, weights: Option<&[f32]>) -> Result<()> {
    let refuse = |code, what: String| Err(Error::bad_input(code, what));
    if cols == 0 || size == 0 || !values.len().is_multiple_of(cols) {
        let what = format!("{} values in rows of {cols}, in groups of {size}", values.len());
        return refuse("bad_group_size", what);
    }
    match weights {
        Some(weights) if weights.len() != cols => refuse(
            "bad_column_weights",
            format!("{} weights of {cols} columns", weights.len()),
        ),
        _ => Ok(()),
    }
}

struct Task<'a> {
    cols: usize,
    size: usize,
    weights: Option<&'a [f32]>,
    spec: &'a Spec,
    stop: &'a (dyn Fn() -> bool + Sync),
}

impl Task<'_> {
    fn run<C: Send>(&self, values: &[f32], codes: &mut [C]) -> Result<(Vec<f32>, f64)>
    where
        Boundaries: Assign<C>,
    {
        let rows = values.par_chunks(self.cols).zip(codes.par_chunks_mut(self.cols));
        let made: Result<Vec<Vec<Fit>>> = rows
            .map(|(values, codes)| {
                let groups = values.par_chunks(self.size).zip(codes.par_chunks_mut(self.size));
                groups
                    .enumerate()
                    .map(|(group, (values, codes))| self.group(group * self.size, values, codes))
                    .collect()
            })
            .collect();
        let mut centroids = Vec::new();
        let mut inertia = 0.0;
        for fit in made?.into_iter().flatten() {
            centroids.extend(fit.centroids);
            inertia += fit.inertia;
        }
        Ok((centroids, inertia))
    }

    /// The group that begins at a column of its row: its codebook, as long as any other's, and cost.
    fn group<C>(&self, column: usize, values: &[f32], codes: &mut [C]) -> Result<Fit>
    where
        Boundaries: Assign<C>,
    {
        if (self.stop)() {
            return Err(Error::cancelled());
        }
        let weights = self.weights.map(|w| &w[column..column + values.len()]);
        let mut fit = fit(&Distinct::of(values, weights)?, self.spec)?;
        Boundaries::between(&fit.centroids)?.assign(values, codes);
        let last = fit.centroids.last().copied().unwrap_or_default();
        fit.centroids.resize(self.spec.centroids, last);
        Ok(fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    const SPEC: Spec = Spec {
        centroids: 8,
        seed: 3,
        keep_zero: false,
        dtype: DType::BF16,
    };

    fn pattern(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0)
            .collect()
    }

    #[test]
    fn every_group_has_the_codebook_it_would_have_alone() {
        // The last group of a row has 20 columns.
        let (values, cols, size) = (pattern(3 * 84), 84, 32);
        let weights: Vec<f32> = (0..cols).map(|j| (j % 7) as f32).collect();
        let made = fit_groups(&values, cols, size, Some(&weights), &SPEC, &|| false).unwrap();
        let mut codebooks = made.centroids.chunks(8);
        let mut inertia = 0.0;
        for (r, row) in values.chunks(cols).enumerate() {
            for (g, group) in row.chunks(size).enumerate() {
                let weights = &weights[g * size..g * size + group.len()];
                let alone = fit(&Distinct::of(group, Some(weights)).unwrap(), &SPEC).unwrap();
                let codebook = codebooks.next().unwrap();
                assert_eq!(codebook[..alone.centroids.len()], alone.centroids);
                let codes = crate::kernels::kmeans::assign(group, &alone.centroids).unwrap();
                let at = r * cols + g * size;
                assert!((0..group.len()).all(|i| made.codes.get(at + i) == codes.get(i)));
                inertia += alone.inertia;
            }
        }
        assert!(codebooks.next().is_none());
        assert_eq!(made.inertia, inertia);
    }

    #[test]
    fn short_codebooks_repeat_their_last_and_wide_codes_fit() {
        let made = fit_groups(
            &[1.0, 2.0, 1.0, 5.0],
            2,
            2,
            None,
            &Spec {
                centroids: 300,
                ..SPEC
            },
            &|| false,
        )
        .unwrap();
        assert_eq!(made.codes, Codes::Wide(vec![0, 1, 0, 1]));
        assert_eq!((made.centroids.len(), made.inertia), (600, 0.0));
        assert!(made.centroids[1..300].iter().all(|c| *c == 2.0));
    }

    #[test]
    fn bad_shapes_are_refused_and_a_stop_is_heard() {
        let code = |cols, size, weights: Option<&[f32]>, stop: bool| {
            fit_groups(&[1.0; 6], cols, size, weights, &SPEC, &|| stop)
                .unwrap_err()
                .code
        };
        assert_eq!(code(4, 2, None, false), "bad_group_size");
        assert_eq!(code(0, 2, None, false), "bad_group_size");
        assert_eq!(code(3, 0, None, false), "bad_group_size");
        assert_eq!(code(3, 3, Some(&[1.0]), false), "bad_column_weights");
        assert_eq!(code(3, 3, None, true), "cancelled");
    }
}
