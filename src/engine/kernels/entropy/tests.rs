//! Laws of streams: what is encoded is decoded, near the entropy, and damage is noticed or harmless.

use super::counts::count;
use super::encode::Encoded;
use super::lanes::{Code, Decode, Reader, Writer};
use super::{Coder, Stream, decode, encode, groups, huffman, rans, split};
use crate::kernels::random::Random;
use crate::kernels::symbols::entropy;
use crate::tensor::DType;
use proptest::prelude::*;

fn encode_in_chunks(symbols: &[u8], coder: Coder, k: u8) -> Vec<u8> {
    let encoded = Encoded::in_chunks(symbols, &count(symbols), coder, k, 0.0);
    let mut out = vec![0; encoded.bytes()];
    encoded.write(&mut out);
    out
}

const CODERS: [Coder; 2] = [Coder::Huffman, Coder::Rans];

/// Symbols drawn with these odds.
fn drawn(odds: &[u64], length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let total = odds.iter().sum();
    let mut one = || {
        let mut left = random.below(total);
        let found = odds.iter().position(|n| {
            let is_here = left < *n;
            left = left.wrapping_sub(*n);
            is_here
        });
        found.unwrap() as u8
    };
    (0..length).map(|_| one()).collect()
}

fn there_and_back(bytes: &[u8], symbols: &[u8]) {
    let mut back = vec![0; symbols.len()];
    decode(bytes, &mut back).unwrap();
    assert!(back == symbols);
}

/// Odds of the exponents of a bell, of 16 levels, of 256 levels, of nine zeros in ten, and of nearly nothing else.
fn sources() -> Vec<Vec<u64>> {
    let bell = |i: i32, wide: f64| (1e6 * (-f64::from(i * i) / wide).exp()) as u64 + 1;
    vec![
        (0..26).map(|i| 1 << i).chain([30_000_000, 9_000_000]).collect(),
        (-8..8).map(|i| bell(i, 18.0)).collect(),
        (-128..128).map(|i| bell(i, 4000.0)).collect(),
        vec![9, 1],
        vec![1, 1],
        vec![1, 0, 0, 4000],
    ]
}

#[test]
fn rans_is_within_a_thousandth_of_the_entropy() {
    for (i, odds) in sources().iter().enumerate() {
        let symbols = drawn(odds, 3 << 20, 3);
        let bytes = encode(&symbols, Coder::Rans);
        there_and_back(&bytes, &symbols);
        let least = entropy(&count(&symbols[..])) * symbols.len() as f64 / 8.0;
        // The table and the states of a chunk, which is as large as a tenth of a per cent of it allows, or the largest.
        let allowed = least * 1.001 + 600.0 + 256.0;
        assert!((bytes.len() as f64) < allowed, "{i}: {} {least}", bytes.len());
    }
}

/// Codes of a bell on a grid of so many levels, `wide` standard deviations from the middle to either end.
fn codes_of_a_bell(levels: usize, wide: f64, length: usize) -> Vec<u8> {
    let step = 2.0 * wide / (levels - 1) as f64;
    let density = |i: usize| (-(i as f64 * step - wide).powi(2) / 2.0).exp();
    let odds: Vec<u64> = (0..levels).map(|i| (1e6 * density(i)) as u64 + 1).collect();
    drawn(&odds, length, 4)
}

#[test]
fn huffman_is_within_a_hundredth_on_codes_of_weights() {
    // Grids of 3 to 8 bits as they are scaled for groups, and centroids that are all but equally likely.
    let bells = [
        (7, 2.5),
        (8, 2.5),
        (15, 2.7),
        (16, 3.5),
        (31, 3.0),
        (32, 4.0),
        (64, 3.5),
        (255, 4.0),
    ];
    let mut cases: Vec<Vec<u8>> = bells
        .iter()
        .map(|(levels, wide)| codes_of_a_bell(*levels, *wide, 576 * 576))
        .collect();
    let even: Vec<u64> = (0..16).map(|i| 1000 + 130 * i.min(15 - i)).collect();
    cases.extend([drawn(&even, 576 * 576, 4), drawn(&[1; 5], 576 * 576, 4)]);
    for (i, symbols) in cases.iter().enumerate() {
        let bytes = encode(symbols, Coder::Huffman);
        there_and_back(&bytes, symbols);
        let least = entropy(&count(&symbols[..])) * symbols.len() as f64 / 8.0;
        assert!(
            (bytes.len() as f64) < least * 1.01,
            "{i}: {} {least}",
            bytes.len()
        );
    }
}

#[test]
fn groups_are_as_large_as_pays() {
    let size = |symbols: &[u8]| {
        let bytes = encode(symbols, Coder::Huffman);
        there_and_back(&bytes, symbols);
        (bytes[0], bytes[1], bytes[3])
    };
    // Whole bits fit; pairs of many symbols have a table that costs more than they save; of few they have not.
    assert_eq!(size(&drawn(&[4, 2, 1, 1], 100_000, 1)), (1, 2, 0));
    assert_eq!(size(&codes_of_a_bell(255, 4.0, 1 << 20)), (1, 2, 0));
    assert_eq!(size(&codes_of_a_bell(32, 4.0, 60_000)), (1, 2, 0));
    assert_eq!(size(&codes_of_a_bell(32, 4.0, 1 << 20)), (2, 4, 2));
    assert_eq!(size(&codes_of_a_bell(8, 2.5, 1 << 20)), (2, 4, 3));
    assert_eq!(size(&drawn(&[49, 1], 1 << 20, 1)), (2, 4, 12));
}

#[test]
fn neighbours_that_depend_on_each_other_take_less_than_their_entropy() {
    let doubled: Vec<u8> = drawn(&[5, 3, 2], 100_000, 1)
        .into_iter()
        .flat_map(|s| [s, s])
        .collect();
    let bytes = encode(&doubled, Coder::Huffman);
    there_and_back(&bytes, &doubled);
    let least = entropy(&count(&doubled[..])) * doubled.len() as f64 / 8.0;
    assert!((bytes.len() as f64) < least * 0.55, "{} {least}", bytes.len());
}

#[test]
fn one_symbol_takes_no_space_and_noise_is_stored() {
    let same = vec![7; 100_000];
    for coder in CODERS {
        assert_eq!(
            encode(&same, coder),
            [1, 1, 22, 0, 1, 0, 0, 0, 0xa0, 0x86, 1, 0, 0, 0, 0, 0, 7]
        );
        there_and_back(&encode(&same, coder), &same);
        let noise = drawn(&[1; 256], 40_000, 5);
        let bytes = encode(&noise, coder);
        assert_eq!(bytes.len(), noise.len() + 16);
        there_and_back(&bytes, &noise);
        assert_eq!(encode(&[], coder).len(), 16);
        there_and_back(&encode(&[], coder), &[]);
    }
}

#[test]
fn a_chunk_that_would_grow_is_plain() {
    let mut symbols = vec![0; 100 << 10];
    symbols.extend(drawn(&[1; 256], 1 << 10, 6));
    for coder in CODERS {
        let bytes = encode_in_chunks(&symbols, coder, 10);
        there_and_back(&bytes, &symbols);
        assert!(bytes.ends_with(&symbols[100 << 10..]));
    }
}

#[test]
fn chunks_are_read_one_by_one() {
    let symbols = drawn(&[5, 1, 1, 9], 10_000, 8);
    for coder in CODERS {
        let bytes = encode_in_chunks(&symbols, coder, 12);
        let stream = Stream::parse(&bytes, symbols.len()).unwrap();
        assert_eq!(stream.chunk_symbols(), 4096);
        let mut last = vec![0; 10_000 - 8192];
        stream.decode_chunk(2, &mut last).unwrap();
        assert_eq!(last, symbols[8192..]);
        assert!(stream.decode_chunk(2, &mut [0; 4096]).is_err());
        stream.decode_chunk(3, &mut []).unwrap();
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let symbols = drawn(&sources()[0], 1 << 20, 9);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| encode_in_chunks(&symbols, Coder::Rans, 15))
    };
    assert!(with(1) == with(3));
}

/// A code that leaves all rows to plain Rust.
struct Plain<T>(T);

impl<T: Code> Code for Plain<T> {
    type Symbol = T::Symbol;
    fn overflows(&self, state: u32, symbol: T::Symbol) -> bool {
        self.0.overflows(state, symbol)
    }
    fn put(&self, state: u32, symbol: T::Symbol) -> u32 {
        self.0.put(state, symbol)
    }
    fn put_rows(&self, _writer: &mut Writer<'_>, symbols: &[T::Symbol]) -> usize {
        symbols.len()
    }
}

impl<T: Decode> Decode for Plain<T> {
    type Symbol = T::Symbol;
    fn take(&self, state: u32) -> (T::Symbol, u32) {
        self.0.take(state)
    }
    fn take_rows(&self, _reader: &mut Reader<'_>, _symbols: &mut [T::Symbol]) -> usize {
        0
    }
}

#[test]
fn wider_instructions_write_and_read_what_plain_rust_does() {
    fn written<C: Code>(code: &C, symbols: &[C::Symbol], mut buffer: Vec<u8>) -> Option<Vec<u8>> {
        let mut writer = Writer::new(size_of_val(symbols), &mut buffer)?;
        writer.put(code, symbols)?;
        Some(writer.chunk())
    }
    fn read<C: Decode>(code: &C, chunk: &[u8], symbols: &mut [C::Symbol]) {
        let mut reader = Reader::new(chunk).unwrap();
        reader.take(code, symbols).unwrap();
        reader.finish().unwrap();
    }
    fn compare<S: Copy + Default + PartialEq>(
        code: impl Code<Symbol = S>,
        back: impl Decode<Symbol = S>,
        symbols: &[S],
    ) {
        let wide = written(&code, symbols, Vec::new());
        assert!(wide == written(&Plain(code), symbols, vec![3; 9]));
        let Some(chunk) = wide else { return };
        let mut found = [
            vec![S::default(); symbols.len()],
            vec![S::default(); symbols.len()],
        ];
        read(&back, &chunk, &mut found[0]);
        read(&Plain(back), &chunk, &mut found[1]);
        assert!(found.iter().all(|found| found == symbols));
    }
    for odds in sources() {
        for length in [0, 1, 31, 32, 200, 4096, 70_001] {
            let symbols = drawn(&odds, length, 10);
            let counts = count(&drawn(&odds, 100_000, 10)[..]);
            let lengths = huffman::Lengths::of(&counts);
            compare(
                huffman::Encoder::new(&lengths),
                huffman::Decoder::new(&lengths),
                &symbols,
            );
            let frequencies = rans::Frequencies::of(&counts);
            compare(
                rans::Encoder::new(&frequencies),
                rans::Decoder::new(&frequencies),
                &symbols,
            );
            let source = &drawn(&odds, 100_000, 10)[..];
            if let Some((lengths, _)) = groups::Lengths::best(source, &counts, 18, f64::MAX) {
                let code = groups::Encoder::new(&lengths);
                let made = code.groups(&symbols[..length / lengths.size * lengths.size]);
                compare(code, groups::Decoder::new(&lengths), &made);
            }
        }
    }
}

fn any_coder() -> impl Strategy<Value = Coder> {
    prop::sample::select(&CODERS)
}

proptest! {
    #[test]
    fn any_symbols_come_back(
        odds in prop::collection::vec(0u64..1000, 1..256),
        length in 0usize..5000,
        k in 6u8..14,
        coder in any_coder(),
    ) {
        let odds: Vec<u64> = odds.iter().map(|n| n * n + 1).collect();
        let symbols = drawn(&odds, length, 1);
        there_and_back(&encode(&symbols, coder), &symbols);
        there_and_back(&encode_in_chunks(&symbols, coder, k), &symbols);
    }

    /// Alphabets small enough for groups, and chunks that end within one.
    #[test]
    fn groups_of_any_symbols_come_back(
        odds in prop::collection::vec(0u64..30, 2..20),
        first in 0u8..200,
        length in 0usize..20_000,
        k in 6u8..17,
    ) {
        let odds: Vec<u64> = odds.iter().map(|n| n * n).chain([1, 1]).collect();
        let symbols: Vec<u8> = drawn(&odds, length, 1).iter().map(|s| s + first).collect();
        there_and_back(&encode(&symbols, Coder::Huffman), &symbols);
        there_and_back(&encode_in_chunks(&symbols, Coder::Huffman, k), &symbols);
    }

    /// A flipped bit in a chunk is all but always noticed, in the table at times; what is decoded then is no matter.
    #[test]
    fn damaged_streams_are_refused_or_read_but_never_panic(
        coder in any_coder(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        expected in prop::option::of(0usize..9000),
    ) {
        let symbols = drawn(&[1, 3, 9, 27, 81, 3], 6000, 2);
        let mut bytes = encode_in_chunks(&symbols, coder, 11);
        prop_assert_eq!(bytes[3], if coder == Coder::Huffman { 2 } else { 0 });
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut back = vec![0; expected.unwrap_or(symbols.len())];
        match decode(&bytes, &mut back) {
            Ok(()) => prop_assert!(cut.is_none()),
            Err(error) => prop_assert!(error.code != "internal", "{error}"),
        }
    }

    #[test]
    fn noise_is_no_stream(
        version in 0u8..4,
        form in 0u8..6,
        size in 0u8..14,
        k in 0u8..30,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        n in 0u64..500,
    ) {
        let mut stream = vec![version, form, k, size, 36, 0, 0, 0];
        stream.extend(n.to_le_bytes());
        stream.extend(bytes);
        let _ = decode(&stream, &mut vec![0; n as usize]);
    }
}

/// The generator that the golden file describes.
fn draws() -> impl FnMut(&[u8]) -> u8 {
    let mut state = 1u64;
    move |letters| {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        letters[(state >> 16) as usize % letters.len()]
    }
}

fn from_hex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn streams_are_those_of_the_golden_file() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let cases = golden["streams"].as_object().unwrap();
    assert_eq!(cases.len(), 9);
    for (name, case) in cases {
        let mut draw = draws();
        let mut symbols = Vec::new();
        for part in case["parts"].as_array().unwrap() {
            let letters = from_hex(&part[0]);
            symbols.extend((0..part[1].as_u64().unwrap()).map(|_| draw(&letters)));
        }
        let coder = if case["coder"] == "huffman" {
            Coder::Huffman
        } else {
            Coder::Rans
        };
        let bytes = encode_in_chunks(&symbols, coder, case["k"].as_u64().unwrap() as u8);
        assert!(bytes == from_hex(&case["stream"]), "{name}");
        there_and_back(&bytes, &symbols);
    }
    let cases = golden["weights"].as_object().unwrap();
    for (name, dtype) in [("bf16", DType::BF16), ("f16", DType::F16), ("f32", DType::F32)] {
        let (case, mut draw) = (&cases[name], draws());
        let places: Vec<Vec<u8>> = case["bytes"].as_array().unwrap().iter().map(from_hex).collect();
        let length = case["length"].as_u64().unwrap();
        let weights: Vec<u8> = (0..length)
            .flat_map(|_| places.iter().map(|place| draw(place)).collect::<Vec<_>>())
            .collect();
        let bytes = split::encode_weights(dtype, &weights).unwrap();
        assert!(bytes == from_hex(&case["stream"]), "{name}");
    }
}
