//! Q6_K: super-blocks of 256 in sixteen groups of 16, with signed 8-bit scales.
//!
//! Owns: its layout and quantizer. Must not know: other types.
//! Invariant: the two high bits of four elements 32 apart share a byte.

use super::Columns;
use super::blocks::{Blocks, NONE, Unpacked};
use super::lanes::{clamp, gather, round, round_to_byte};
use super::legacy::{read_f16, write_f16};
use super::q2_k::{GROUP, GROUPS, Lanes};
use super::search::symmetric;

const LEN: usize = 256;
const HALF: f32 = 32.0;

#[inline(always)]
fn pack(codes: &[u8; LEN], out: &mut [u8]) {
    let (low, rest) = out.split_at_mut(128);
    let halves = low.chunks_exact_mut(64).zip(rest.chunks_exact_mut(32));
    for ((low, high), codes) in halves.zip(codes.as_chunks::<128>().0) {
        for l in 0..32 {
            low[l] = (codes[l] & 15) | (codes[l + 64] & 15) << 4;
            low[l + 32] = (codes[l + 32] & 15) | (codes[l + 96] & 15) << 4;
            high[l] = (codes[l] >> 4)
                | (codes[l + 32] >> 4) << 2
                | (codes[l + 64] >> 4) << 4
                | (codes[l + 96] >> 4) << 6;
        }
    }
}

/// 6 bits, signed scales.
pub(super) struct Q6K;

impl Blocks for Q6K {
    const LEN: usize = LEN;
    const BYTES: usize = 210;
    const GROUP: usize = GROUP;
    const LEVELS: usize = 64;
    #[inline(always)]
    fn level(code: u8) -> f32 {
        f32::from(code) - HALF
    }
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let step = read_f16(&block[208..]);
        for (scale, byte) in out.scales.iter_mut().zip(&block[192..208]) {
            *scale = (step * f32::from(byte.cast_signed()), NONE);
        }
        let halves = block[..128]
            .chunks_exact(64)
            .zip(block[128..192].chunks_exact(32));
        for ((low, high), codes) in halves.zip(out.codes.chunks_exact_mut(128)) {
            for l in 0..32 {
                codes[l] = (low[l] & 15) | (high[l] & 3) << 4;
                codes[l + 32] = (low[l + 32] & 15) | (high[l] >> 2 & 3) << 4;
                codes[l + 64] = low[l] >> 4 | (high[l] >> 4 & 3) << 4;
                codes[l + 96] = low[l + 32] >> 4 | (high[l] >> 6) << 4;
            }
        }
    }
    #[inline(always)]
    fn quantize(values: &[f32], columns: Columns<'_>, dst: &mut [u8]) {
        let mut codes = [0; LEN];
        for (i, (block, out)) in values
            .chunks_exact(LEN)
            .zip(dst.chunks_exact_mut(210))
            .enumerate()
        {
            let x: Lanes = gather(block, |l| l * GROUP);
            let w = match columns.at(i * LEN, LEN) {
                None => x.map(|lanes| lanes.map(|v| v * v)),
                Some(columns) => gather(columns, |l| l * GROUP),
            };
            let fit = symmetric(&x, &w, HALF);
            let (mut peak, mut magnitude) = (0f32, 0f32);
            for scale in fit.scale {
                if scale.abs() > magnitude {
                    (peak, magnitude) = (scale, scale.abs());
                }
            }
            if magnitude < 1e-15 {
                out.fill(0);
                continue;
            }
            let inverse = -128.0 / peak;
            let step = write_f16(1.0 / inverse, &mut out[208..]);
            for l in 0..GROUPS {
                let scale = clamp(round(inverse * fit.scale[l]), -128.0, 127.0);
                out[192 + l] = round_to_byte(scale);
                let d = step * scale;
                for (j, code) in codes[l * GROUP..][..GROUP].iter_mut().enumerate() {
                    *code = if d == 0.0 {
                        fit.code(l, x[j][l])
                    } else {
                        round_to_byte(clamp(round(x[j][l] / d), -HALF, HALF - 1.0) + HALF)
                    };
                }
            }
            pack(&codes, out);
        }
    }
}
