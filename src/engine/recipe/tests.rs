//! Recipes that are right, nearly right and hostile.

use super::*;
use proptest::prelude::*;

fn refusal(value: &Value) -> Refusal {
    Recipe::from_value(value).unwrap_err().remove(0)
}

#[test]
fn a_preset_is_the_same_recipe_however_it_is_written() {
    let short = Recipe::from_value(&json!("Q4_K_M")).unwrap();
    let long = Recipe::from_yaml("version: 1\npreset: Q4_K_M\nseed: 0\n").unwrap();
    assert_eq!(short.hash(), long.hash());
    assert_eq!(short.formats[0].format, "gguf");
}

#[test]
fn refusals_point_at_the_field() {
    assert_eq!(refusal(&json!("Q9_Z")).pointer, "/preset");
    assert_eq!(refusal(&json!({"preset": "Q4_0", "sed": 1})).pointer, "/sed");
    assert_eq!(
        refusal(&json!({"stages": [{"tecnique": "rtn"}], "formats": ["gguf"]})).pointer,
        "/stages/0/tecnique"
    );
    assert_eq!(
        refusal(&json!({"stages": [{"technique": "rtn"}]})).pointer,
        "/formats"
    );
    assert_eq!(
        refusal(&json!({"preset": "Q4_0", "formats": ["gguf", "gguf"]})).code,
        "duplicate_format"
    );
    assert_eq!(refusal(&json!(4)).code, "wrong_type");
}

#[test]
fn there_is_an_end_to_everything() {
    let stage = |more: Value| {
        let mut stage = json!({"technique": "rtn"});
        stage
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        stage
    };
    let recipe = |stages: Vec<Value>| json!({"stages": stages, "formats": ["safetensors"]});
    let words = |word: &str, n| vec![word.to_owned(); n];
    for (value, pointer, code) in [
        (recipe(vec![stage(json!({})); 65]), "/stages", "too_many"),
        (
            recipe(vec![stage(json!({"ignore": words("a", 10_001)}))]),
            "/stages/0/ignore",
            "too_many",
        ),
        (
            recipe(vec![stage(json!({"targets": words("re:a", 60)})); 2]),
            "/stages/1/targets/40",
            "too_many",
        ),
        (
            json!({"preset": "W4A16", "targets": words("re:a", 101)}),
            "/targets/100",
            "too_many",
        ),
        (
            recipe(vec![stage(
                json!({"targets": ["x", format!("re:{}", "a".repeat(1000))]}),
            )]),
            "/stages/0/targets/1",
            "too_long",
        ),
    ] {
        let refused = refusal(&value);
        assert_eq!(
            (refused.pointer.as_str(), refused.code),
            (pointer, code),
            "{}",
            refused.detail
        );
    }
}

/// JSON that is nearly a recipe.
fn nearly() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "rtn",
        "nf4",
        "ggml",
        "W4A16",
        "Q4_K_M",
        "gguf",
        "safetensors",
        "Linear",
        "re:.*",
        "re:(",
        "lm_head",
        "F16",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..10).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "version",
        "preset",
        "options",
        "targets",
        "ignore",
        "stages",
        "formats",
        "seed",
        "technique",
        "format",
        "n_bits",
        "group_size",
        "dtype",
        "a/b~",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_sent_is_a_recipe_or_refused_at_a_place(value in nearly()) {
        match Recipe::from_value(&value) {
            Ok(recipe) => {
                let spelled = serde_json::to_value(&recipe).unwrap();
                let again: Recipe = serde_json::from_value(spelled).unwrap();
                prop_assert_eq!(again.hash(), recipe.hash());
                prop_assert!(!recipe.stages.is_empty() && !recipe.formats.is_empty());
            }
            Err(refusals) => {
                prop_assert!(!refusals.is_empty());
                for refusal in refusals {
                    prop_assert!(refusal.pointer.is_empty() || refusal.pointer.starts_with('/'));
                }
            }
        }
    }

    #[test]
    fn yaml_and_json_say_the_same(value in nearly()) {
        let (json, yaml) = (Recipe::from_value(&value), Recipe::from_yaml(&value.to_string()));
        prop_assert_eq!(json.map(|r| r.hash()).map_err(|r| r.len()), yaml.map(|r| r.hash()).map_err(|r| r.len()));
    }

    #[test]
    fn no_text_makes_yaml_panic(text in "[a-z0-9:&*!|>{}\\[\\], \n-]{0,80}") {
        let _ = Recipe::from_yaml(&text);
    }
}

#[test]
fn aliases_do_not_grow_without_end() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        text = format!("{text}a{i}: &a{i} [{before}]\n");
    }
    let refused = Recipe::from_yaml(&text).unwrap_err().remove(0);
    assert_eq!(refused.code, "invalid_yaml", "{}", refused.detail);
}

#[test]
fn a_presets_options_can_be_changed_beside_it() {
    let recipe = Recipe::from_value(&json!({"preset": "W4A16", "options": {"group_size": 64}})).unwrap();
    assert_eq!(recipe.stages[0].options["group_size"], 64);
    assert_eq!(recipe.stages[0].options["n_bits"], 4);
}

#[test]
fn a_field_given_twice_is_refused_not_chosen_from() {
    let refused = Recipe::from_yaml(r#"{"preset": "W4A16", "options": {"n_bits": 4, "n_bits": 8}}"#);
    let refusal = refused.unwrap_err().remove(0);
    assert!(refusal.detail.contains("duplicate field `n_bits`"), "{refusal:?}");
}
