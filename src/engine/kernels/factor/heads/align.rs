//! One head for several: means, turned means, largest directions.
//!
//! Owns: the maps of a group, found from its Gram matrix alone. Must not know: which rows of heads belong together.
//! Invariant: turned means are never further than plain ones.

use faer::{Mat, MatRef, Side};

use crate::error::{Error, Result};
use crate::kernels::factor::Stop;
use crate::kernels::factor::dense::product;
use crate::kernels::factor::svd::{Method, Options, of_dense};

/// Most rounds in which heads turn towards their mean.
const ROUNDS: usize = 60;
/// Share of the squared norm that a round must gain to be followed by another.
const GAIN: f64 = 1e-9;

/// Heads V of a group, one below the other, become `pool · V`, and are taken as `turn · pool · V`.
pub(super) struct Maps {
    /// `[head_dim, s · head_dim]`.
    pub(super) pool: Mat<f64>,
    /// `[s · head_dim, head_dim]`.
    pub(super) turn: Mat<f64>,
}

impl Maps {
    /// Squared error and squared norm of what has this Gram matrix: tr (1 − TP) G (1 − TP)ᵀ and tr G.
    pub(super) fn loss(&self, gram: &Mat<f64>) -> (f64, f64) {
        let mut rest = product(self.turn.as_ref(), self.pool.as_ref());
        for (j, column) in rest.col_iter_mut().enumerate() {
            for (i, v) in column.iter_mut().enumerate() {
                *v = if i == j { 1.0 - *v } else { -*v };
            }
        }
        let weighed = product(rest.as_ref(), gram.as_ref());
        let pairs = rest.col_iter().zip(weighed.col_iter());
        let loss: f64 = pairs
            .map(|(a, b)| a.iter().zip(b.iter()).map(|(a, b)| a * b).sum::<f64>())
            .sum();
        let norm = (0..gram.nrows()).map(|i| gram[(i, i)]).sum();
        (loss.max(0.0), norm)
    }

    /// The mean of heads that were turned back.
    pub(super) fn rotations(turns: &[Mat<f64>]) -> Self {
        let (s, b) = (turns.len(), turns.first().map_or(0, Mat::nrows));
        Self {
            pool: Mat::from_fn(b, s * b, |r, k| turns[k / b][(k % b, r)] / s as f64),
            turn: Mat::from_fn(s * b, b, |k, r| turns[k / b][(k % b, r)]),
        }
    }
}

/// Turns towards the mean, from heads as they lie and from those turned towards the first; the better one.
pub(super) fn rotate(gram: &Mat<f64>, s: usize, plane: bool) -> Result<Maps> {
    let b = gram.nrows() / s;
    let mut first = Mat::zeros(b, s * b);
    (0..b).for_each(|i| first[(i, i)] = 1.0);
    let towards_first = turned(gram, &first, s, plane)?;
    let mean = settle(gram, &vec![Mat::identity(b, b); s], plane)?;
    let other = settle(gram, &towards_first, plane)?;
    Ok(if other.loss(gram).0 < mean.loss(gram).0 {
        other
    } else {
        mean
    })
}

/// Rounds of turning each head towards the mean, while that gains.
fn settle(gram: &Mat<f64>, start: &[Mat<f64>], plane: bool) -> Result<Maps> {
    let s = start.len();
    let mut maps = Maps::rotations(start);
    let (mut loss, norm) = maps.loss(gram);
    for _ in 0..ROUNDS {
        let next = Maps::rotations(&turned(gram, &maps.pool, s, plane)?);
        let (now, _) = next.loss(gram);
        if now >= loss {
            break;
        }
        let gained = loss - now;
        (maps, loss) = (next, now);
        if gained <= GAIN * norm {
            break;
        }
    }
    Ok(maps)
}

/// The orthogonal matrix for each head that brings a merged one nearest to it (Schönemann 1966): the polar factor of `V_h Mᵀ`.
fn turned(gram: &Mat<f64>, pool: &Mat<f64>, s: usize, plane: bool) -> Result<Vec<Mat<f64>>> {
    let b = pool.nrows();
    let inner = product(gram.as_ref(), pool.transpose());
    let of = |h: usize| {
        let inner = inner.subrows(h * b, b);
        if plane {
            return Ok(complex(
                inner[(0, 0)] + inner[(1, 1)],
                inner[(1, 0)] - inner[(0, 1)],
            ));
        }
        let svd = inner
            .thin_svd()
            .map_err(|_e| Error::internal("the decomposition of a finite matrix did not converge"))?;
        Ok(product(svd.U(), svd.V().transpose()))
    };
    (0..s).map(of).collect()
}

/// The real form of a complex number of length 1; 1 for 0.
fn complex(x: f64, y: f64) -> Mat<f64> {
    let length = x.hypot(y);
    let (x, y) = if length > 0.0 {
        (x / length, y / length)
    } else {
        (1.0, 0.0)
    };
    Mat::from_fn(2, 2, |i, j| match (i, j) {
        (0, 1) => -y,
        (1, 0) => y,
        _ => x,
    })
}

/// The largest directions of all heads together.
pub(super) fn project(gram: &Mat<f64>, s: usize, plane: bool, stop: Stop<'_>) -> Result<Maps> {
    let b = gram.nrows() / s;
    let basis = if plane {
        plane_basis(gram)?
    } else {
        // A Gram matrix has the eigenvectors of its square.
        let options = Options {
            method: Method::Direct,
            most: Some(b),
            seed: 0,
        };
        of_dense(gram.as_ref(), &options, stop)?.left().to_owned()
    };
    // Merged heads shall be as large as those they stand for.
    let size = (s as f64).sqrt();
    Ok(Maps {
        pool: Mat::from_fn(b, s * b, |r, k| basis[(k, r)] / size),
        turn: Mat::from_fn(s * b, b, |k, r| basis[(k, r)] * size),
    })
}

/// The same where each head's part is the real form of a complex number: u and u turned by a right angle, u the largest
/// eigenvector of the part of the Gram matrix that commutes with that.
fn plane_basis(gram: &Mat<f64>) -> Result<Mat<f64>> {
    let n = gram.nrows();
    // Row k of the quarter turn J has one element.
    let quarter = |k: usize| {
        if k.is_multiple_of(2) {
            (k + 1, -1.0)
        } else {
            (k - 1, 1.0)
        }
    };
    let mut even = Mat::zeros(n, n);
    for j in 0..n {
        for i in 0..n {
            let ((a, x), (b, y)) = (quarter(i), quarter(j));
            even[(i, j)] = f64::midpoint(gram[(i, j)], x * y * gram[(a, b)]);
        }
    }
    let found = even
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_e| Error::internal("the decomposition of a finite matrix did not converge"))?;
    let u: MatRef<'_, f64> = found.U();
    let largest = |k: usize| u[(k, n - 1)];
    Ok(Mat::from_fn(n, 2, |k, r| {
        let (other, sign) = quarter(k);
        if r == 0 { largest(k) } else { sign * largest(other) }
    }))
}
