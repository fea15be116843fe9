//! Floats as planes of bytes: exponents, which are far from equally likely, apart from mantissas, which are not.
//!
//! Owns: which bits go where, the container of the planes. Must not know: how a plane is coded.
//! Invariant: a permutation of bits, so every pattern comes back, NaN payloads and signs of zeros included.
//!
//! The planes are those of `ZipNN` (Hershcovitch et al. 2024) for bf16 and f32. Of f16, whose exponent has but five bits,
//! whole bytes are the planes: rANS pays for a symbol of eight bits what it does for the three even ones and the five
//! uneven ones apart.

use super::corrupt;
use super::counts::Source;
use super::encode::Encoded;
use super::stream::{Coder, Stream};
use crate::error::{Error, Result};
use crate::kernels::wide;
use crate::tensor::DType;
use rayon::prelude::*;
use std::ops::Range;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
/// A plane that would not lose a 128th of itself is stored: reading it as it is, is worth more.
const SAVING: f64 = 1.0 / 128.0;

/// Types whose weights can be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    BFloat16,
    Half,
    Single,
}

impl Layout {
    fn of(dtype: DType) -> Result<Self> {
        match dtype {
            DType::BF16 => Ok(Self::BFloat16),
            DType::F16 => Ok(Self::Half),
            DType::F32 => Ok(Self::Single),
            other => Err(Error::unsupported(
                "no_planes",
                format!("weights of type {other} have no planes: BF16, F16 and F32 have"),
            )),
        }
    }

    fn id(self) -> u8 {
        match self {
            Self::BFloat16 => 0,
            Self::Half => 1,
            Self::Single => 2,
        }
    }

    /// Bytes of a weight, which are as many as its planes.
    fn planes(self) -> usize {
        match self {
            Self::BFloat16 | Self::Half => 2,
            Self::Single => 4,
        }
    }

    /// Writes one plane of weights.
    fn take(self, plane: usize, weights: &[u8], out: &mut [u8]) {
        match (self, plane) {
            (Self::BFloat16, 0) => bfloat_exponents(weights, out),
            (Self::BFloat16, _) => bfloat_mantissas(weights, out),
            (Self::Half, 0) => half_uppers(weights, out),
            (Self::Half, _) => half_lowers(weights, out),
            (Self::Single, 0) => single_exponents(weights, out),
            (Self::Single, 1) => single_uppers(weights, out),
            (Self::Single, 2) => single_middles(weights, out),
            (Self::Single, _) => single_lowers(weights, out),
        }
    }

    fn put_together(self, planes: &[&[u8]], weights: &mut [u8]) {
        match (self, planes) {
            (Self::BFloat16, [first, second]) => join_bfloats(first, second, weights),
            (Self::Half, [first, second]) => join_halves(first, second, weights),
            (Self::Single, [first, second, third, fourth]) => {
                join_singles(first, second, third, fourth, weights);
            }
            _ => {}
        }
    }
}

/// One plane of weights.
struct Plane<'a> {
    layout: Layout,
    index: usize,
    weights: &'a [u8],
}

impl Source for Plane<'_> {
    fn len(&self) -> usize {
        self.weights.len() / self.layout.planes()
    }

    fn read<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        let width = self.layout.planes();
        buffer.resize(range.len(), 0);
        let weights = &self.weights[range.start * width..range.end * width];
        self.layout.take(self.index, weights, buffer);
        buffer
    }
}

/// Encodes little-endian weights of type BF16, F16 or F32 without loss: rANS where a plane gains by it.
pub fn encode_weights(dtype: DType, weights: &[u8]) -> Result<Vec<u8>> {
    let layout = Layout::of(dtype)?;
    let width = layout.planes();
    if !weights.len().is_multiple_of(width) {
        return Err(Error::internal("weights end within one"));
    }
    let plane = |index| Plane {
        layout,
        index,
        weights,
    };
    let planes: Vec<Plane<'_>> = (0..width).map(plane).collect();
    let encoded = planes.iter().map(|plane| Encoded::of(plane, Coder::Rans, SAVING));
    let streams: Vec<Encoded<'_, Plane<'_>>> = encoded.collect();

    let head = HEADER_BYTES + 8 * width;
    let mut out = vec![0; head + streams.iter().map(Encoded::bytes).sum::<usize>()];
    (out[0], out[1], out[2]) = (VERSION, layout.id(), width as u8);
    out[8..16].copy_from_slice(&((weights.len() / width) as u64).to_le_bytes());
    let (head, mut rest) = out.split_at_mut(head);
    for (stream, length) in streams.iter().zip(head[HEADER_BYTES..].as_chunks_mut().0) {
        *length = (stream.bytes() as u64).to_le_bytes();
        let place;
        (place, rest) = rest.split_at_mut(stream.bytes());
        stream.write(place);
    }
    Ok(out)
}

/// Decodes what [`encode_weights`] made of as many weights of that type. Memory besides: a chunk of each coded plane a
/// thread.
pub fn decode_weights(dtype: DType, bytes: &[u8], weights: &mut [u8]) -> Result<()> {
    let layout = Layout::of(dtype)?;
    let width = layout.planes();
    if !weights.len().is_multiple_of(width) {
        return Err(Error::internal("weights end within one"));
    }
    let streams = parse(layout, bytes, weights.len() / width)?;
    // Chunk sizes are powers of two: the largest is a whole number of any other.
    let piece = streams.iter().map(Stream::chunk_symbols).max().unwrap_or(1);
    let pieces = weights.par_chunks_mut(piece * width).enumerate();
    pieces.try_for_each_init(
        || vec![Vec::new(); width],
        |buffers, (index, weights)| {
            let range = index * piece..index * piece + weights.len() / width;
            let planes = streams
                .iter()
                .zip(buffers)
                .map(|(stream, buffer)| plane(stream, &range, buffer));
            layout.put_together(&planes.collect::<Result<Vec<_>>>()?, weights);
            Ok(())
        },
    )
}

/// Part of a plane that begins with a chunk: where it lies, or decoded into the buffer.
fn plane<'a>(stream: &Stream<'a>, range: &Range<usize>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    if let Some(all) = stream.as_stored() {
        return Ok(&all[range.clone()]);
    }
    buffer.resize(range.len(), 0);
    let first = range.start / stream.chunk_symbols();
    for (i, symbols) in buffer.chunks_mut(stream.chunk_symbols()).enumerate() {
        stream.decode_chunk(first + i, symbols)?;
    }
    Ok(buffer)
}

fn parse(layout: Layout, bytes: &[u8], count: usize) -> Result<Vec<Stream<'_>>> {
    let width = layout.planes();
    let (head, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| corrupt("planes are shorter than their header"))?;
    let [version, id, planes, zeros @ .., c0, c1, c2, c3, c4, c5, c6, c7] = *head;
    if version != VERSION {
        return Err(Error::unsupported(
            "entropy_planes_version",
            format!("planes of weights are of version {version}; this reads {VERSION}"),
        ));
    }
    if id != layout.id() || usize::from(planes) != width || zeros != [0; 5] {
        return Err(corrupt("planes are of another type of weights"));
    }
    if u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]) != count as u64 {
        return Err(corrupt("planes hold another number of weights than expected"));
    }
    let (lengths, mut rest) = rest
        .split_at_checked(8 * width)
        .ok_or_else(|| corrupt("planes end within their lengths"))?;
    let mut streams = Vec::with_capacity(width);
    for length in lengths.as_chunks().0 {
        let (stream, after) = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| corrupt("planes end within a stream"))?;
        streams.push(Stream::parse(stream, count)?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(corrupt("planes go on after their last stream"));
    }
    Ok(streams)
}

wide! {
    fn bfloat_exponents(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u16::from_le_bytes(*weight);
            *out = (bits >> 7) as u8;
        }
    }
}

wide! {
    fn bfloat_mantissas(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u16::from_le_bytes(*weight);
            *out = (bits & 0x7f | bits >> 8 & 0x80) as u8;
        }
    }
}

wide! {
    fn half_uppers(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u16::from_le_bytes(*weight);
            *out = (bits >> 8) as u8;
        }
    }
}

wide! {
    fn half_lowers(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u16::from_le_bytes(*weight);
            *out = bits as u8;
        }
    }
}

wide! {
    fn single_exponents(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u32::from_le_bytes(*weight);
            *out = (bits >> 23) as u8;
        }
    }
}

wide! {
    fn single_uppers(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u32::from_le_bytes(*weight);
            *out = (bits >> 16 & 0x7f | bits >> 24 & 0x80) as u8;
        }
    }
}

wide! {
    fn single_middles(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u32::from_le_bytes(*weight);
            *out = (bits >> 8) as u8;
        }
    }
}

wide! {
    fn single_lowers(weights: &[u8], out: &mut [u8]) {
        for (weight, out) in weights.as_chunks().0.iter().zip(out) {
            let bits = u32::from_le_bytes(*weight);
            *out = bits as u8;
        }
    }
}

wide! {
    fn join_bfloats(exponents: &[u8], mantissas: &[u8], weights: &mut [u8]) {
        for ((weight, exponent), mantissa) in weights.as_chunks_mut().0.iter_mut().zip(exponents).zip(mantissas) {
            let mantissa = u16::from(*mantissa);
            *weight = ((mantissa & 0x80) << 8 | u16::from(*exponent) << 7 | mantissa & 0x7f).to_le_bytes();
        }
    }
}

wide! {
    fn join_halves(upper: &[u8], lower: &[u8], weights: &mut [u8]) {
        for ((weight, upper), lower) in weights.as_chunks_mut::<2>().0.iter_mut().zip(upper).zip(lower) {
            *weight = [*lower, *upper];
        }
    }
}

wide! {
    fn join_singles(exponents: &[u8], upper: &[u8], middle: &[u8], lower: &[u8], weights: &mut [u8]) {
        let planes = exponents.iter().zip(upper).zip(middle).zip(lower);
        for (weight, (((exponent, upper), middle), lower)) in weights.as_chunks_mut().0.iter_mut().zip(planes) {
            let upper = u32::from(*upper);
            let high = (upper & 0x80) << 24 | u32::from(*exponent) << 23 | (upper & 0x7f) << 16;
            *weight = (high | u32::from(*middle) << 8 | u32::from(*lower)).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(dtype: DType, weights: &[u8]) -> usize {
        let bytes = encode_weights(dtype, weights).unwrap();
        let mut back = vec![0; weights.len()];
        decode_weights(dtype, &bytes, &mut back).unwrap();
        assert!(back == weights);
        bytes.len()
    }

    #[test]
    fn every_pattern_of_sixteen_bits_comes_back() {
        let weights: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        there_and_back(DType::BF16, &weights);
        there_and_back(DType::F16, &weights);
    }

    /// Exponents of a bell have about 2.6 bits, so 16 become 10.6.
    #[test]
    fn weights_of_a_bell_lose_a_third_and_come_back_to_the_bit() {
        let mut random = crate::kernels::random::Random::new(7);
        let mut bell = || (0..12).map(|_| random.share()).sum::<f64>() - 6.0;
        let singles: Vec<f32> = (0..300_000).map(|_| (bell() * 0.02) as f32).collect();
        let bfloats: Vec<u8> = singles
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
            .collect();
        let share = there_and_back(DType::BF16, &bfloats) as f64 / bfloats.len() as f64;
        assert!((0.65..0.68).contains(&share), "{share}");
        let bytes: Vec<u8> = singles.iter().flat_map(|v| v.to_le_bytes()).collect();
        let share = there_and_back(DType::F32, &bytes) as f64 / bytes.len() as f64;
        assert!((0.82..0.85).contains(&share), "{share}");
        let rounded: Vec<u8> = singles
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_f32().to_le_bytes())
            .collect();
        assert!(there_and_back(DType::F32, &rounded) < bfloats.len() * 2 / 3 + 1000);
    }

    #[test]
    fn other_types_and_other_numbers_of_weights_are_refused() {
        let bytes = encode_weights(DType::BF16, &[1; 64]).unwrap();
        let code = |dtype, length| {
            decode_weights(dtype, &bytes, &mut vec![0; length])
                .unwrap_err()
                .code
        };
        assert_eq!(code(DType::F16, 64), "corrupt_entropy_stream");
        assert_eq!(code(DType::BF16, 62), "corrupt_entropy_stream");
        assert_eq!(encode_weights(DType::I8, &[1]).unwrap_err().code, "no_planes");
    }

    proptest! {
        #[test]
        fn any_weights_come_back(weights in prop::collection::vec(any::<u32>(), 0..400), narrow in any::<bool>()) {
            let mask = if narrow { 0x0301_8103 } else { u32::MAX };
            let bytes: Vec<u8> = weights.iter().flat_map(|w| (w & mask).to_le_bytes()).collect();
            for dtype in [DType::BF16, DType::F16, DType::F32] {
                there_and_back(dtype, &bytes);
            }
        }

        #[test]
        fn damaged_planes_are_refused_or_read_but_never_panic(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let weights: Vec<u8> = (0..6000u32).flat_map(|i| ((i * i) as f32).to_le_bytes()).collect();
            let mut bytes = encode_weights(DType::F32, &weights).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = decode_weights(DType::F32, &bytes, &mut vec![0; weights.len()]);
        }
    }
}
