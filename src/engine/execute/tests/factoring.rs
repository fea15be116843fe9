//! Products of narrow matrices through whole jobs.

use super::*;
use crate::tensor::Rows;

fn factored(technique: &str, options: &Value, formats: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}], "formats": formats,
        "calibration": {"dataset": "mine", "max_seq_length": 16}, "evaluation": on(&["kl"])})
}

fn kl(outcome: &Outcome) -> f64 {
    measured(outcome)[0].1
}

const PLAIN: &str = "safetensors";

#[test]
fn whitening_loses_less_than_the_nearest_product() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(40));
    for ratio in [0.3, 0.6, 0.9] {
        let options = json!({"ratio": ratio});
        let loss = |technique: &str, options: &Value| {
            kl(&small
                .run(&factored(technique, options, &json!([PLAIN])), &data)
                .unwrap())
        };
        let (plain, whitened) = (loss("svd", &options), loss("whitened_svd", &options));
        assert!(whitened < plain, "{ratio}: {whitened} {plain}");
        assert!(loss("whitened_svd", &json!({"ratio": ratio, "whitening": "diagonal"})).is_finite());
    }
}

/// Two layers in place of one: their product is what the dense output holds.
#[test]
fn pairs_multiply_out_to_the_dense_weights() {
    let small = Small::new("llama_biases");
    let data = small.data(&rows(14));
    let dense = json!({"format": PLAIN, "options": {"dtype": "F32"}});
    let options = json!({"rank": 8, "tensor_rank": {"12": ["re:.*down_proj"]}});
    let recipe = factored("whitened_svd", &options, &json!([dense, "low-rank"]));
    let plan = small.plan(&recipe, &data).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let outcome = execute(
        &plan,
        &small.model,
        &data,
        &Site::on_cpu(out.path(), &scratch),
        &Silent,
    )
    .unwrap();
    let open = |format: &str| inspect(&SourceFile::from_path(&out.path().join(format)).unwrap()).unwrap();
    let (plain, pairs) = (open(PLAIN), open("low-rank"));
    let values = |model: &Checkpoint, name: &str| -> Option<(Vec<usize>, Vec<f32>)> {
        let info = model.tensors.iter().find(|t| t.name == name)?;
        let mut values = vec![0.0; info.elements()];
        model.rows(info).unwrap().read(0, &mut values).unwrap();
        Some((info.shape.clone(), values))
    };
    let mut seen = 0;
    for info in &plain.tensors {
        let module = info.name.trim_end_matches(".weight");
        let Some((shape, right)) = values(&pairs, &format!("{module}.0.weight")) else {
            continue;
        };
        let (_, left) = values(&pairs, &format!("{module}.1.weight")).unwrap();
        let (rank, cols) = (shape[0], shape[1]);
        assert_eq!(rank, if module.ends_with("down_proj") { 12 } else { 8 });
        let (_, whole) = values(&plain, &info.name).unwrap();
        for (place, expected) in whole.iter().enumerate() {
            let (row, col) = (place / cols, place % cols);
            let product: f32 = (0..rank)
                .map(|k| left[row * rank + k] * right[k * cols + col])
                .sum();
            assert!((product - expected).abs() < 1e-4, "{module}");
        }
        seen += 1;
    }
    assert_eq!(seen, 14);
    assert!(
        values(&pairs, "model.layers.0.self_attn.q_proj.1.bias").is_some(),
        "a bias goes with the second"
    );
    let config = pairs.config.as_ref().unwrap();
    assert_eq!(config["low_rank"]["model.layers.0.self_attn.q_proj"], 8);
    assert_eq!(
        config["auto_map"]["AutoModelForCausalLM"],
        "modeling_low_rank.LowRankModel"
    );
    let file = std::fs::read_to_string(out.path().join("low-rank/modeling_low_rank.py")).unwrap();
    assert!(file.contains("class LowRankModel(LlamaForCausalLM)"));
    assert!(outcome.report.formats[1].weight_bytes < outcome.report.formats[0].weight_bytes);
}

#[test]
fn ranks_that_save_nothing_and_formats_that_hold_no_products_are_refused() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let refused =
        |options: &Value, format: &str| small.refusal(&factored("svd", options, &json!([format])), &data);
    let at = |option: &str| format!("/stages/0/options/{option}");
    assert_eq!(
        refused(&json!({"rank": 500}), PLAIN),
        (at("rank"), "rank_too_large")
    );
    assert_eq!(
        refused(&json!({"rank": 4, "ratio": 0.5}), PLAIN),
        (at("rank"), "conflicting_options")
    );
    assert_eq!(
        refused(&json!({"ratio": 1.5}), PLAIN),
        (at("ratio"), "invalid_option")
    );
    for format in [
        "gguf",
        "compressed-tensors",
        "gptq",
        "awq",
        "bitsandbytes",
        "packed",
    ] {
        assert_eq!(
            refused(&json!({}), format),
            ("/formats/0".into(), "format_cannot_hold"),
            "{format}"
        );
    }
    let mut twice = factored("svd", &json!({}), &json!([PLAIN]));
    twice["stages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"technique": "rtn", "options": {"group_size": 16}}));
    assert_eq!(
        small.refusal(&twice, &data),
        ("/stages/1/targets".into(), "already_quantized")
    );
}
