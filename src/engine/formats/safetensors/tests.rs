//! Headers that are broken, hostile or odd.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parse(json: &str, len: u64) -> Parsed<Vec<TensorInfo>> {
    parse_header(json.as_bytes(), len)
}

#[test]
fn hostile_headers_are_refused_by_name() {
    for (json, len, want) in [
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
            8,
            "does not take",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            4,
            "spans 0..8 of 4",
        ),
        (
            r#"{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}"#,
            8,
            "unknown dtype",
        ),
        (
            r#"{"a":{"dtype":"Q4_K","shape":[256],"data_offsets":[0,144]}}"#,
            144,
            "unknown dtype",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            8,
            "does not take",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            8,
            "no shape",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
            "listed twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
            3,
            "overlaps",
        ),
        ("[]", 0, "not valid"),
        ("{} x", 0, "not valid"),
    ] {
        let error = parse(json, len).unwrap_err();
        assert!(error.contains(want), "{json}: {error}");
    }
}

#[test]
fn odd_entries_are_refused_by_name() {
    for (json, len, want) in [
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"shape":[1]}}"#,
            1,
            "tensor a has shape twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
            "1 data bytes before tensor a",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            9,
            "the last 8 bytes belong to no tensor",
        ),
        (
            r#"{"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}}"#,
            1,
            "no dtype",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}"#,
            1,
            "no shape",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
            1,
            "no data_offsets",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}"#,
            1,
            "9 dimensions",
        ),
        (r#"{"a":[]}"#, 0, "an object for tensor a"),
        (r#"{"":{}}"#, 0, "empty name"),
        (r#"{"a\u001b[31m":{}}"#, 0, "control character"),
    ] {
        let error = parse(json, len).unwrap_err();
        assert!(error.contains(want), "{json}: {error}");
    }
}

#[test]
fn long_texts_are_not_echoed() {
    let long = "N".repeat(5000);
    for header in [
        json!({&long: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
        json!({"a": {"dtype": &long, "shape": [0], "data_offsets": [0, 0]}}),
    ] {
        let error = parse(&header.to_string(), 0).unwrap_err();
        assert!(error.len() < 300 && error.contains('…'), "{error}");
    }
}

#[test]
fn a_million_tensors_are_not_taken_in() {
    let entries: Vec<String> = (0..=MAX_TENSORS)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    let error = parse(&format!("{{{}}}", entries.join(",")), 0).unwrap_err();
    assert!(error.contains("more than 262144 tensors"), "{error}");
}

/// Numbers where things go wrong, in JSON.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0u64..9).prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => prop::sample::select(vec!["-1", "1e3", "null", "[]", "18446744073709551615", "4294967296", "0.5", "\"4\""])
            .prop_map(str::to_owned),
    ]
}

fn entry() -> impl Strategy<Value = String> {
    let list = |most| prop::collection::vec(number(), 0..most).prop_map(|n| n.join(","));
    let dtype = prop::sample::select(vec!["U8", "BF16", "F32", "F64", "Q8_0", "X"]);
    (dtype, list(4), list(4)).prop_map(|(dtype, shape, at)| {
        format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{at}]}}"#)
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, len: u64) {
        let _ = parse_header(&bytes, len);
    }

    #[test]
    fn what_is_accepted_covers_the_data(
        entries in prop::collection::vec(("[a-c]", entry()), 0..4),
        len in prop_oneof![0u64..40, any::<u64>()],
    ) {
        let members: Vec<String> = entries.iter().map(|(name, entry)| format!(r#""{name}":{entry}"#)).collect();
        let Ok(tensors) = parse(&format!("{{{}}}", members.join(",")), len) else { return Ok(()) };
        let mut end = 0;
        for tensor in &tensors {
            prop_assert_eq!(tensor.offset, end);
            let elements: usize = tensor.shape.iter().product();
            prop_assert_eq!(tensor.bytes, (elements * tensor.dtype.row_bytes(1).unwrap_or(1)) as u64);
            end += tensor.bytes;
        }
        prop_assert!(tensors.is_empty() || end == len);
    }

    #[test]
    fn a_valid_header_is_accepted(sizes in prop::collection::vec(0usize..50, 1..6)) {
        let mut at = 0;
        let mut header = serde_json::Map::new();
        for (i, size) in sizes.iter().enumerate() {
            header.insert(format!("t{i}"), json!({"dtype": "F32", "shape": [size, 1], "data_offsets": [at, at + 4 * size]}));
            at += 4 * size;
        }
        let tensors = parse(&serde_json::Value::Object(header).to_string(), at as u64);
        prop_assert_eq!(tensors.map(|t| t.len()), Ok(sizes.len()));
    }
}
