//! What the reader accepts, and the sentence it says for each thing it refuses.

use std::cell::Cell;
use std::io;

use proptest::prelude::*;

use super::*;
use crate::formats::gguf::build::{Layout, header_bytes};
use crate::formats::gguf::reader::WINDOW;

/// A whole file written by the Python package `gguf` 0.19: six keys, `t.weight` F32 of two rows by three, `u` F16
/// of two elements.
const PYTHON_FILE: &str = "\
474755460300000002000000000000000600000000000000140000000000000067656e6572616c2e6172636869746563\
747572650800000005000000000000006c6c616d610500000000000000612e7533320400000007000000010000000000\
0000620700000001010000000000000066060000000000003f0100000000000000690900000005000000020000000000\
000001000000feffffff0100000000000000730900000008000000020000000000000001000000000000007803000000\
00000000c4a0790800000000000000742e77656967687402000000030000000000000002000000000000000000000000\
000000000000000100000000000000750100000002000000000000000100000020000000000000000000000000000000\
0000803f0000004000004040000080400000a0400000c0400000000000000000003c00c0000000000000000000000000\
00000000000000000000000000000000";

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn parse_bytes(bytes: &[u8]) -> Result<Header, GgufError> {
    let read_at = |offset: u64, out: &mut [u8]| {
        let start = usize::try_from(offset).unwrap();
        let slice = bytes
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(slice);
        Ok(())
    };
    parse(&read_at, bytes.len() as u64)
}

/// Builds a file of zeros for data around a header.
fn file_of(layout: &Layout) -> Vec<u8> {
    let mut bytes = layout.header.clone();
    bytes.resize(layout.file_len as usize, 0);
    bytes
}

/// A header by hand: version, counts, then raw bytes.
fn raw(version: u32, n_tensors: u64, n_keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(version.to_le_bytes());
    out.extend(n_tensors.to_le_bytes());
    out.extend(n_keys.to_le_bytes());
    for part in rest {
        out.extend(*part);
    }
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn entry(name: &str, dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend((dims.len() as u32).to_le_bytes());
    for dim in dims {
        out.extend(dim.to_le_bytes());
    }
    out.extend(id.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A file of the given tensors, padded far enough for small ones.
fn with_tensors(tensors: &[Vec<u8>]) -> Vec<u8> {
    let parts: Vec<&[u8]> = tensors.iter().map(Vec::as_slice).collect();
    let mut out = raw(3, tensors.len() as u64, 0, &parts);
    out.resize(out.len().next_multiple_of(32) + 256, 0);
    out
}

fn refusal(bytes: &[u8]) -> String {
    parse_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn reads_what_the_python_package_writes_in_version_3_and_2() {
    let mut bytes = unhex(PYTHON_FILE);
    for version in [3_u8, 2] {
        bytes[4] = version;
        let header = parse_bytes(&bytes).unwrap();
        assert_eq!(
            (header.version, header.alignment, header.data_start),
            (version.into(), 32, 288)
        );
        let meta = &header.metadata;
        let keys: Vec<&str> = meta.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["general.architecture", "a.u32", "b", "f", "i", "s"]);
        assert_eq!(meta.get_str("general.architecture"), Some("llama"));
        assert_eq!(meta.get_u32("a.u32"), Some(7));
        assert_eq!(meta.get_bool("b"), Some(true));
        assert_eq!(meta.get_f32("f"), Some(0.5));
        assert_eq!(meta.get_i32s("i"), Some(&[1, -2][..]));
        assert_eq!(
            meta.get_texts("s").unwrap().iter().collect::<Vec<_>>(),
            [&b"x"[..], "Ġy".as_bytes()]
        );
        let (t, u) = (header.tensor("t.weight").unwrap(), header.tensor("u").unwrap());
        assert_eq!(
            (&t.dims[..], t.ggml_type_id, t.offset, t.bytes),
            (&[3, 2][..], 0, 288, 24)
        );
        assert_eq!(
            (&u.dims[..], u.ggml_type_id, u.offset, u.bytes),
            (&[2][..], 1, 320, 4)
        );
    }
}

#[test]
fn refuses_other_magics_versions_and_byte_orders() {
    assert_eq!(
        refusal(b"GGML\x03\0\0\0"),
        "not a gguf file: expected the bytes \"GGUF\" first, got \"GGML\""
    );
    assert_eq!(
        refusal(&raw(1, 0, 0, &[])),
        "gguf version 1 is not supported: expected 2 or 3"
    );
    assert_eq!(
        refusal(&raw(4, 0, 0, &[])),
        "gguf version 4 is not supported: expected 2 or 3"
    );
    assert_eq!(
        refusal(&raw(3_u32.swap_bytes(), 0, 0, &[])),
        "big-endian gguf is not supported: convert the file to little-endian first"
    );
    assert_eq!(
        refusal(b"GG"),
        "gguf file is truncated: the magic needs 4 bytes, 2 are left"
    );
}

#[test]
fn refuses_counts_that_the_file_cannot_hold() {
    assert_eq!(
        refusal(&raw(3, 1 << 40, 0, &[])),
        "gguf tensor count is 1099511627776: the limit is 1048576"
    );
    assert_eq!(
        refusal(&raw(3, 0, 1 << 40, &[])),
        "gguf metadata key count is 1099511627776: the limit is 65536"
    );
    let array = [
        &text("k")[..],
        &9_u32.to_le_bytes(),
        &8_u32.to_le_bytes(),
        &u64::MAX.to_le_bytes(),
    ]
    .concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&array])),
        "gguf file is truncated: the value of metadata key k needs 18446744073709551615 bytes, 0 are left"
    );
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&(1_u64 << 20).to_le_bytes()])),
        "gguf length of metadata key number 0 is 1048576: the limit is 65535"
    );
}

#[test]
fn refuses_bad_keys_and_values() {
    let u8_entry = |key: &str| [&text(key)[..], &0_u32.to_le_bytes(), &[5]].concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&u8_entry("")])),
        "gguf metadata key number 0 is empty"
    );
    assert_eq!(
        refusal(&raw(3, 0, 2, &[&u8_entry("k"), &u8_entry("k")])),
        "gguf metadata key k appears twice"
    );
    let not_utf8 = [&1_u64.to_le_bytes()[..], &[0xff]].concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&not_utf8])),
        "gguf metadata key number 0 is not utf-8: \\xff"
    );
    let unknown = [&text("k")[..], &13_u32.to_le_bytes()].concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&unknown])),
        "gguf metadata key k has value type 13: expected 0 to 12"
    );
    let nested = [
        &text("k")[..],
        &9_u32.to_le_bytes(),
        &9_u32.to_le_bytes(),
        &0_u64.to_le_bytes(),
    ]
    .concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&nested])),
        "gguf metadata key k is an array of arrays, which is not supported"
    );
    let alignment = |ty: u32, value: &[u8]| [&text(ALIGNMENT_KEY)[..], &ty.to_le_bytes(), value].concat();
    assert_eq!(
        refusal(&raw(3, 0, 1, &[&alignment(10, &32_u64.to_le_bytes())])),
        "gguf metadata key general.alignment must be uint32, got uint64"
    );
    for bad in [0_u32, 48, 4, 1 << 21] {
        let error = refusal(&raw(3, 0, 1, &[&alignment(4, &bad.to_le_bytes())]));
        assert_eq!(
            error,
            format!("gguf alignment must be a power of two from 8 up to 1048576, got {bad}")
        );
    }
}

#[test]
fn refuses_bad_tensors_by_name() {
    let one = |name: &str, dims: &[u64], id, offset| refusal(&with_tensors(&[entry(name, dims, id, offset)]));
    assert_eq!(
        one("w", &[], 0, 0),
        "gguf tensor w has 0 dimensions: expected 1 to 4"
    );
    assert_eq!(
        one("w", &[1; 5], 0, 0),
        "gguf tensor w has 5 dimensions: expected 1 to 4"
    );
    assert_eq!(
        one("w", &[4, 0], 0, 0),
        "gguf tensor w has dimension 1 equal to zero"
    );
    assert_eq!(
        one("w", &[1 << 32, 1 << 32], 0, 0),
        "gguf tensor w of dimensions [4294967296, 4294967296] is too large to count"
    );
    assert_eq!(
        one("w", &[1 << 62], 0, 0),
        "gguf tensor w of dimensions [4611686018427387904] is too large to count"
    );
    assert_eq!(one("w", &[32], 4, 0), "gguf tensor w has the unknown ggml type 4");
    assert_eq!(
        one("w", &[33], 2, 0),
        "gguf tensor w has rows of 33 elements: type Q4_0 needs a multiple of 32"
    );
    assert_eq!(
        one("w", &[1], 0, 4),
        "gguf tensor w has offset 4, not a multiple of the alignment 32"
    );
    assert_eq!(
        one("w", &[1024], 0, 0),
        "gguf tensor w ends at byte 4160, but the file has 320"
    );
    assert_eq!(
        one("w", &[1], 0, u64::MAX - 31),
        "gguf tensor w ends at byte 18446744073709551615, but the file has 320"
    );
    let pair =
        |a: &str, b: &str, offset| refusal(&with_tensors(&[entry(a, &[9], 0, 0), entry(b, &[1], 0, offset)]));
    assert_eq!(pair("a", "a", 64), "gguf tensor a appears twice");
    assert_eq!(pair("a", "b", 32), "gguf tensors a and b overlap");
    let long = "n".repeat(1025);
    assert_eq!(
        one(&long, &[1], 0, 0),
        "gguf length of name of tensor number 0 is 1025: the limit is 1024"
    );
}

#[test]
fn a_gap_between_tensors_is_allowed_and_bytes_need_not_be_utf8() {
    let bytes = with_tensors(&[entry("b", &[1], 0, 64), entry("a", &[1], 0, 0)]);
    let header = parse_bytes(&bytes).unwrap();
    assert_eq!(
        header
            .tensors
            .iter()
            .map(|t| t.offset - header.data_start)
            .collect::<Vec<_>>(),
        [64, 0]
    );
    let mut metadata = Metadata::new();
    metadata.set("tokens", Value::texts([&b"\xff\xfe"[..], b"ok"]));
    metadata.set("odd", Value::Text(Text::from(vec![0xc3])));
    let built = header_bytes(&metadata, &[], 32).unwrap();
    let header = parse_bytes(&file_of(&built)).unwrap();
    assert_eq!(
        header.metadata.get_texts("tokens").unwrap().get(0),
        Some(&b"\xff\xfe"[..])
    );
    assert_eq!(header.metadata.get_str("odd"), None);
    assert_eq!(header.metadata, metadata);
}

#[test]
fn a_failing_read_names_what_was_read() {
    let read_at = |_: u64, _: &mut [u8]| Err(io::Error::other("gone"));
    let error = parse(&read_at, 100).unwrap_err().to_string();
    assert_eq!(error, "could not read the magic at byte 0 of the gguf file: gone");
}

#[test]
fn a_vocabulary_is_read_in_a_few_large_reads() {
    let mut metadata = Metadata::new();
    metadata.set("t", Value::texts((0..50_000).map(|i| format!("token{i}"))));
    let bytes = file_of(&header_bytes(&metadata, &[], 32).unwrap());
    let reads = Cell::new(0);
    let read_at = |offset: u64, out: &mut [u8]| {
        reads.set(reads.get() + 1);
        let start = offset as usize;
        out.copy_from_slice(&bytes[start..start + out.len()]);
        Ok(())
    };
    assert_eq!(parse(&read_at, bytes.len() as u64).unwrap().metadata, metadata);
    assert!(reads.get() <= bytes.len() / WINDOW + 1, "{} reads", reads.get());
}

#[test]
fn a_huge_declared_file_does_not_make_it_allocate_what_is_not_there() {
    // the length says 1 TiB and so does a string: the header limit refuses before any allocation
    let head = raw(
        3,
        0,
        1,
        &[&text("k"), &8_u32.to_le_bytes(), &(1_u64 << 39).to_le_bytes()],
    );
    let read_at = |offset: u64, out: &mut [u8]| {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = head.get(offset as usize + i).copied().unwrap_or(0);
        }
        Ok(())
    };
    let error = parse(&read_at, 1 << 40).unwrap_err().to_string();
    assert!(error.ends_with("the limit is 268435456"), "{error}");
}

/// A file with every value type, for mutation.
fn rich_file() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("s", Value::text("text"));
    metadata.set("u", Value::U64(1));
    metadata.set("list", Value::texts(["a", "bc", ""]));
    metadata.set("f", Value::Array(ArrayValue::F32(vec![1.0; 5])));
    let tensors = [
        ("a.weight".to_owned(), vec![64, 2], GgmlType::Q4_0),
        ("b".to_owned(), vec![3], GgmlType::F32),
    ];
    file_of(&header_bytes(&metadata, &tensors, 64).unwrap())
}

#[test]
fn names_that_cannot_be_shown_are_refused() {
    for name in ["", "a\0b", "\u{1b}[31m"] {
        let table = [
            text(name),
            1_u32.to_le_bytes().to_vec(),
            8_u64.to_le_bytes().to_vec(),
            0_u32.to_le_bytes().to_vec(),
            0_u64.to_le_bytes().to_vec(),
        ]
        .concat();
        let refused = parse_bytes(&raw(3, 1, 0, &[&table, &[0; 64]])).unwrap_err();
        assert!(
            refused.to_string().contains("tensor number 0 has a name"),
            "{refused}"
        );
    }
}

proptest! {
    #[test]
    fn never_panics_on_mutated_or_truncated_files(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let mut bytes = rich_file();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(header) = parse_bytes(&bytes) {
            for tensor in &header.tensors {
                prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn never_panics_on_noise(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_bytes(&noise);
        let _ = parse_bytes(&[&raw(3, 3, 3, &[])[..], &noise].concat());
    }
}
