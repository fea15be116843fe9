//! Blocks with matrices in common through whole jobs: what is equal is stored once, and what is fitted loses less.

use super::*;
use crate::models::layer_of;
use crate::observe::Listening;

const PLAIN: &str = "safetensors";
const TIED: &str = "tied";

fn shared(options: &Value, formats: &Value) -> Value {
    json!({"stages": [{"technique": "share_blocks", "options": options}], "formats": formats,
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn plain(options: &Value) -> Value {
    shared(options, &json!([{"format": PLAIN, "options": {"dtype": "F32"}}]))
}

fn pair() -> Value {
    json!({"runs": [[0, 1]]})
}

fn bytes(model: &Checkpoint, name: &str) -> Vec<u8> {
    let tensor = model.tensors.iter().find(|t| t.name == name);
    let tensor = tensor.unwrap_or_else(|| panic!("no {name}"));
    let mut bytes = vec![0; tensor.bytes as usize];
    model.rows(tensor).unwrap().read_bytes(0, &mut bytes).unwrap();
    bytes
}

/// A llama of so many blocks.
fn deep(blocks: usize) -> Value {
    let mut case = case("llama_gqa_tied");
    let tensors = case["tensors"].as_array().unwrap().clone();
    let (own, mut all): (Vec<Value>, Vec<Value>) = tensors
        .into_iter()
        .filter(|t| !t["name"].as_str().unwrap().contains("layers.1."))
        .partition(|t| t["name"].as_str().unwrap().contains("layers.0."));
    for block in 0..blocks {
        for tensor in &own {
            let name = tensor["name"].as_str().unwrap();
            let mut tensor = tensor.clone();
            tensor["name"] = json!(name.replace("layers.0.", &format!("layers.{block}.")));
            all.push(tensor);
        }
    }
    case["tensors"] = json!(all);
    case["config"]["num_hidden_layers"] = json!(blocks);
    case
}

/// The model with the matrices of block `like` in block `block` too.
fn repeated(case: &Value, block: usize, like: usize) -> Small {
    let (own, other) = (format!(".{block}."), format!(".{like}."));
    Small::of(case, |name, out| {
        let tensors = case["tensors"].as_array().unwrap();
        let tensor = tensors.iter().find(|t| t["name"] == name).unwrap();
        let kind = tensor["kind"].as_str().unwrap();
        if layer_of(name) == Some(block) && (kind == "matrix" || kind == "conv1d") {
            let same = values(&name.replacen(&own, &other, 1), kind, &shape_of(tensor));
            let same = same
                .into_iter()
                .map(|v| f32::from_bits(v.to_bits() & 0xffff_0000));
            out.iter_mut().zip(same).for_each(|(out, v)| *out = v);
        }
    })
}

/// The runs, and the part of the outputs that is lost in each.
fn told(small: &Small, options: &Value, data: &Datasets) -> Vec<(Value, f64)> {
    let plan = small.plan(&plain(options), data).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let heard = Listening::default();
    let site = Site::on_cpu(out.path(), &scratch);
    execute(&plan, &small.model, data, &site, &heard).unwrap();
    let runs = heard.told("blocks").into_iter();
    runs.map(|event| (event["blocks"].clone(), event["error"].as_f64().unwrap()))
        .collect()
}

#[test]
fn equal_blocks_share_without_loss() {
    for family in ["llama_gqa_tied", "qwen2_tied", "gpt2", "bert_classes", "mixtral"] {
        let case = case(family);
        let small = repeated(&case, 1, 0);
        let before = logits(&small.model, &case);
        let data = small.data(&rows(14));
        for fit in ["first", "mean", "least_squares"] {
            let options = json!({"runs": [[0, 1]], "fit": fit});
            let (made, _) = small.made(&plain(&options), &data, PLAIN);
            let after = logits(&made, &case);
            let size = before.iter().map(|v| v.abs()).fold(0.0, f32::max);
            let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) < 1e-3 * size, "{family} {fit}");
        }
    }
}

#[test]
fn matrices_are_there_once_and_all_else_stays_its_own() {
    let small = Small::new("qwen2_tied");
    let data = small.data(&rows(14));
    for (modules, shared_ones) in [("all", 7), ("mlp", 3), ("attention", 4)] {
        let options = json!({"runs": [[0, 1]], "modules": modules});
        let recipe = shared(&options, &json!([PLAIN, TIED]));
        let (whole, outcome) = small.made(&recipe, &data, PLAIN);
        let (tied, _) = small.made(&recipe, &data, TIED);
        let names = |model: &Checkpoint| -> Vec<String> {
            let mut names: Vec<String> = model.tensors.iter().map(|t| t.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&whole), names(&small.model));
        let prefix = "model.shared_blocks.0.";
        let once: Vec<String> = names(&tied)
            .into_iter()
            .filter(|n| n.starts_with(prefix))
            .collect();
        assert_eq!(once.len(), shared_ones, "{modules}");
        assert_eq!(tied.tensors.len(), whole.tensors.len() - shared_ones);
        for name in names(&whole) {
            let Some(module) = name.strip_prefix("model.layers.1.") else {
                continue;
            };
            let first = format!("model.layers.0.{module}");
            let one = format!("{prefix}{module}");
            if once.contains(&one) {
                assert_eq!(bytes(&whole, &name), bytes(&whole, &first), "{name}");
                assert_eq!(bytes(&whole, &name), bytes(&tied, &one), "{name}");
            } else {
                assert_eq!(bytes(&whole, &name), bytes(&small.model, &name), "{name}");
                assert_eq!(bytes(&whole, &name), bytes(&tied, &name), "{name}");
            }
        }
        let config = tied.config.as_ref().unwrap();
        assert_eq!(config["shared_blocks"]["own"], json!([1, 0]));
        assert_eq!(
            config["auto_map"]["AutoModelForCausalLM"],
            "modeling_tied.TiedModel"
        );
        let [plain, tied] = outcome.report.formats.as_slice() else {
            panic!("two formats")
        };
        assert!(tied.weight_bytes < plain.weight_bytes && tied.compression_ratio > 1.02);
        // What is there once counts once.
        assert_eq!(tied.bits_per_weight, 32.0);
    }
}

#[test]
fn the_file_that_loads_it_is_made_of_the_models_own_class() {
    for (family, class, home) in [
        ("gpt2", "GPT2LMHeadModel", "shared_blocks."),
        (
            "bert_classes",
            "BertForSequenceClassification",
            "bert.encoder.shared_blocks.",
        ),
    ] {
        let small = Small::new(family);
        let data = small.data(&rows(14));
        let recipe = shared(&pair(), &json!([TIED]));
        let plan = small.plan(&recipe, &data).unwrap();
        let out = tempfile::tempdir().unwrap();
        let scratch = out.path().join("scratch");
        execute(
            &plan,
            &small.model,
            &data,
            &Site::on_cpu(out.path(), &scratch),
            &Silent,
        )
        .unwrap();
        let file = std::fs::read_to_string(out.path().join("tied/modeling_tied.py")).unwrap();
        assert!(file.contains(&format!("class TiedModel({class}):")), "{file}");
        let made = inspect(&SourceFile::from_path(&out.path().join(TIED)).unwrap()).unwrap();
        assert!(made.tensors.iter().any(|t| t.name.starts_with(home)), "{family}");
    }
}

#[test]
fn a_fit_loses_least_and_the_mean_less_than_the_first() {
    for family in ["llama_gqa_tied", "qwen3", "gpt2", "bert_classes", "mixtral"] {
        let small = Small::new(family);
        let data = small.data(&rows(40));
        let lost = |fit: &str| told(&small, &json!({"runs": [[0, 1]], "fit": fit}), &data)[0].1;
        let (first, mean, fitted) = (lost("first"), lost("mean"), lost("least_squares"));
        assert!(
            fitted < mean && mean < first && fitted > 0.0,
            "{family}: {first} {mean} {fitted}"
        );
    }
}

#[test]
fn those_that_are_near_each_other_share() {
    let case = deep(4);
    let small = repeated(&case, 2, 1);
    let data = small.data(&rows(14));
    for choose in ["errors", "weights"] {
        let found = told(&small, &json!({"keep": 3, "choose": choose}), &data);
        assert_eq!(found.len(), 1, "{choose}");
        assert_eq!(found[0].0, json!([1, 2]), "{choose}");
        assert!(found[0].1 < 1e-6, "{choose}");
    }
    // What comes out of block 3 is what comes out of block 2.
    let small = Small::of(&case, |name, values| {
        if name.contains("layers.3.")
            && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"))
        {
            values.fill(0.0);
        }
    });
    let found = told(
        &small,
        &json!({"keep": 3, "choose": "outputs"}),
        &small.data(&rows(14)),
    );
    assert_eq!(found[0].0, json!([2, 3]));
    // Whichever share, the file is as long as it was planned.
    for fit in ["least_squares", "first"] {
        let options = json!({"ratio": 0.5, "fit": fit});
        small.made(&shared(&options, &json!([TIED])), &small.data(&rows(14)), TIED);
    }
    let (made, _) = small.made(&plain(&json!({"ratio": 0.5})), &small.data(&rows(14)), PLAIN);
    let own = made.config.unwrap()["shared_blocks"]["own"].clone();
    let own: Vec<u8> = serde_json::from_value(own).unwrap();
    assert_eq!((own.len(), own.iter().sum::<u8>()), (4, 2), "{own:?}");
}

#[test]
fn wrong_runs_are_refused_by_name() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let at = |name: &str| format!("/stages/0/options/{name}");
    for runs in [
        json!([]),
        json!([[0]]),
        json!([[1, 0]]),
        json!([[0, 1], [0, 1]]),
        json!([[1, 2]]),
        json!([[0, "1"]]),
        json!([0, 1]),
        json!("all"),
    ] {
        let refused = small.refusal(&plain(&json!({"runs": runs})), &data);
        assert_eq!(refused, (at("runs"), "invalid_option"), "{runs}");
    }
    for (name, value) in [
        ("keep", json!(1)),
        ("ratio", json!(0.5)),
        ("choose", json!("weights")),
    ] {
        let refused = small.refusal(&plain(&json!({"runs": [[0, 1]], name: value})), &data);
        assert_eq!(refused, (at("runs"), "conflicting_options"), "{name}");
    }
    assert_eq!(
        small.refusal(&plain(&json!({"keep": 2})), &data),
        (at("keep"), "nothing_to_cut")
    );
}

/// What a later stage does to each block by itself, no file has once.
#[test]
fn tied_refuses_what_is_not_shared_any_more() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let with = |stage: Value, format: &str| {
        let mut recipe = shared(&pair(), &json!([format]));
        recipe["stages"].as_array_mut().unwrap().push(stage);
        recipe
    };
    let refused = |stage: Value| small.refusal(&with(stage, TIED), &data);
    let at = "/formats/0".to_owned();
    let rtn = json!({"technique": "rtn", "options": {"group_size": 16}});
    assert_eq!(refused(rtn.clone()), (at.clone(), "format_cannot_hold"));
    let wanda = json!({"technique": "wanda"});
    assert_eq!(refused(wanda), (at.clone(), "sharing_lost"));
    let cut = json!({"technique": "prune_neurons", "options": {"ratio": 0.5, "multiple_of": 1}});
    assert_eq!(refused(cut), (at.clone(), "format_cannot_hold"));
    let nothing = json!({"stages": [{"technique": "ggml", "options": {"type": "BF16"}}], "formats": [TIED]});
    assert_eq!(small.refusal(&nothing, &data), (at.clone(), "format_cannot_hold"));
    let experts = Small::new("mixtral");
    let refused = experts.refusal(&shared(&pair(), &json!([TIED])), &experts.data(&rows(14)));
    assert_eq!(refused, (at, "format_cannot_hold"));
    // Other formats write every block out.
    let (made, _) = small.made(&with(rtn, PLAIN), &data, PLAIN);
    let of = |block: usize| bytes(&made, &format!("model.layers.{block}.mlp.up_proj.weight"));
    assert_eq!(of(0), of(1));
}

#[test]
fn a_configuration_that_lies_is_found_out() {
    let case = case("llama_gqa_tied");
    let mut config = case["config"].clone();
    config["shared_blocks"] = json!({"blocks": "model.layers", "modules": ["mlp.up_proj"], "own": [1, 0]});
    let run = |small: Small| {
        let small = small.with_file("config.json", &config.to_string());
        let other = json!({"technique": "magnitude", "targets": ["re:.*down_proj"]});
        small.run(&json!({"stages": [other], "formats": [TIED]}), &Datasets::new())
    };
    assert_eq!(run(Small::of(&case, |_, _| {})).unwrap_err().code, "not_shared");
    let outcome = run(repeated(&case, 1, 0)).unwrap();
    assert!(outcome.report.formats[0].compression_ratio > 1.0);
}
