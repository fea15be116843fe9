//! What every block type has in common once its bits are unpacked.
//!
//! Owns: the [`Blocks`] seam and what can be computed from unpacked blocks. Must not know: any one layout.
//! Invariant: `value = level(code) · step + offset`, computed in that order, as ggml's own readers do.

use super::Columns;

/// Step and offset of a group. The offset of a type without one is −0.0, which changes no sum, not even −0.0.
pub(super) type Scale = (f32, f32);

/// No offset: adding it leaves every value as it is.
pub(super) const NONE: f32 = -0.0;

/// A block with its bits spread out.
pub(super) struct Unpacked {
    /// One code an element.
    pub codes: [u8; 256],
    /// One for each group of [`Blocks::GROUP`] elements.
    pub scales: [Scale; 16],
}

impl Unpacked {
    pub(super) const EMPTY: Self = Self {
        codes: [0; 256],
        scales: [(0.0, NONE); 16],
    };
}

/// A block type.
pub(super) trait Blocks {
    /// Elements in a block.
    const LEN: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Elements that share a scale.
    const GROUP: usize;
    /// Number of codes.
    const LEVELS: usize;
    /// Width of each code's decision cell in steps; empty where all are 1.
    const CELLS: &'static [f32] = &[];
    /// What a code stands for, in steps.
    fn level(code: u8) -> f32;
    /// Spreads out the bits of a block of `BYTES`.
    fn unpack(block: &[u8], out: &mut Unpacked);
    /// Quantizes whole blocks. `columns` says how much each column matters, where that is known.
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]);
}

#[inline(always)]
pub(super) fn dequantize<B: Blocks>(src: &[u8], dst: &mut [f32]) {
    let mut unpacked = Unpacked::EMPTY;
    for (block, values) in src.chunks_exact(B::BYTES).zip(dst.chunks_exact_mut(B::LEN)) {
        B::unpack(block, &mut unpacked);
        let groups = values
            .chunks_exact_mut(B::GROUP)
            .zip(unpacked.codes.chunks_exact(B::GROUP));
        for ((values, codes), (step, offset)) in groups.zip(&unpacked.scales) {
            for (value, code) in values.iter_mut().zip(codes) {
                *value = B::level(*code) * step + offset;
            }
        }
    }
}

/// Adds the codes to a histogram; gives the sum over the elements of (width of the code's decision cell)².
///
/// Not compiled for wider vectors: the compiler would take the codes out of vectors one by one. Four tables hide the
/// store-to-load latency of repeated codes.
pub(super) fn survey<B: Blocks>(src: &[u8], histogram: &mut [u64]) -> f64 {
    let mut tables = [[0u32; 256]; 4];
    let mut unpacked = Unpacked::EMPTY;
    let mut sum = 0.0;
    for block in src.chunks_exact(B::BYTES) {
        B::unpack(block, &mut unpacked);
        let codes = &unpacked.codes[..B::LEN];
        for quad in codes.as_chunks::<4>().0 {
            for (table, code) in tables.iter_mut().zip(quad) {
                table[usize::from(*code)] += 1;
            }
        }
        for (codes, (step, _)) in codes.chunks_exact(B::GROUP).zip(&unpacked.scales) {
            let cells = if B::CELLS.is_empty() {
                B::GROUP as f64
            } else {
                let squares = codes.iter().map(|c| f64::from(B::CELLS[usize::from(*c)]).powi(2));
                squares.sum()
            };
            sum += cells * f64::from(*step).powi(2);
        }
    }
    for table in &tables {
        for (total, n) in histogram.iter_mut().zip(table) {
            *total += u64::from(*n);
        }
    }
    sum
}

/// Widths of the decision cells of a table of ascending levels; the outermost cells end at their level.
pub(super) const fn cells<const N: usize>(levels: &[i8; N]) -> [f32; N] {
    let mut out = [0.0; N];
    let mut i = 0;
    while i < N {
        let low = if i == 0 { levels[0] } else { levels[i - 1] } as f32;
        let high = if i + 1 == N { levels[i] } else { levels[i + 1] } as f32;
        out[i] = (high - low) / 2.0;
        i += 1;
    }
    out
}

/// The functions of one type behind plain pointers, so that a type is one line in the table.
pub(super) struct Kernel {
    pub levels: usize,
    pub quantize: fn(&[f32], Columns<'_>, &mut [u8]),
    pub dequantize: fn(&[u8], &mut [f32]),
    pub survey: fn(&[u8], &mut [u64]) -> f64,
}

/// Compiles a type's kernels for every instruction set.
macro_rules! kernel {
    ($ty:ty) => {{
        use $crate::kernels::ggml::Columns;
        use $crate::kernels::ggml::blocks::{self, Blocks, Kernel};
        $crate::kernels::wide::wide! {
            fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
                <$ty>::quantize(values, columns, dst);
            }
        }
        $crate::kernels::wide::wide! {
            fn dequantize(src: &[u8], dst: &mut [f32]) {
                blocks::dequantize::<$ty>(src, dst);
            }
        }
        &Kernel {
            levels: <$ty>::LEVELS,
            quantize,
            dequantize,
            survey: blocks::survey::<$ty>,
        }
    }};
}

pub(super) use kernel;
