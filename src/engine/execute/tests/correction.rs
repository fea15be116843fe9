//! Quantized weights with products beside them through whole jobs.

use super::*;
use crate::tensor::Rows as _;
use crate::weight::NF4_TABLE;

fn corrected(technique: &str, options: &Value, format: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}], "formats": [format],
        "calibration": {"dataset": "mine", "max_seq_length": 16}, "evaluation": on(&["kl"])})
}

fn kl(outcome: &Outcome) -> f64 {
    measured(outcome)[0].1
}

fn dense() -> Value {
    json!({"format": "safetensors", "options": {"dtype": "F32"}})
}

#[test]
fn a_product_makes_up_for_what_codes_lose_and_data_says_for_what_of_it() {
    for name in ["llama_gqa_tied", "qwen2_tied"] {
        let small = Small::new(name);
        let data = small.data(&rows(40));
        let loss = |technique: &str, options: &Value| {
            kl(&small
                .run(&corrected(technique, options, &dense()), &data)
                .unwrap())
        };
        let alone = loss("nf4", &json!({}));
        let (loftq, lqer) = (
            loss("loftq", &json!({"rank": 4})),
            loss("lqer", &json!({"rank": 4})),
        );
        assert!(lqer < loftq && loftq < alone, "{name}: {lqer} {loftq} {alone}");
        let diagonal = loss("lqer", &json!({"rank": 4, "whitening": "diagonal"}));
        assert!(diagonal < alone, "{name}: {diagonal} {alone}");
        let more = loss("lqer", &json!({"rank": 8}));
        assert!(more < lqer, "{name}: {more} {lqer}");
    }
}

/// A file as it was written: names, shapes and bytes.
fn opened(path: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = SourceFile::new("f.safetensors", path.to_owned());
    let infos = crate::formats::safetensors::read_header(&file, 0).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let of = |info: &crate::tensor::TensorInfo| bytes[info.offset as usize..][..info.bytes as usize].to_vec();
    infos
        .iter()
        .map(|info| (info.name.clone(), info.shape.clone(), of(info)))
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// What transformers and PEFT load adds up to the dense weights; the adapter's configuration says how.
#[test]
fn a_base_and_its_adapter_add_up_to_the_dense_weights() {
    let small = Small::new("llama_biases");
    let data = small.data(&rows(14));
    let options = json!({"rank": 3, "tensor_rank": {"5": ["re:.*down_proj"]}});
    let mut recipe = corrected("lqer", &options, &json!("peft"));
    recipe["formats"].as_array_mut().unwrap().push(dense());
    recipe["stages"][0]["ignore"] = json!(["re:.*o_proj", "lm_head"]);
    let alone = json!({"technique": "nf4", "targets": ["re:.*o_proj"]});
    recipe["stages"].as_array_mut().unwrap().push(alone);
    let plan = small.plan(&recipe, &data).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let site = Site::on_cpu(out.path(), &scratch);
    let outcome = execute(&plan, &small.model, &data, &site, &Silent).unwrap();
    let files: Vec<&str> = outcome.artifacts[0].planned().map(|f| f.name.as_str()).collect();
    assert!(files.ends_with(&[
        "model.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors"
    ]));
    let read = |name: &str| opened(&out.path().join(name));
    let (base, adapter) = (
        read("peft/model.safetensors"),
        read("peft/adapter/adapter_model.safetensors"),
    );
    let whole = inspect(&SourceFile::from_path(&out.path().join("safetensors")).unwrap()).unwrap();
    let part = |parts: &[(String, Vec<usize>, Vec<u8>)], name: &str| {
        let found = parts.iter().find(|(own, ..)| own == name)?;
        Some((found.1.clone(), found.2.clone()))
    };
    let (mut seen, mut plain) = (0, 0);
    for info in &whole.tensors {
        let Some((_, absmax)) = part(&base, &format!("{}.absmax", info.name)) else {
            continue;
        };
        let (_, codes) = part(&base, &info.name).unwrap();
        let absmax = floats(&absmax);
        let cols = info.shape[1];
        let value = |i: usize| {
            let code = if i.is_multiple_of(2) {
                codes[i / 2] >> 4
            } else {
                codes[i / 2] & 15
            };
            NF4_TABLE[usize::from(code)] * absmax[i / 64]
        };
        let module = info.name.trim_end_matches(".weight");
        let factor = |which: &str| part(&adapter, &format!("base_model.model.{module}.{which}.weight"));
        let mut expected = vec![0.0; info.elements()];
        whole.rows(info).unwrap().read(0, &mut expected).unwrap();
        let Some((shape, right)) = factor("lora_A") else {
            assert!(module.ends_with("o_proj"));
            assert!((0..expected.len()).all(|i| value(i) == expected[i]), "{module}");
            plain += 1;
            continue;
        };
        let rank = if module.ends_with("down_proj") { 5 } else { 3 };
        let (left_shape, left) = factor("lora_B").unwrap();
        assert_eq!((shape, left_shape), (vec![rank, cols], vec![info.shape[0], rank]));
        let (left, right) = (floats(&left), floats(&right));
        for (i, expected) in expected.iter().enumerate() {
            let (row, col) = (i / cols, i % cols);
            let product: f32 = (0..rank)
                .map(|k| left[row * rank + k] * right[k * cols + col])
                .sum();
            assert!((value(i) + product - expected).abs() < 1e-5, "{module}");
        }
        seen += 1;
    }
    assert_eq!((seen, plain), (12, 2));
    let text = std::fs::read(out.path().join("peft/adapter/adapter_config.json")).unwrap();
    check_adapter(&serde_json::from_slice(&text).unwrap());
}

fn check_adapter(config: &Value) {
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["task_type"], "CAUSAL_LM");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(5), &json!(5)));
    assert_eq!(config["target_modules"].as_array().unwrap().len(), 12);
    let ranks = config["rank_pattern"].as_object().unwrap();
    assert_eq!(ranks.len(), 10);
    assert_eq!(ranks["model.layers.1.self_attn.q_proj"], 3);
    assert_eq!(
        config["rank_pattern"], config["alpha_pattern"],
        "so that every scaling is 1"
    );
}

#[test]
fn more_rounds_are_never_worse_for_the_weights() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let error = |iterations: usize| {
        let options = json!({"rank": 4, "iterations": iterations});
        let outcome = small.run(&corrected("loftq", &options, &dense()), &data).unwrap();
        let made = outcome
            .report
            .tensors
            .iter()
            .filter(|t| t.kind.contains("rank 4"));
        made.map(|t| t.mse).collect::<Vec<f64>>()
    };
    let (once, often) = (error(1), error(6));
    // Factors are rounded to the model's own type behind the last round.
    assert!(once.iter().zip(&often).all(|(a, b)| *b <= a * 1.001));
    assert!(often.iter().sum::<f64>() < 0.99 * once.iter().sum::<f64>());
}

#[test]
fn what_does_not_fit_is_refused_when_planned() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let refused = |recipe: &Value| small.refusal(recipe, &data);
    let with = |options: &Value, format: &str| corrected("loftq", options, &json!(format));
    assert_eq!(
        refused(&with(&json!({"rank": 5000}), "peft")),
        ("/stages/0/options/rank".into(), "rank_too_large")
    );
    for format in [
        "gguf",
        "compressed-tensors",
        "gptq",
        "awq",
        "bitsandbytes",
        "packed",
        "low-rank",
    ] {
        assert_eq!(
            refused(&with(&json!({"rank": 4}), format)),
            ("/formats/0".into(), "format_cannot_hold"),
            "{format}"
        );
    }
    for other in ["nf4", "svd", "rtn"] {
        let options = if other == "rtn" {
            json!({"granularity": "channel"})
        } else {
            json!({})
        };
        let recipe = corrected(other, &options, &json!("peft"));
        assert_eq!(refused(&recipe).1, "format_cannot_hold", "{other}");
    }
    let turned = Small::new("gpt2");
    for (technique, format) in [("loftq", "peft"), ("nf4", "bitsandbytes"), ("svd", "low-rank")] {
        let recipe = corrected(technique, &json!({}), &json!(format));
        assert_eq!(
            turned.refusal(&recipe, &turned.data(&rows(14))),
            ("/formats/0".into(), "format_cannot_hold"),
            "{format}: layers are stored as [in, out]"
        );
    }
    let mixture = Small::new("mixtral");
    let mut experts = with(&json!({"rank": 4}), "peft");
    experts["stages"][0]["ignore"] = json!(["lm_head", "re:.*block_sparse_moe.gate"]);
    assert_eq!(
        mixture.refusal(&experts, &mixture.data(&rows(14))),
        ("/formats/0".into(), "format_cannot_hold")
    );
    let mut embedding = with(&json!({"rank": 4}), "peft");
    embedding["stages"][0]["targets"] = json!(["model.embed_tokens"]);
    assert_eq!(refused(&embedding), ("/formats/0".into(), "format_cannot_hold"));
    let mut twice = with(&json!({"rank": 4}), "peft");
    twice["stages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"technique": "nf4"}));
    assert_eq!(refused(&twice), ("/stages/1/targets".into(), "already_quantized"));
}
