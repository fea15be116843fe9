//! Plain weights with many zeros: which are there, and the planes of those alone.
//!
//! Owns: when that is smaller, both parts of such a record. Must not know: the index, how streams are coded.
//! Invariant: only +0 is left out, so every bit comes back; a record from elsewhere takes no more memory than its tensor.

use super::record::bad;
use crate::error::Result;
use crate::kernels::entropy::{Coder, decode, encode, split};
use crate::kernels::sparse::mask;
use crate::tensor::DType;

/// One of so many weights must be zero before a mask is tried.
const TRIED_FROM: usize = 8;
/// Above this many weights, with so many zeros, a mask is always smaller: planes pay for a zero in each of them, what a
/// mask has on top is the table and the states of one more stream. Trying both would take the memory of both.
const ALWAYS_FROM: usize = 1 << 18;

/// A record, what its mask takes of it, and the number of its values.
pub(super) struct Packed {
    pub(super) record: Vec<u8>,
    pub(super) mask: u64,
    pub(super) values: u64,
}

/// Packs weights without their zeros; nothing where that is not smaller than their planes.
pub(super) fn pack(dtype: DType, weights: &[u8]) -> Result<Option<Packed>> {
    let width = dtype.bytes(1, 1).unwrap_or(1).max(1);
    let count = weights.len() / width;
    let kept = mask::nonzero(weights, width, count);
    let values = mask::count(&kept);
    if (count - values) * TRIED_FROM < count || count == 0 {
        return Ok(None);
    }
    let mut record = encode(&kept, Coder::Rans);
    let mask = record.len() as u64;
    let gathered = mask::gather(weights, width, count, &kept);
    record.extend(split::encode_weights(dtype, &gathered)?);
    drop((gathered, kept));
    if count < ALWAYS_FROM && split::encode_weights(dtype, weights)?.len() <= record.len() {
        return Ok(None);
    }
    Ok(Some(Packed {
        record,
        mask,
        values: values as u64,
    }))
}

/// Puts weights back between their zeros; `weights` is all zeros.
pub(super) fn unpack(
    dtype: DType,
    record: &[u8],
    (mask, values): (u64, u64),
    weights: &mut [u8],
) -> Result<()> {
    let width = dtype.bytes(1, 1).unwrap_or(1).max(1);
    let count = weights.len() / width;
    let parts = usize::try_from(mask)
        .ok()
        .and_then(|mask| record.split_at_checked(mask));
    let (stream, planes) = parts.ok_or_else(|| bad("its mask is longer than its record"))?;
    let values = usize::try_from(values).ok().filter(|values| *values <= count);
    let values = values.ok_or_else(|| bad("it has more values than weights"))?;
    let mut kept = vec![0; mask::row_bytes(count)];
    decode(stream, &mut kept)?;
    let mut gathered = vec![0; values * width];
    split::decode_weights(dtype, planes, &mut gathered)?;
    mask::scatter(&gathered, width, count, &kept, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Weights like those of a bell, of which `zeros` of 16 are +0.
    fn weights(count: u32, zeros: u32) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let value = |_| {
            let bits = (0x3c00 + (next() % 0x200) as u16) | ((next() % 2) << 15) as u16;
            if next() % 16 < zeros { 0 } else { bits }
        };
        (0..count).map(value).flat_map(u16::to_le_bytes).collect()
    }

    fn back(packed: &Packed, length: usize) -> Result<Vec<u8>> {
        let mut weights = vec![0; length];
        let parts = (packed.mask, packed.values);
        unpack(DType::BF16, &packed.record, parts, &mut weights).map(|()| weights)
    }

    #[test]
    fn zeros_are_left_out_where_that_is_smaller() {
        for (count, zeros, is_sparse) in [
            (300_000, 8, true),
            (300_000, 16, true),
            (20_000, 8, true),
            (300_000, 1, false),
            (300_000, 0, false),
            (64, 8, true),
            (16, 4, false),
            (0, 0, false),
        ] {
            let weights = weights(count, zeros);
            let packed = pack(DType::BF16, &weights).unwrap();
            assert_eq!(packed.is_some(), is_sparse, "{count} {zeros}");
            let Some(packed) = packed else { continue };
            assert_eq!(back(&packed, weights.len()).unwrap(), weights);
            let planes = split::encode_weights(DType::BF16, &weights).unwrap();
            assert!(packed.record.len() <= planes.len() + 64, "{count} {zeros}");
            // A half of the mask costs a bit a weight in each plane, and one here.
            if (count, zeros) == (300_000, 8) {
                let saved = 1.0 - packed.record.len() as f64 / planes.len() as f64;
                assert!(saved > 0.1, "{saved}");
            }
        }
    }

    #[test]
    fn zeros_with_a_sign_come_back() {
        let mut weights = weights(20_000, 8);
        weights[1] = 0x80;
        weights[0] = 0;
        let packed = pack(DType::BF16, &weights).unwrap().unwrap();
        assert_eq!(back(&packed, weights.len()).unwrap(), weights);
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_or_give_other_weights(
            at in any::<prop::sample::Index>(), by in 1u8.., cut in 0usize..50, mask in 0u64..4000, values in any::<u64>()
        ) {
            let weights = weights(20_000, 8);
            let mut packed = pack(DType::BF16, &weights).unwrap().unwrap();
            let moved = Packed { record: packed.record.clone(), mask, values };
            let at = at.index(packed.record.len());
            packed.record[at] = packed.record[at].wrapping_add(by);
            packed.record.truncate(packed.record.len() - cut);
            let _either = back(&packed, weights.len());
            prop_assert!(back(&moved, weights.len()).is_err());
        }
    }
}
