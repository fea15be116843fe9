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

/// Squared error of the matrices that a stage changed, relative to each, and their parameters as factors or whole.
fn lost(outcome: &Outcome) -> Vec<f64> {
    let made = outcome
        .report
        .tensors
        .iter()
        .filter(|t| t.kind.starts_with("rank"));
    made.map(|t| t.mse / t.mean_square).collect()
}

/// What a job found out is in its report's recipe, which makes the same without looking.
fn spelled_out(small: &Small, recipe: &Value, data: &Datasets) -> Value {
    let (_, outcome) = small.made(recipe, data, "low-rank");
    let plan = small.plan(recipe, data).unwrap();
    assert!(plan.formats[0].at_most && plan.stages[0].is_open);
    assert!(outcome.report.formats[0].bytes <= plan.formats[0].bytes);
    let said = serde_json::to_value(&outcome.report.recipe).unwrap();
    let again = small.plan(&said, data).unwrap();
    assert!(!again.formats[0].at_most);
    assert_eq!(again.formats[0].bytes, outcome.report.formats[0].bytes);
    let (_, once_more) = small.made(&said, data, "low-rank");
    let digests = |outcome: &Outcome| -> Vec<String> {
        let files = outcome.artifacts[0].planned();
        files.map(|f| f.sha256.clone()).collect()
    };
    assert_eq!(digests(&outcome), digests(&once_more));
    said["stages"][0]["options"].clone()
}

#[test]
fn energy_finds_the_least_rank_that_keeps_it() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(20));
    for technique in ["svd", "whitened_svd"] {
        let recipe = |energy: f64| factored(technique, &json!({"energy": energy}), &json!(["low-rank"]));
        let options = spelled_out(&small, &recipe(0.6), &data);
        assert!(options.get("energy").is_none(), "{options}");
        assert!(options["tensor_rank"].as_object().unwrap().len() > 1, "{options}");
        let [some, more] = [0.5, 0.8].map(|energy| kl(&small.run(&recipe(energy), &data).unwrap()));
        assert!(more < some, "{technique}: {more} {some}");
    }
    let outcome = small
        .run(&factored("svd", &json!({"energy": 0.6}), &json!([PLAIN])), &data)
        .unwrap();
    let lost = lost(&outcome);
    assert!(
        !lost.is_empty() && lost.iter().all(|lost| *lost < 0.401),
        "{lost:?}"
    );
    // One rank of a matrix this small is a few percent.
    assert!(lost.iter().all(|lost| *lost > 0.25), "{lost:?}");
    let all = small
        .run(
            &factored("svd", &json!({"energy": 0.999}), &json!([PLAIN])),
            &data,
        )
        .unwrap();
    let kinds: Vec<&str> = all.report.tensors.iter().map(|t| t.kind.as_str()).collect();
    assert!(
        !kinds.iter().any(|kind| kind.starts_with("rank")),
        "factors would be larger: {kinds:?}"
    );
    assert!(kl(&all).abs() < 1e-9);
}

#[test]
fn ranks_that_are_shared_out_lose_less_than_the_same_share_for_each() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(20));
    let parameters = |plan: &Plan| -> usize {
        let of = |t: &crate::plan::TensorPlan| match t.kind {
            crate::weight::Kind::LowRank { rank, .. } => rank * (t.rows() + t.cols()),
            _ if t.steps.is_empty() => 0,
            _ => t.elements(),
        };
        plan.tensors.iter().map(of).sum()
    };
    for technique in ["svd", "whitened_svd"] {
        let recipe = |allocation: &str| {
            let options = json!({"ratio": 0.6, "allocation": allocation});
            factored(technique, &options, &json!([PLAIN]))
        };
        let [uniform, shared] = ["uniform", "loss"].map(|which| small.run(&recipe(which), &data).unwrap());
        let said = serde_json::to_value(&shared.report.recipe).unwrap();
        let plan = small.plan(&said, &data).unwrap();
        let all: usize = plan
            .tensors
            .iter()
            .filter(|t| !t.steps.is_empty())
            .map(crate::plan::TensorPlan::elements)
            .sum();
        assert!(parameters(&plan) as f64 <= 0.6 * all as f64, "{technique}");
        assert!(parameters(&plan) as f64 > 0.55 * all as f64, "{technique}");
        if technique == "svd" {
            let sum = |outcome: &Outcome| lost(outcome).iter().sum::<f64>();
            assert!(sum(&shared) < sum(&uniform));
        }
        let allocated = factored(
            technique,
            &json!({"ratio": 0.6, "allocation": "loss"}),
            &json!(["low-rank"]),
        );
        spelled_out(&small, &allocated, &data);
    }
}

#[test]
fn ways_to_ask_for_ranks_exclude_each_other() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for (options, option) in [
        (json!({"energy": 0.9, "ratio": 0.5}), "ratio"),
        (json!({"energy": 0.9, "rank": 4}), "rank"),
        (json!({"allocation": "loss", "rank": 4}), "allocation"),
        (json!({"allocation": "loss", "energy": 0.9}), "allocation"),
        (
            json!({"tensor_rank": {"4": ["re:.*q_proj"]}, "tensor_ratio": {"0.5": ["re:.*q_proj"]}}),
            "tensor_ratio",
        ),
    ] {
        let refusal = small.refusal(&factored("svd", &options, &json!([PLAIN])), &data);
        assert_eq!(
            refusal,
            (format!("/stages/0/options/{option}"), "conflicting_options")
        );
    }
    let none = factored(
        "svd",
        &json!({"tensor_ratio": {"1.5": ["re:.*q_proj"]}}),
        &json!([PLAIN]),
    );
    assert_eq!(
        small.refusal(&none, &data),
        ("/stages/0/options/tensor_ratio/1.5".into(), "invalid_option")
    );
}

/// The size that a budget allows is shared out by what ranks cost the model's answers.
#[test]
fn a_budget_chooses_ranks() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(40));
    let mut recipe = factored("svd", &json!({}), &json!(["low-rank"]));
    recipe["budget"] = json!({"target_bytes": 1_000_000_000});
    let bounds = small.plan(&recipe, &data).unwrap().budget.unwrap();
    assert!(bounds.smallest_bytes < bounds.largest_bytes);
    let target = bounds.smallest_bytes.midpoint(bounds.largest_bytes);
    recipe["budget"] = json!({"target_bytes": target});
    let outcome = small.run(&recipe, &data).unwrap();
    assert!(outcome.report.formats[0].bytes <= target);
    let found = outcome.report.allocation.as_ref().unwrap();
    assert!(found.held);
    let mut schemes: Vec<&str> = found.tensors.iter().map(|t| t.scheme.as_str()).collect();
    schemes.sort_unstable();
    schemes.dedup();
    assert!(schemes.len() > 2, "{schemes:?}");
    let said = serde_json::to_value(&outcome.report.recipe).unwrap();
    assert!(said["stages"][0]["options"]["tensor_ratio"].is_object());
}
