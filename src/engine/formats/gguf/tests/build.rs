//! What is built is read back, and what llama.cpp would not load is refused.

use proptest::prelude::*;

use super::*;
use crate::formats::gguf::container::{Header, parse};

fn read_back(layout: &Layout) -> Header {
    let mut bytes = layout.header.clone();
    bytes.resize(layout.file_len as usize, 0);
    let read_at = |offset: u64, out: &mut [u8]| {
        out.copy_from_slice(&bytes[offset as usize..offset as usize + out.len()]);
        Ok(())
    };
    parse(&read_at, layout.file_len).unwrap()
}

#[test]
fn an_empty_file_is_24_bytes_of_counts_padded_to_32() {
    let layout = header_bytes(&Metadata::new(), &[], 32).unwrap();
    assert_eq!(&layout.header[..8], b"GGUF\x03\0\0\0");
    assert_eq!((layout.header.len(), layout.file_len), (32, 32));
}

#[test]
fn each_tensor_starts_on_the_alignment_and_the_last_is_padded() {
    let tensors = [
        ("a".to_owned(), vec![3], GgmlType::F32),
        ("b".to_owned(), vec![32, 2], GgmlType::Q4_0),
    ];
    let layout = header_bytes(&Metadata::new(), &tensors, 64).unwrap();
    let start = layout.header.len() as u64;
    assert_eq!(start % 64, 0);
    assert_eq!(layout.offsets, [start, start + 64]);
    assert_eq!(layout.file_len, start + 128);
    let header = read_back(&layout);
    assert_eq!(header.metadata.get_u32("general.alignment"), Some(64));
    assert_eq!(
        header.tensors.iter().map(|t| t.offset).collect::<Vec<_>>(),
        layout.offsets
    );
    assert_eq!(header.tensors[1].bytes, 36);
}

#[test]
fn refuses_what_would_not_load() {
    let refusal = |metadata: &Metadata, tensors: &[(String, Vec<u64>, GgmlType)], alignment| {
        header_bytes(metadata, tensors, alignment)
            .unwrap_err()
            .to_string()
    };
    let none = Metadata::new();
    assert_eq!(
        refusal(&none, &[], 24),
        "gguf alignment must be a power of two from 8 up to 1048576, got 24"
    );
    let mut other = Metadata::new();
    other.set("general.alignment", Value::U32(64));
    assert_eq!(
        refusal(&other, &[], 32),
        "gguf metadata key general.alignment is 64, but the file is laid out with 32"
    );
    let tensor = |name: &str| (name.to_owned(), vec![32], GgmlType::F32);
    let long = "n".repeat(64);
    assert_eq!(
        refusal(&none, &[tensor(&long)], 32),
        format!("gguf length of the name of tensor {long} is 64: the limit is 63")
    );
    assert_eq!(
        refusal(&none, &[tensor("w"), tensor("w")], 32),
        "gguf tensor w appears twice"
    );
    assert_eq!(
        refusal(&none, &[("w".into(), vec![100], GgmlType::Q4_K)], 32),
        "gguf tensor w has rows of 100 elements: type Q4_K needs a multiple of 256"
    );
}

fn array() -> impl Strategy<Value = ArrayValue> {
    use prop::collection::vec;
    prop_oneof![
        vec(any::<u8>(), 0..4).prop_map(ArrayValue::U8),
        vec(any::<i8>(), 0..4).prop_map(ArrayValue::I8),
        vec(any::<u16>(), 0..4).prop_map(ArrayValue::U16),
        vec(any::<i16>(), 0..4).prop_map(ArrayValue::I16),
        vec(any::<u32>(), 0..4).prop_map(ArrayValue::U32),
        vec(any::<i32>(), 0..4).prop_map(ArrayValue::I32),
        vec(-1e9_f32..1e9, 0..4).prop_map(ArrayValue::F32),
        vec(any::<bool>(), 0..4).prop_map(ArrayValue::Bool),
        vec(vec(any::<u8>(), 0..5), 0..4).prop_map(|list| ArrayValue::Text(list.iter().collect())),
        vec(any::<u64>(), 0..4).prop_map(ArrayValue::U64),
        vec(any::<i64>(), 0..4).prop_map(ArrayValue::I64),
        vec(-1e9_f64..1e9, 0..4).prop_map(ArrayValue::F64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e9_f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Text(bytes.into())),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9_f64..1e9).prop_map(Value::F64),
    ]
}

fn tensor() -> impl Strategy<Value = (Vec<u64>, GgmlType)> {
    let types = prop::sample::select(vec![GgmlType::F32, GgmlType::F16, GgmlType::Q4_0, GgmlType::Q6_K]);
    (prop::collection::vec(1_u64..4, 1..=4), types).prop_map(|(mut dims, ty)| {
        dims[0] *= ty.block_size() as u64;
        (dims, ty)
    })
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        values in prop::collection::vec(value(), 0..6),
        shapes in prop::collection::vec(tensor(), 0..5),
        alignment in prop::sample::select(vec![8_u32, 32, 256]),
    ) {
        let mut metadata = Metadata::new();
        for (i, value) in values.into_iter().enumerate() {
            metadata.set(format!("key.{i}"), value);
        }
        let tensors: Vec<_> =
            shapes.into_iter().enumerate().map(|(i, (dims, ty))| (format!("blk.{i}"), dims, ty)).collect();
        let layout = header_bytes(&metadata, &tensors, alignment).unwrap();
        prop_assert_eq!(&layout, &header_bytes(&metadata, &tensors, alignment).unwrap());
        let header = read_back(&layout);
        prop_assert_eq!(header.alignment, alignment);
        if alignment != 32 {
            metadata.set("general.alignment", Value::U32(alignment));
        }
        prop_assert_eq!(&header.metadata, &metadata);
        for ((name, dims, ty), (read, offset)) in tensors.iter().zip(header.tensors.iter().zip(&layout.offsets)) {
            prop_assert_eq!(name, &read.name);
            prop_assert_eq!(dims, &read.dims);
            prop_assert_eq!(ty.id(), read.ggml_type_id);
            prop_assert_eq!(*offset, read.offset);
        }
    }
}
