//! NormalFloat-4 rounding over flattened blocks.
//!
//! Owns: the decision thresholds, quantization of the absmax values. Must not know: nibble order.
//! Invariant: a value exactly on a threshold goes to the lower code, as in bitsandbytes' CUDA kernels.

use super::check_finite;
use crate::error::Result;
use crate::tensor::{CHUNK_ELEMENTS, DType, Rows};
use crate::weight::{NESTED_BLOCK, Nested, Nf4, dynamic_map};

/// Midpoints of neighbouring table values, as bitsandbytes spells them.
const THRESHOLDS: [f32; 15] = [
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
];

/// Code of a value already divided by its absmax.
pub fn code(value: f32) -> u8 {
    THRESHOLDS.iter().map(|t| u8::from(value > *t)).sum()
}

/// Quantizes a matrix; blocks may cross rows, the last one may be short.
pub fn quantize(input: &dyn Rows, block_size: usize, value_dtype: DType) -> Result<Nf4> {
    let (rows, cols) = (input.rows(), input.cols());
    let total = rows * cols;
    let mut codes = Vec::with_capacity(total);
    let mut absmax = Vec::with_capacity(total.div_ceil(block_size));
    let mut held: Vec<f32> = Vec::new();
    let step = (CHUNK_ELEMENTS * 4 / cols.max(1)).max(1);
    for first in (0..rows).step_by(step) {
        let count = (rows - first).min(step);
        let at = held.len();
        held.resize(at + count * cols, 0.0);
        input.read(first, &mut held[at..])?;
        check_finite(&held[at..], first * cols)?;
        let last = first + count == rows;
        let whole = if last {
            held.len()
        } else {
            held.len() / block_size * block_size
        };
        encode(&held[..whole], block_size, &mut codes, &mut absmax);
        held.drain(..whole);
    }
    Ok(Nf4 {
        rows,
        cols,
        block_size,
        value_dtype,
        codes,
        absmax,
        nested: None,
    })
}

/// Quantizes the absmax values too; the codes stay as they were chosen.
pub fn nest(weight: Nf4) -> Nf4 {
    let count = weight.absmax.len().max(1) as f64;
    let offset = (weight.absmax.iter().map(|v| f64::from(*v)).sum::<f64>() / count) as f32;
    let map = dynamic_map();
    let (mut codes, mut scales, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for block in weight.absmax.chunks(NESTED_BLOCK) {
        let scale = block.iter().fold(0f32, |most, v| most.max((v - offset).abs()));
        for value in block {
            let code = nearest(
                &map,
                if scale > 0.0 {
                    (value - offset) / scale
                } else {
                    0.0
                },
            );
            codes.push(code);
            read.push(map[usize::from(code)] * scale + offset);
        }
        scales.push(scale);
    }
    Nf4 {
        absmax: read,
        nested: Some(Nested {
            codes,
            absmax: scales,
            offset,
        }),
        ..weight
    }
}

/// The nearest value's place in a sorted map; the lower one of two that are as near.
fn nearest(map: &[f32; 256], value: f32) -> u8 {
    let above = map.partition_point(|v| *v < value).min(255);
    let below = above.saturating_sub(1);
    if value - map[below] <= map[above] - value {
        below as u8
    } else {
        above as u8
    }
}

fn encode(values: &[f32], block_size: usize, codes: &mut Vec<u8>, absmax: &mut Vec<f32>) {
    use rayon::prelude::*;
    let blocks: Vec<f32> = values
        .par_chunks(block_size)
        .map(|block| block.iter().fold(0f32, |m, v| m.max(v.abs())))
        .collect();
    let at = codes.len();
    codes.resize(at + values.len(), 0);
    codes[at..]
        .par_chunks_mut(block_size)
        .zip(values.par_chunks(block_size))
        .zip(&blocks)
        .for_each(|((codes, values), absmax)| {
            let inverse = if *absmax > 0.0 { 1.0 / absmax } else { 0.0 };
            for (out, value) in codes.iter_mut().zip(values) {
                *out = code(value * inverse);
            }
        });
    absmax.extend(blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::MemoryRows;
    use crate::weight::NF4_TABLE;

    #[test]
    fn table_values_map_to_themselves() {
        for (i, value) in NF4_TABLE.iter().enumerate() {
            assert_eq!(usize::from(code(*value)), i);
        }
    }

    #[test]
    fn blocks_cross_rows_and_the_last_may_be_short() {
        let values: Vec<f32> = (0..150).map(|i| (i as f32 - 75.0) / 10.0).collect();
        let out = quantize(
            &MemoryRows {
                values: &values,
                cols: 50,
            },
            64,
            DType::F32,
        )
        .unwrap();
        assert_eq!(out.absmax.len(), 3);
        assert_eq!(out.absmax[2], 7.4);
        let mut back = vec![0.0; 150];
        out.read(0, &mut back).unwrap();
        assert!(values.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1.2));
    }
    /// An absmax that is read back is off by no more than the map is coarse: a hundredth of its block's spread.
    #[test]
    fn nested_absmax_are_near_the_plain_ones() {
        let values: Vec<f32> = (0..64 * 600)
            .map(|i| ((i * 7919 % 10_007) as f32 / 5000.0 - 1.0) * (1.0 + (i / 64 % 37) as f32 / 10.0))
            .collect();
        let rows = MemoryRows {
            values: &values,
            cols: 64,
        };
        let plain = quantize(&rows, 64, DType::F32).unwrap();
        let nested = nest(plain.clone());
        assert_eq!(nested.codes, plain.codes);
        let parts = nested.nested.as_ref().unwrap();
        assert_eq!((parts.codes.len(), parts.absmax.len()), (600, 3));
        for (i, (read, exact)) in nested.absmax.iter().zip(&plain.absmax).enumerate() {
            let spread = parts.absmax[i / NESTED_BLOCK];
            assert!((read - exact).abs() <= spread * 0.0121, "{read} {exact}");
        }
        let map = dynamic_map();
        for (i, value) in map.iter().enumerate() {
            assert_eq!(usize::from(nearest(&map, *value)), i);
        }
        assert_eq!((nearest(&map, -2.0), nearest(&map, 2.0)), (0, 255));
    }
}
