//! Floats in the order in which tile units read them.
//!
//! Owns: splitting floats into bf16 parts and the layout of panels. Must not know: products.
//! Invariant: what lies beyond a matrix is 0.
//!
//! A panel is 32 rows (of the left side, or columns of the right) by the depth at hand, in steps of 32: per step the
//! larger parts of its first 16 rows, of the other 16, then the smaller parts of both where there are two, each a tile
//! of 16 lines of 64 bytes. A line of the left side is a row with its 32 values; a line of the right side is a pair of
//! values of the inner dimension for each of the 16 columns.

use super::block::SIDE;
use super::{Parts, pairs};
use crate::kernels::linalg::View;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_maskz_loadu_ps, _mm512_or_si512,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_sub_ps, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A row of a tile.
pub(super) type Line = MaybeUninit<__m512i>;

/// Memory for packed panels, which a thread keeps from one product to the next.
pub(super) struct Buffer {
    lines: Vec<Line>,
    used: usize,
}

thread_local!(static KEPT: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) });

impl Buffer {
    /// One that this thread kept, or a new one. It is taken out meanwhile: while a thread waits for others it may begin
    /// another product.
    pub(super) fn lent() -> Self {
        let mut kept = KEPT.take();
        let lines = kept.pop().unwrap_or_default();
        KEPT.set(kept);
        Self { lines, used: 0 }
    }

    /// Its first `lines` lines, whatever they hold.
    pub(super) fn sized(&mut self, lines: usize) -> &mut [Line] {
        if self.lines.len() < lines {
            self.lines.resize_with(lines, MaybeUninit::uninit);
        }
        self.used = lines;
        &mut self.lines[..lines]
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = KEPT.take();
        // A product holds two at a time.
        if kept.len() < 2 {
            kept.push(std::mem::take(&mut self.lines));
        }
        KEPT.set(kept);
    }
}

/// For which side of a product a panel is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Left,
    Right,
}

/// Packs rows `rows` of a matrix, columns `depth`, as one panel.
///
/// # Panics
/// Where they do not lie in the matrix, or the panel has another size.
pub(super) fn pack(
    from: &View<'_>,
    rows: Range<usize>,
    (depth, parts): (&Range<usize>, Parts),
    order: Order,
    into: &mut [Line],
) {
    assert!(
        rows.len() <= SIDE && rows.end <= from.rows && depth.end <= from.cols && from.fits(),
        "a panel lies in its matrix"
    );
    assert!(
        into.len() == parts.lines(depth) && pairs::available(),
        "size of a panel"
    );
    #[expect(unsafe_code, reason = "a function with target features is called")]
    // SAFETY: the CPU has them, or `available` would say no; rows and depth lie in the matrix.
    unsafe {
        match parts {
            Parts::One => pack_panel::<false>(from, rows, depth, order, into),
            Parts::Two => pack_panel::<true>(from, rows, depth, order, into),
        }
    }
}

/// With the smaller parts or without.
///
/// # Safety
/// `rows` and `depth` lie in the matrix, which lies in its slice.
#[expect(unsafe_code, reason = "pointers into the matrix")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_panel<const SPLIT: bool>(
    from: &View<'_>,
    rows: Range<usize>,
    depth: &Range<usize>,
    order: Order,
    into: &mut [Line],
) {
    let lines = if SPLIT { 2 * SIDE } else { SIDE };
    for (step, into) in into.chunks_exact_mut(lines).enumerate() {
        let at = depth.start + SIDE * step;
        let cols = (depth.end - at).min(SIDE);
        for half in 0..2 {
            let first = (rows.start + 16 * half).min(rows.end);
            let count = (rows.end - first).min(16);
            // SAFETY: the caller's promise; where no row is left the pointer is not read.
            let (mut large, mut small) = unsafe {
                let corner = from
                    .values
                    .as_ptr()
                    .wrapping_add(first * from.row + at * from.col);
                if from.col == 1 {
                    by_rows::<SPLIT>(corner, from.row, count, cols)
                } else {
                    by_cols::<SPLIT>(corner, (from.row, from.col), count, cols)
                }
            };
            if (from.col == 1) != (order == Order::Left) {
                transpose(&mut large);
                if SPLIT {
                    transpose(&mut small);
                }
            }
            for i in 0..16 {
                into[16 * half + i].write(large[i]);
                if SPLIT {
                    into[32 + 16 * half + i].write(small[i]);
                }
            }
        }
    }
}

/// The first `n` lanes.
fn lanes(n: usize) -> u16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// The parts of up to 16 rows of up to 32 values, a row a line.
///
/// # Safety
/// `count` rows of `cols` values lie there, `stride` apart.
#[expect(unsafe_code, reason = "pointers into the matrix")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn by_rows<const SPLIT: bool>(
    at: *const f32,
    stride: usize,
    count: usize,
    cols: usize,
) -> ([__m512i; 16], [__m512i; 16]) {
    let mut large = [_mm512_setzero_si512(); 16];
    let mut small = large;
    for i in 0..count {
        let row = at.wrapping_add(i * stride);
        // SAFETY: only lanes of the row are read.
        let (a, b) = unsafe {
            (
                _mm512_maskz_loadu_ps(lanes(cols), row),
                _mm512_maskz_loadu_ps(lanes(cols.saturating_sub(16)), row.wrapping_add(16)),
            )
        };
        large[i] = bits(_mm512_cvtne2ps_pbh(b, a));
        if SPLIT {
            let (left_a, left_b) = (_mm512_sub_ps(a, nearest(a)), _mm512_sub_ps(b, nearest(b)));
            small[i] = bits(_mm512_cvtne2ps_pbh(left_b, left_a));
        }
    }
    (large, small)
}

/// The parts of up to 32 columns of up to 16 values that lie one after another or apart, a pair of columns a line.
///
/// # Safety
/// `count` rows of `cols` values lie there, at these distances.
#[expect(unsafe_code, reason = "pointers into the matrix")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn by_cols<const SPLIT: bool>(
    at: *const f32,
    (row, col): (usize, usize),
    count: usize,
    cols: usize,
) -> ([__m512i; 16], [__m512i; 16]) {
    let mut large = [_mm512_setzero_si512(); 16];
    let mut small = large;
    let column = |j: usize| {
        if j >= cols {
            return _mm512_setzero_ps();
        }
        let column = at.wrapping_add(j * col);
        if row == 1 {
            // SAFETY: only lanes of the column are read.
            return unsafe { _mm512_maskz_loadu_ps(lanes(count), column) };
        }
        let mut values = [0f32; 16];
        for (i, value) in values.iter_mut().enumerate().take(count) {
            // SAFETY: the row is there.
            *value = unsafe { *column.wrapping_add(i * row) };
        }
        // SAFETY: sixteen values.
        unsafe { _mm512_maskz_loadu_ps(u16::MAX, values.as_ptr()) }
    };
    for pair in 0..cols.div_ceil(2) {
        let (a, b) = (column(2 * pair), column(2 * pair + 1));
        let (near_a, near_b) = (nearest(a), nearest(b));
        large[pair] = paired(near_a, near_b);
        if SPLIT {
            small[pair] = paired(
                nearest(_mm512_sub_ps(a, near_a)),
                nearest(_mm512_sub_ps(b, near_b)),
            );
        }
    }
    (large, small)
}

/// Each value rounded to bf16, as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn nearest(x: __m512) -> __m512 {
    let half = _mm512_cvtneps_pbh(x);
    #[expect(unsafe_code, reason = "sixteen halves seen as integers")]
    // SAFETY: both types are 32 bytes of any value.
    let half = unsafe { std::mem::transmute::<__m256bh, __m256i>(half) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
}

/// Lanes of two bf16: those of `a` below those of `b`; both were rounded already.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn paired(a: __m512, b: __m512) -> __m512i {
    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(a));
    _mm512_or_si512(low, _mm512_castps_si512(b))
}

fn bits(x: __m512bh) -> __m512i {
    #[expect(unsafe_code, reason = "thirty-two halves seen as integers")]
    // SAFETY: both types are 64 bytes of any value.
    unsafe {
        std::mem::transmute::<__m512bh, __m512i>(x)
    }
}

/// Rows and columns of 16 by 16 lanes change places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn transpose(rows: &mut [__m512i; 16]) {
    let mut t = *rows;
    for i in 0..8 {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        t[2 * i] = _mm512_unpacklo_epi32(a, b);
        t[2 * i + 1] = _mm512_unpackhi_epi32(a, b);
    }
    for i in 0..4 {
        for j in 0..2 {
            let (a, b) = (t[4 * i + j], t[4 * i + 2 + j]);
            rows[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            rows[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // Now rows[4 i + c] holds, in its quarter q, column 4 q + c of rows 4 i to 4 i + 3.
    for c in 0..4 {
        let (a, b, d, e) = (rows[c], rows[4 + c], rows[8 + c], rows[12 + c]);
        let even = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(d, e),
        );
        let odd = (
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(d, e),
        );
        t[c] = _mm512_shuffle_i32x4::<0x88>(even.0, even.1);
        t[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd.0, odd.1);
        t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even.0, even.1);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd.0, odd.1);
    }
    *rows = t;
}
