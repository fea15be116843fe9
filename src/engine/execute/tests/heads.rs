//! Key/value heads that become one: what can be taken up elsewhere is not missed.

use super::*;

fn merged(options: &Value) -> Value {
    json!({"stages": [{"technique": "gqa", "options": options}],
        "formats": [{"format": "safetensors", "options": {"dtype": "F32"}}]})
}

/// Root of the squared distance over that of the first.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let gap: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (gap / a.iter().map(|a| square(f64::from(*a))).sum::<f64>()).sqrt()
}

/// The second half of a projection's rows, a factor times the first.
fn repeat(values: &mut [f32], factor: f32) {
    let half = values.len() / 2;
    let (first, second) = values.split_at_mut(half);
    second.iter_mut().zip(first).for_each(|(b, a)| *b = factor * *a);
}

#[test]
fn heads_that_are_alike_become_one_without_loss() {
    for (family, method, factor) in [
        ("llama_gqa_tied", "mean", 1.0),
        ("llama_biases", "rotated", -1.0),
        ("qwen2_tied", "aligned", 0.5),
        ("llama_gqa_tied", "aligned", -3.0),
    ] {
        let case = case(family);
        let small = Small::of(&case, |name, values| {
            if name.contains("k_proj") || name.contains("v_proj") {
                repeat(values, factor);
            }
        });
        let before = logits(&small.model, &case);
        let options = json!({"num_key_value_heads": 1, "method": method});
        let (made, _) = small.made(&merged(&options), &Datasets::new(), "safetensors");
        let lost = distance(&before, &logits(&made, &case));
        assert!(lost < 1e-3, "{family} {method}: {lost}");
        assert_eq!(made.config.as_ref().unwrap()["num_key_value_heads"], 1);
    }
}

#[test]
fn aligned_heads_lose_no_more_than_averaged_ones() {
    for family in ["llama_gqa_tied", "qwen3"] {
        let case = case(family);
        let small = Small::of(&case, |_, _| {});
        let before = logits(&small.model, &case);
        let lost = |method: &str| {
            let options = json!({"num_key_value_heads": 1, "method": method});
            let (made, _) = small.made(&merged(&options), &Datasets::new(), "safetensors");
            distance(&before, &logits(&made, &case))
        };
        let (mean, aligned) = (lost("mean"), lost("aligned"));
        assert!(aligned < mean, "{family}: {aligned} {mean}");
    }
}

#[test]
fn numbers_that_do_not_divide_are_refused() {
    let small = Small::new("llama_gqa_tied");
    let refused =
        |heads: u64| small.refusal(&merged(&json!({"num_key_value_heads": heads})), &Datasets::new());
    assert_eq!(
        refused(2),
        ("/stages/0/options/num_key_value_heads".into(), "bad_groups")
    );
    assert_eq!(refused(3).1, "bad_groups");
    let bert = Small::new("bert_classes");
    let refused = bert.refusal(&merged(&json!({})), &Datasets::new());
    assert_eq!(refused, ("/stages/0/technique".into(), "no_such_structure"));
}
