//! Bit packing shared by the integer formats.
//!
//! Owns: the dense LSB-first bit string in 32-bit words. Must not know: names of tensors.
//! Invariant: element `i` of a run occupies bits `[i·b, i·b + b)`, words little-endian; runs are padded with
//! zero bits to a whole word. compressed-tensors packs rows of weights, and zero points down the columns; GPTQ
//! packs weights down the columns and zeros along rows: the same string, transposed.

/// Words a run of `n` codes takes.
pub fn words(n: usize, n_bits: u8) -> usize {
    (n * usize::from(n_bits)).div_ceil(32)
}

/// Packs one run into `out` (at least [`words`] long, zeroed).
pub fn pack_run(codes: impl Iterator<Item = u8>, n_bits: u8, mut put: impl FnMut(usize, u32)) {
    let (mut word, mut filled, mut at) = (0u64, 0u32, 0);
    for code in codes {
        word |= u64::from(code) << filled;
        filled += u32::from(n_bits);
        if filled >= 32 {
            put(at, word as u32);
            at += 1;
            word >>= 32;
            filled -= 32;
        }
    }
    if filled > 0 {
        put(at, word as u32);
    }
}

/// Packs each row of a `[rows, cols]` matrix: `[rows, words(cols)]`, little-endian bytes.
pub fn rows(codes: &[u8], cols: usize, n_bits: u8) -> Vec<u8> {
    use rayon::prelude::*;
    let width = words(cols, n_bits) * 4;
    let mut out = vec![0; codes.len() / cols.max(1) * width];
    out.par_chunks_mut(width.max(1))
        .zip(codes.par_chunks(cols.max(1)))
        .for_each(|(out, codes)| {
            pack_run(codes.iter().copied(), n_bits, |at, word| {
                out[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
            });
        });
    out
}

/// Packs each column of a `[rows, cols]` matrix downwards: `[words(rows), cols]`, little-endian bytes.
pub fn columns(codes: &[u8], cols: usize, n_bits: u8) -> Vec<u8> {
    let rows = codes.len() / cols.max(1);
    let mut out = vec![0; words(rows, n_bits) * cols * 4];
    for c in 0..cols {
        pack_run((0..rows).map(|r| codes[r * cols + c]), n_bits, |at, word| {
            let at = (at * cols + c) * 4;
            out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        });
    }
    out
}

/// `[rows, cols]` to `[cols, rows]`.
pub fn transpose<T: Copy + Default>(values: &[T], cols: usize) -> Vec<T> {
    let rows = values.len() / cols.max(1);
    let mut out = vec![T::default(); values.len()];
    // Tiles of 64 keep both sides in cache.
    for r0 in (0..rows).step_by(64) {
        for c0 in (0..cols).step_by(64) {
            for r in r0..(r0 + 64).min(rows) {
                for c in c0..(c0 + 64).min(cols) {
                    out[c * rows + r] = values[r * cols + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    /// Inputs of the golden file: `u = (31r + 17c + (rc) mod 7) mod 2^b`, `z = (5r + 3g + 1) mod 2^b`.
    fn golden(n_bits: u8) -> (Vec<u8>, Vec<u8>) {
        let mask = (1u32 << n_bits) - 1;
        let codes =
            (0..64u32).flat_map(|r| (0..128u32).map(move |c| ((r * 31 + c * 17 + (r * c) % 7) & mask) as u8));
        let zeros = (0..64u32).flat_map(|r| (0..4u32).map(move |g| ((r * 5 + g * 3 + 1) & mask) as u8));
        (codes.collect(), zeros.collect())
    }

    #[test]
    fn golden_vectors_of_every_width() {
        let file: serde_json::Value = serde_json::from_str(include_str!("golden/packing.json")).unwrap();
        for n_bits in [2u8, 3, 4, 8] {
            let want = &file[format!("bits{n_bits}")];
            let (codes, zeros) = golden(n_bits);
            assert_eq!(
                sha256(&rows(&codes, 128, n_bits)),
                want["ct_weight_packed_dense"]["sha256"],
                "{n_bits} bits"
            );
            assert_eq!(
                sha256(&columns(&zeros, 4, n_bits)),
                want["ct_weight_zero_point"]["sha256"],
                "{n_bits} bits"
            );
            // GPTQ: codes [in, out] packed down, zeros [groups, out] packed along.
            assert_eq!(
                sha256(&columns(&transpose(&codes, 128), 64, n_bits)),
                want["gptq_qweight"]["sha256"]
            );
            let zeros = transpose(&zeros, 4);
            assert_eq!(
                sha256(&rows(&zeros, 64, n_bits)),
                want["gptq_qzeros_v2"]["sha256"],
                "{n_bits} bits"
            );
            let mask = ((1u16 << n_bits) - 1) as u8;
            let v1: Vec<u8> = zeros.iter().map(|z| z.wrapping_sub(1) & mask).collect();
            assert_eq!(
                sha256(&rows(&v1, 64, n_bits)),
                want["gptq_qzeros_v1"]["sha256"],
                "{n_bits} bits"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn packed_codes_can_be_read_back(n_bits in 2u8..=8, raw in proptest::collection::vec(0u8..=255, 1..200)) {
            let codes: Vec<u8> = raw.iter().map(|c| c & ((1u16 << n_bits) - 1) as u8).collect();
            let packed = rows(&codes, codes.len(), n_bits);
            for (i, code) in codes.iter().enumerate() {
                let mut got = 0u16;
                for b in 0..usize::from(n_bits) {
                    let bit = i * usize::from(n_bits) + b;
                    got |= u16::from(packed[bit / 8] >> (bit % 8) & 1) << b;
                }
                proptest::prop_assert_eq!(got as u8, *code);
            }
        }
    }
}
