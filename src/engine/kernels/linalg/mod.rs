//! Matrix products of f32, by the gemm crate or the CPU's units for bf16.
//!
//! Owns: how products are cut into tasks, which unit makes them, and the one call into gemm. Must not know: what the
//! matrices mean.
//! Invariant: tasks are cut by the shapes alone and each runs on one thread, so the bits do not depend on the number
//! of threads. They may differ between CPUs with different vector units.

mod gram;

use super::bf16::{self, Parts};
use gemm::Parallelism;
use rayon::prelude::*;
use std::mem::MaybeUninit;

pub use gram::Gram;

/// Most rows of a product that one task makes: every task packs what it multiplies, so that small ones only pack.
const TASK_ROWS: usize = 640;
/// Most columns.
const TASK_COLS: usize = 768;
/// How exactly products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In f32.
    Full,
    /// Of 16 bits of each factor's mantissa, added up in f32, where the CPU has units that are faster at that; in f32
    /// elsewhere and for small matrices. The error of a sum is about 5·10⁻⁶ of the root of the sum of its squared terms,
    /// where it is 2·10⁻⁷ in f32 and 3·10⁻³ in bf16.
    Split,
    /// Of the bf16 nearest to each factor, added up in f32, where the CPU has units that are faster at that; in f32
    /// elsewhere and for small matrices. The error of a sum is about 3·10⁻³ of the root of the sum of its squared terms.
    Bf16,
}

impl Precision {
    /// Into how many bf16 factors are split; nothing in f32.
    fn parts(self) -> Option<Parts> {
        match self {
            Self::Full => None,
            Self::Split => Some(Parts::Two),
            Self::Bf16 => Some(Parts::One),
        }
    }

    /// What products of large matrices are made of on this CPU.
    pub fn products(self) -> &'static str {
        match self.parts().filter(|parts| bf16::available(*parts)) {
            None => "f32",
            Some(Parts::One) => "bf16",
            Some(Parts::Two) => "bf16x3",
        }
    }
}

/// A matrix in a slice: element (i, j) lies at `i · row + j · col`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance of rows.
    pub row: usize,
    /// Distance of columns.
    pub col: usize,
}

impl<'a> View<'a> {
    /// Rows of `cols` elements at a distance of `stride`.
    pub fn rows(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            row: stride,
            col: 1,
        }
    }

    /// The transposed matrix.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row: self.col,
            col: self.row,
            ..self
        }
    }

    fn last(&self) -> usize {
        last(self.rows, self.cols, self.row, self.col)
    }

    /// Whether all elements lie in the slice.
    pub(super) fn fits(&self) -> bool {
        self.values.len() >= self.last()
    }
}

/// Index just past the last element of a matrix.
fn last(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    (rows - 1) * row + (cols - 1) * col + 1
}

/// What becomes of the old values of a product's destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Into {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = (out +) factor · a · b` on the calling thread; rows of `out` lie `stride` apart.
///
/// # Panics
/// Where the sides do not fit together or a slice is too short.
pub fn product(out: &mut [f32], stride: usize, into: Into, a: View<'_>, b: View<'_>, factor: f32) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(b.rows == k && stride >= n, "sides of a product");
    assert!(out.len() >= last(m, n, stride, 1) && a.fits() && b.fits());
    if m == 0 || n == 0 {
        return;
    }
    #[expect(unsafe_code, reason = "the rectangle is given as a pointer")]
    // SAFETY: the rectangle lies within `out`: asserted above; it is borrowed mutably.
    unsafe {
        write(out.as_mut_ptr(), stride, into, a, b, factor);
    }
}

/// The call into gemm.
///
/// # Safety
/// `out` points to `a.rows` rows of `b.cols` elements that lie `stride ≥ b.cols` apart; with [`Into::Add`] they are
/// initialised. Nobody else uses them meanwhile, and neither `a` nor `b` overlaps them. The views reach only into their slices.
#[expect(unsafe_code, reason = "gemm takes pointers and strides")]
unsafe fn write(out: *mut f32, stride: usize, into: Into, a: View<'_>, b: View<'_>, factor: f32) {
    let keep = into == Into::Add;
    // SAFETY: what the caller promises is what gemm demands: sides and strides stay within allocations, and the
    // destination aliases nothing.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            stride as isize,
            keep,
            a.values.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.col as isize,
            b.row as isize,
            if keep { 1.0 } else { 0.0 },
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out = x · wᵀ`; x `[m, k]`, w `[n, k]`, out `[m, n]`, row-major.
pub fn matmul_nt(x: &[f32], w: &[f32], k: usize, out: &mut [f32], precision: Precision) {
    let n = w.len() / k.max(1);
    in_tasks(
        View::rows(x, x.len() / k.max(1), k, k),
        View::rows(w, n, k, k).t(),
        out,
        precision,
    );
}

/// `x · wᵀ` in memory that nothing was written to before: zeroing it would cost as much as a tenth of the product.
pub fn product_nt(x: &[f32], w: &[f32], k: usize, precision: Precision) -> Vec<f32> {
    let (m, n) = (x.len() / k.max(1), w.len() / k.max(1));
    if k == 0 || m * n == 0 {
        return vec![0.0; m * n];
    }
    let mut out = Vec::with_capacity(m * n);
    let (x, w) = (View::rows(x, m, k, k), View::rows(w, n, k, k).t());
    fill_tasks(x, w, &mut out.spare_capacity_mut()[..m * n], precision);
    #[expect(unsafe_code, reason = "the vector was filled through pointers")]
    // SAFETY: the capacity was asked for, and `fill_tasks` has written every element of it.
    unsafe {
        out.set_len(m * n);
    }
    out
}

/// `out = a · b`; a `[m, k]`, b `[k, n]`, out `[m, n]`, row-major.
pub fn matmul_nn(a: &[f32], b: &[f32], k: usize, out: &mut [f32], precision: Precision) {
    let n = b.len() / k.max(1);
    in_tasks(
        View::rows(a, a.len() / k.max(1), k, k),
        View::rows(b, k, n, n),
        out,
        precision,
    );
}

/// `out = aᵀ · b`; a `[k, m]`, b `[k, n]`, out `[m, n]`, row-major.
pub fn matmul_tn(a: &[f32], b: &[f32], k: usize, out: &mut [f32], precision: Precision) {
    let (m, n) = (a.len() / k.max(1), b.len() / k.max(1));
    in_tasks(View::rows(a, k, m, m).t(), View::rows(b, k, n, n), out, precision);
}

/// Where a product goes, shared by tasks that each write a rectangle of their own.
struct Destination(*mut f32);

#[expect(unsafe_code, reason = "a pointer that tasks share")]
// SAFETY: tasks write disjoint rectangles; see `in_tasks`.
unsafe impl Sync for Destination {}

/// `out = a · b` in rectangles of at most `TASK_ROWS × TASK_COLS`.
fn in_tasks(a: View<'_>, b: View<'_>, out: &mut [f32], precision: Precision) {
    if a.rows == 0 || b.cols == 0 || b.rows == 0 {
        out.fill(0.0);
        return;
    }
    #[expect(
        unsafe_code,
        reason = "numbers that are there, seen as numbers that need not be"
    )]
    // SAFETY: `MaybeUninit<f32>` has the layout of `f32`, and `fill_tasks` only writes whole numbers through it.
    let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) };
    fill_tasks(a, b, out, precision);
}

/// The same; it writes every element of `out` and reads none. No side is 0.
fn fill_tasks(a: View<'_>, b: View<'_>, out: &mut [MaybeUninit<f32>], precision: Precision) {
    let (m, k, n) = (a.rows, b.rows, b.cols);
    assert!(
        a.cols == k && a.values.len() == m * k && out.len() == m * n && b.fits(),
        "sides of a product"
    );
    if let Some(parts) = precision.parts()
        && bf16::pays(m, n, k, parts)
    {
        return bf16::fill(a, b, out, parts);
    }
    let (mut down, across) = (m.div_ceil(TASK_ROWS), n.div_ceil(TASK_COLS));
    // Even pieces, and an even number of them, so that threads end together.
    if down > 1 && down * across % 2 == 1 {
        down += 1;
    }
    let (height, width) = (m.div_ceil(down.max(1)), n.div_ceil(across.max(1)));
    let destination = Destination(out.as_mut_ptr().cast());
    (0..down * across).into_par_iter().for_each(|task| {
        let destination = &destination;
        let (row, col) = ((task / across * height).min(m), (task % across * width).min(n));
        let (rows, cols) = (height.min(m - row), width.min(n - col));
        if rows == 0 || cols == 0 {
            return;
        }
        let a = View {
            values: &a.values[row * a.row..],
            rows,
            ..a
        };
        let b = View {
            values: &b.values[col * b.col..],
            cols,
            ..b
        };
        #[expect(unsafe_code, reason = "tasks write into one slice")]
        // SAFETY: the rectangle of rows `row ..` and columns `col ..` lies within `out`, whose length was checked, and is
        // this task's alone; `out` is borrowed mutably until all tasks have ended; the views were checked above.
        unsafe {
            write(destination.0.add(row * n + col), n, Into::Replace, a, b, 1.0);
        }
    });
}

#[cfg(test)]
mod tests;
