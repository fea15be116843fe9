//! JSON that was right before something in it was replaced.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Up to four places of a document, each with what stands there instead.
pub(super) fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, Json)>> {
    let odd = prop_oneof![
        prop::sample::select(vec![
            Json::Null,
            json!(true),
            json!(0),
            json!(-1),
            json!(1e300),
            json!(4_294_967_295_u32),
            json!(u64::MAX),
            json!(""),
            json!("BPE"),
            json!("llama3"),
            json!([]),
            json!({}),
            json!([["a", "b"], ["", ""], null]),
            json!({"type": "ByteLevel"}),
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}),
        ]),
        (0_i64..200).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,6}".prop_map(Json::from),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), odd), 1..5)
}

/// The document with the edits made.
pub(super) fn mutated(mut json: Json, edits: Vec<(prop::sample::Index, Json)>) -> Json {
    for (place, odd) in edits {
        let mut pointers = Vec::new();
        collect(&json, String::new(), &mut pointers);
        let pointer = place.get(&pointers);
        if let Some(value) = json.pointer_mut(pointer) {
            *value = odd;
        }
    }
    json
}

fn collect(json: &Json, at: String, pointers: &mut Vec<String>) {
    match json {
        Json::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{key}"), pointers);
            }
        }
        Json::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                collect(value, format!("{at}/{index}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}
