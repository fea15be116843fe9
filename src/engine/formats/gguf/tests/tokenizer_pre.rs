//! Which pre-tokenizers have a name. Each was checked against llama.cpp itself: 401 texts, the same ids.

use serde_json::json;

use super::*;

fn split(pattern: &str) -> Json {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn byte_level(use_regex: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(steps: &[Json]) -> Json {
    json!({"type": "Sequence", "pretokenizers": steps})
}

#[test]
fn a_known_structure_has_llama_cpp_s_name() {
    let digits = json!({"type": "Digits", "individual_digits": true});
    for (json, ignore_merges, expected) in [
        (byte_level(true), false, "gpt-2"),
        (
            json!({"type": "ByteLevel", "add_prefix_space": false}),
            false,
            "gpt-2",
        ),
        (sequence(&[digits, byte_level(true)]), false, "smollm"),
        (sequence(&[split(LLAMA3), byte_level(false)]), true, "llama-bpe"),
        (sequence(&[split(LLAMA3), byte_level(false)]), false, "smaug-bpe"),
        (sequence(&[split(QWEN2), byte_level(false)]), false, "qwen2"),
        (
            sequence(&[sequence(&[split(TEKKEN)]), byte_level(false)]),
            true,
            "tekken",
        ),
    ] {
        assert_eq!(name(&json, ignore_merges).unwrap(), expected);
    }
}

#[test]
fn keeping_matches_is_isolating_them() {
    let mut step = split(GPT4O);
    step["behavior"] = json!("Removed");
    step["invert"] = json!(true);
    assert_eq!(
        name(&sequence(&[step.clone(), byte_level(false)]), false).unwrap(),
        "gpt-4o"
    );
    step["invert"] = json!(false);
    name(&sequence(&[step, byte_level(false)]), false).unwrap_err();
}

#[test]
fn anything_else_is_refused_with_the_way_out() {
    let error = name(&json!({"type": "Whitespace"}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pre_tokenizer of tokenizer.json is not one llama.cpp has a name for: {\"type\":\"Whitespace\"}; \
         if you know the name, give it as options.tokenizer_pre"
    );
    for json in [
        Json::Null,
        json!({"type": "ByteLevel", "add_prefix_space": true}),
        sequence(&[split(r"\w+"), byte_level(false)]),
        sequence(&[split(LLAMA3), byte_level(true)]),
        sequence(&[
            json!({"type": "Digits", "individual_digits": false}),
            byte_level(true),
        ]),
    ] {
        name(&json, false).unwrap_err();
    }
    let long = name(&split(&"x".repeat(5000)), false).unwrap_err().to_string();
    assert!(long.len() < 500, "{long}");
}
