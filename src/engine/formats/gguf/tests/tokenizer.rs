//! Whole tokenizers, made by hand, and what their keys become.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::formats::gguf::mutate::{edits, mutated};

/// A byte-level tokenizer of six tokens: four merged or single, two added.
fn byte_level() -> TokenizerFiles {
    let json = json!({
        "added_tokens": [
            {"id": 4, "content": "<|end|>", "special": true},
            {"id": 5, "content": "hello\u{2581}there", "special": false}
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE", "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "\u{120}ab": 3},
            "merges": [["a", "b"], ["\u{120}", "ab"]]
        }
    });
    let config =
        json!({"bos_token": null, "eos_token": {"content": "<|end|>"}, "chat_template": "{{ messages }}"});
    TokenizerFiles {
        tokenizer_json: Some(json),
        tokenizer_config: Some(config),
        ..Default::default()
    }
}

/// A sentencepiece-like `tokenizer.json`.
fn sentencepiece() -> Json {
    json!({
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": true},
            {"id": 1, "content": "<s>", "special": true}
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}
        ]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
        ]},
        "model": {
            "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "he": 3, "\u{2581}the": 4, "\u{2581}t": 5,
                      "\u{2581}": 6, "t": 7, "h": 8, "e": 9},
            "merges": ["\u{2581} t", "h e", "\u{2581}t he"]
        }
    })
}

fn keys_for(files: &TokenizerFiles, vocab_size: u32, config: &Json) -> Result<Metadata, String> {
    let target = Target {
        vocab_size,
        config,
        generation_config: None,
        pre: None,
    };
    convert(files, &target).map_err(|error| error.to_string())
}

fn keys(files: &TokenizerFiles, vocab_size: u32) -> Result<Metadata, String> {
    keys_for(files, vocab_size, &json!({}))
}

fn tokens(metadata: &Metadata) -> Vec<String> {
    let list = metadata.get_texts("tokenizer.ggml.tokens").unwrap();
    list.iter()
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
        .collect()
}

#[test]
fn byte_level_bpe_becomes_gpt2_padded_to_the_embedding() {
    let metadata = keys(&byte_level(), 7).unwrap();
    assert_eq!(metadata.get_str("tokenizer.ggml.model"), Some("gpt2"));
    assert_eq!(metadata.get_str("tokenizer.ggml.pre"), Some("gpt-2"));
    assert_eq!(
        tokens(&metadata),
        ["a", "b", "ab", "\u{120}ab", "<|end|>", "hello there", "[PAD6]"]
    );
    assert_eq!(
        metadata.get_i32s("tokenizer.ggml.token_type"),
        Some(&[1, 1, 1, 1, 3, 4, 5][..])
    );
    let merges = metadata.get_texts("tokenizer.ggml.merges").unwrap();
    assert_eq!(
        merges.iter().collect::<Vec<_>>(),
        [&b"a b"[..], "\u{120} ab".as_bytes()]
    );
    assert_eq!(metadata.get("tokenizer.ggml.scores"), None);
    assert_eq!(metadata.get_u32("tokenizer.ggml.eos_token_id"), Some(4));
    assert_eq!(metadata.get("tokenizer.ggml.bos_token_id"), None);
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_bos_token"), Some(false));
    assert_eq!(
        metadata.get_str("tokenizer.chat_template"),
        Some("{{ messages }}")
    );
}

#[test]
fn merges_are_read_in_both_spellings_and_keep_their_spaces() {
    let mut files = byte_level();
    let json = files.tokenizer_json.as_mut().unwrap();
    json["model"]["merges"] = json!(["a b", ["a b", "c"]]);
    let metadata = keys(&files, 6).unwrap();
    let merges = metadata.get_texts("tokenizer.ggml.merges").unwrap();
    assert_eq!(
        merges.iter().collect::<Vec<_>>(),
        [&b"a b"[..], "a\u{120}b c".as_bytes()]
    );
    for bad in [
        json!("ab"),
        json!("a b c"),
        json!(["a"]),
        json!(["", "b"]),
        json!(7),
    ] {
        files.tokenizer_json.as_mut().unwrap()["model"]["merges"] = json!(["a b", bad]);
        let error = keys(&files, 6).unwrap_err();
        assert_eq!(
            error,
            format!("tokenizer.json model.merges[1] must be a pair of pieces, got {bad}")
        );
    }
}

#[test]
fn sentencepiece_bpe_gets_scores_in_the_order_of_its_merges() {
    let files = TokenizerFiles {
        tokenizer_json: Some(sentencepiece()),
        ..Default::default()
    };
    let config = json!({"bos_token_id": 1});
    let metadata = keys_for(&files, 11, &config).unwrap();
    assert_eq!(metadata.get_str("tokenizer.ggml.model"), Some("llama"));
    assert_eq!(metadata.get_str("tokenizer.ggml.pre"), Some("default"));
    assert_eq!(metadata.get("tokenizer.ggml.merges"), None);
    assert_eq!(
        metadata.get_i32s("tokenizer.ggml.token_type"),
        Some(&[2, 3, 6, 1, 1, 1, 1, 1, 1, 1, 5][..])
    );
    // he is merged second, ▁the third, ▁t first; single characters follow
    assert_eq!(
        metadata.get_f32s("tokenizer.ggml.scores"),
        Some(&[0.0, 0.0, 0.0, -1.0, -2.0, 0.0, -3.0, -4.0, -5.0, -6.0, -10_000.0][..])
    );
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_bos_token"), Some(true));
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_space_prefix"), Some(true));
    assert_eq!(metadata.get_u32("tokenizer.ggml.bos_token_id"), Some(1));
}

#[test]
fn a_metaspace_step_says_whether_there_is_a_leading_space() {
    for (scheme, expected) in [("first", true), ("always", true), ("never", false)] {
        let mut json = sentencepiece();
        json["normalizer"] = Json::Null;
        json["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme});
        let mut files = TokenizerFiles {
            tokenizer_json: Some(json),
            ..Default::default()
        };
        assert_eq!(
            keys(&files, 10)
                .unwrap()
                .get_bool("tokenizer.ggml.add_space_prefix"),
            Some(expected)
        );
        files.tokenizer_config = Some(json!({"add_prefix_space": !expected}));
        assert_eq!(
            keys(&files, 10)
                .unwrap()
                .get_bool("tokenizer.ggml.add_space_prefix"),
            Some(!expected)
        );
    }
}

#[test]
fn special_ids_come_from_the_first_file_that_names_them() {
    let mut files = byte_level();
    let config = json!({"eos_token_id": 0, "bos_token_id": [1, 2], "pad_token_id": 99, "unk_token_id": 2});
    let id = |files: &TokenizerFiles, role: &str| {
        keys_for(files, 6, &config)
            .unwrap()
            .get_u32(&format!("tokenizer.ggml.{role}_token_id"))
    };
    assert_eq!(id(&files, "eos"), Some(4), "the text in tokenizer_config.json");
    assert_eq!(
        id(&files, "bos"),
        Some(1),
        "the first id of a list in config.json"
    );
    assert_eq!(id(&files, "unknown"), Some(2));
    assert_eq!(id(&files, "padding"), None, "an id outside of the vocabulary");
    files.tokenizer_config = None;
    files.special_tokens_map = Some(json!({"eos_token": "ab"}));
    assert_eq!(id(&files, "eos"), Some(2), "the text in special_tokens_map.json");
    files.special_tokens_map = None;
    assert_eq!(id(&files, "eos"), Some(0), "the id in config.json");
    let (config, generation) = (json!({}), json!({"eos_token_id": [3, 4]}));
    let target = Target {
        vocab_size: 6,
        config: &config,
        generation_config: Some(&generation),
        pre: None,
    };
    let metadata = convert(&files, &target).unwrap();
    assert_eq!(
        metadata.get_u32("tokenizer.ggml.eos_token_id"),
        Some(3),
        "generation_config.json last"
    );
}

#[test]
fn flags_come_from_the_config_before_the_template() {
    let mut files = byte_level();
    let bos = json!({"SpecialToken": {"id": "<|end|>"}});
    let text = json!({"Sequence": {"id": "A"}});
    files.tokenizer_json.as_mut().unwrap()["post_processor"] = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [bos, text, bos]}
    ]});
    let metadata = keys(&files, 6).unwrap();
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_bos_token"), Some(true));
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_eos_token"), Some(true));
    files.tokenizer_config = Some(json!({"add_bos_token": false, "add_eos_token": false}));
    let metadata = keys(&files, 6).unwrap();
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_bos_token"), Some(false));
    assert_eq!(metadata.get_bool("tokenizer.ggml.add_eos_token"), Some(false));
}

#[test]
fn chat_templates_are_one_or_many() {
    let mut files = byte_level();
    files.tokenizer_config = Some(json!({"chat_template": [
        {"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}
    ]}));
    let metadata = keys(&files, 6).unwrap();
    assert_eq!(metadata.get_str("tokenizer.chat_template"), Some("D"));
    assert_eq!(metadata.get_str("tokenizer.chat_template.tool_use"), Some("T"));
    let names = metadata.get_texts("tokenizer.chat_templates").unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), [&b"tool_use"[..]]);
    files.tokenizer_config = None;
    files.chat_template = Some("J".into());
    assert_eq!(
        keys(&files, 6).unwrap().get_str("tokenizer.chat_template"),
        Some("J")
    );
    files.tokenizer_config = Some(json!({"chat_template": 1}));
    keys(&files, 6).unwrap_err();
}

#[test]
fn a_vocabulary_that_would_not_load_is_refused() {
    let change = |change: &dyn Fn(&mut Json), vocab_size| {
        let mut files = byte_level();
        change(files.tokenizer_json.as_mut().unwrap());
        keys(&files, vocab_size).unwrap_err()
    };
    assert_eq!(
        change(&|_| {}, 5),
        "id of token \"hello\u{2581}there\" must be less than vocab_size = 5 of config.json, got 5"
    );
    assert_eq!(
        change(&|json| json["model"]["vocab"]["b"] = json!(0), 6),
        "token 0 must be one text, got \"a\" and \"b\""
    );
    assert_eq!(
        change(&|json| json["added_tokens"][0]["content"] = json!("ab"), 6),
        "token 4 must be a text that token 2 does not have, got \"ab\""
    );
    assert_eq!(
        change(&|json| json["model"]["vocab"]["b"] = json!(-1), 6),
        "tokenizer.json model.vocab[\"b\"] must be a token id, got -1"
    );
    assert_eq!(
        change(&|_| {}, u32::MAX),
        "gguf vocab_size of config.json is 4294967295: the limit is 16777216"
    );
}

#[test]
fn other_kinds_are_refused_by_field() {
    let refusal = |json: Json| {
        keys(
            &TokenizerFiles {
                tokenizer_json: Some(json),
                ..Default::default()
            },
            10,
        )
        .unwrap_err()
    };
    assert_eq!(
        refusal(json!({"model": {"type": "Unigram", "vocab": []}})),
        "tokenizer.json model.type = Unigram cannot be converted to gguf: \
         expected BPE that is byte-level, or BPE with byte_fallback"
    );
    let mut json = sentencepiece();
    json["normalizer"] = json!({"type": "NFKC"});
    assert_eq!(
        refusal(json),
        "tokenizer.json normalizer = {\"type\":\"NFKC\"} cannot be converted to gguf: \
         expected only Prepend and Replace of a space by U+2581"
    );
    let mut json = byte_level().tokenizer_json.unwrap();
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]});
    assert_eq!(
        refusal(json),
        "tokenizer.json normalizer = {\"type\":\"Lowercase\"} cannot be converted to gguf: expected none or NFC"
    );
    assert_eq!(
        keys(&TokenizerFiles::default(), 1).unwrap_err(),
        "no tokenizer.json or tokenizer.model in the checkpoint, which a gguf needs for its tokenizer"
    );
}

#[test]
fn the_name_of_the_pre_tokenizer_can_be_given() {
    let mut files = byte_level();
    let json = files.tokenizer_json.as_mut().unwrap();
    json["pre_tokenizer"] =
        json!({"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, {"type": "ByteLevel"}]});
    assert!(keys(&files, 6).unwrap_err().contains("options.tokenizer_pre"));
    let config = json!({});
    let target = Target {
        vocab_size: 6,
        config: &config,
        generation_config: None,
        pre: Some("falcon"),
    };
    assert_eq!(
        convert(&files, &target).unwrap().get_str("tokenizer.ggml.pre"),
        Some("falcon")
    );
}

#[test]
fn files_are_read_by_name_and_bad_json_says_which() {
    let get = |name| Ok::<_, GgufError>((name == "tokenizer_config.json").then(|| b"{\"a\":1}".to_vec()));
    let files = TokenizerFiles::read(get).unwrap();
    assert_eq!(files.config("a"), &json!(1));
    assert!(files.tokenizer_json.is_none());
    let error = TokenizerFiles::read(|_| Ok::<_, GgufError>(Some(b"{".to_vec())))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("tokenizer.json must be json, got EOF"),
        "{error}"
    );
}

#[test]
fn a_broken_tokenizer_is_not_called_a_broken_gguf() {
    let mut files = byte_level();
    files.tokenizer_json.as_mut().unwrap()["model"]["vocab"] = json!([]);
    let target = Target {
        vocab_size: 10,
        config: &json!({}),
        generation_config: None,
        pre: None,
    };
    assert_eq!(convert(&files, &target).unwrap_err().code(), "invalid_tokenizer");
}

proptest! {
    #[test]
    fn a_tokenizer_is_converted_or_refused(
        json in prop_oneof![Just(byte_level().tokenizer_json.unwrap()), Just(sentencepiece())],
        edits in edits(),
        config in edits_of_the_config(),
        size in prop::sample::select(vec![0_u32, 1, 6, 10, 40]),
    ) {
        let mut files = byte_level();
        files.tokenizer_json = Some(mutated(json, edits));
        files.tokenizer_config = Some(config);
        if let Ok(keys) = keys_for(&files, size, &json!({"bos_token_id": 1, "eos_token_id": [2, 3]})) {
            prop_assert_eq!(keys.get_texts("tokenizer.ggml.tokens").map(crate::formats::gguf::value::TextList::len), Some(size as usize));
            prop_assert_eq!(keys.get_i32s("tokenizer.ggml.token_type").map(<[i32]>::len), Some(size as usize));
            for (key, value) in keys.iter().filter(|(key, _)| key.ends_with("_token_id")) {
                prop_assert!(value.as_u64().is_some_and(|id| id < u64::from(size)), "{}", key);
            }
        }
    }
}

fn edits_of_the_config() -> impl Strategy<Value = Json> {
    edits().prop_map(|edits| mutated(byte_level().tokenizer_config.unwrap(), edits))
}
