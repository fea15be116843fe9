//! Every writer on a real checkpoint: what it wrote is parsed like an upload and compared with its layout.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use modelpress_engine::formats::gguf::build::header_bytes;
use modelpress_engine::formats::gguf::imatrix::{ImportanceEntry, ImportanceFile};
use modelpress_engine::formats::gguf::value::{Metadata, Value as Field};
use modelpress_engine::formats::{Request, WRITERS, container::Layout, writer};
use modelpress_engine::observe::Silent;
use modelpress_engine::tensor::GgmlType;
use modelpress_engine::{
    Artifact, Checkpoint, Dataset, Datasets, Observer, Plan, Recipe, Site, SourceFile, execute, inspect, plan,
};
use serde_json::{Value, json};
use support::stopping::Stopping;
use tempfile::TempDir;

const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];

/// A LLaMA layer as a Hugging Face folder.
fn hugging_face(folder: &Path) -> Checkpoint {
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), [64, 128])];
    for projection in PROJECTIONS {
        tensors.push((
            format!("model.layers.0.self_attn.{projection}.weight"),
            [128, 128],
        ));
    }
    let tensors: Vec<(&str, [usize; 2])> = tensors
        .iter()
        .map(|(name, shape)| (name.as_str(), *shape))
        .collect();
    fs::write(
        folder.join("model.safetensors"),
        support::models::safetensors(&tensors),
    )
    .expect("writes");
    let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]});
    fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    opened(folder)
}

/// The same with a matrix that a single block shares with nobody.
fn sharing(folder: &Path) -> Checkpoint {
    hugging_face(folder);
    let shared = json!({"blocks": "model.layers", "modules": ["self_attn.q_proj"], "own": [1]});
    let config =
        json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "shared_blocks": shared});
    fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    opened(folder)
}

/// The same as a GGUF.
fn gguf(folder: &Path) -> Checkpoint {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Field::text("llama"));
    let tensors: Vec<_> = ["attn_q", "attn_k", "attn_v", "attn_output"]
        .iter()
        .map(|name| (format!("blk.0.{name}.weight"), vec![128, 128], GgmlType::F32))
        .collect();
    let layout = header_bytes(&metadata, &tensors, 32).expect("a header");
    let mut file = layout.header;
    while (file.len() as u64) < layout.file_len {
        file.extend_from_slice(&((file.len() % 977) as f32 / 500.0 - 1.0).to_le_bytes());
    }
    fs::write(folder.join("model.gguf"), file).expect("writes");
    opened(folder)
}

/// An importance matrix of that GGUF, called `mine`.
fn importance(folder: &Path) -> Datasets {
    let entry = |name: &str| ImportanceEntry {
        name: format!("blk.0.{name}.weight"),
        in_sum2: vec![2.0; 128],
        counts: vec![4.0],
    };
    let file = ImportanceFile {
        entries: ["attn_q", "attn_k", "attn_v", "attn_output"].map(entry).into(),
        ..ImportanceFile::default()
    };
    let path = folder.join("matrix");
    fs::write(&path, file.write().expect("writes")).expect("writes");
    let name = "matrix".to_owned();
    let mut datasets = Datasets::new();
    datasets.insert(
        "mine",
        Dataset::open(&[SourceFile::new(name, path)]).expect("opens"),
    );
    datasets
}

fn opened(folder: &Path) -> Checkpoint {
    inspect(&SourceFile::from_path(folder).expect("lists")).expect("opens")
}

/// A model and a recipe for a writer.
fn work(format: &str, folder: &Path) -> (Checkpoint, Value) {
    let recipe = match format {
        "awq" => json!({"preset": "W4A16_ASYM", "options": {"scale_dtype": "F16"}, "formats": ["awq"]}),
        "bitsandbytes" => json!("nf4"),
        "compressed-tensors" => json!("W4A16_ASYM"),
        "gguf" => return (gguf(folder), json!("Q8_0")),
        "imatrix" => {
            let recipe = json!({"preset": "Q8_0", "options": {"imatrix": "mine"}, "formats": ["imatrix"]});
            return (gguf(folder), recipe);
        }
        "gptq" => json!({"preset": "gptq-rtn", "options": {"scale_dtype": "F16"}}),
        "low-rank" => json!({"stages": [{"technique": "svd"}], "formats": ["low-rank"]}),
        "packed" => json!({"stages": [{"technique": "kmeans"}], "formats": ["packed"]}),
        "peft" => json!({"stages": [{"technique": "loftq", "options": {"rank": 4}}], "formats": ["peft"]}),
        "safetensors" => json!({"preset": "W8A16", "formats": ["safetensors"]}),
        "tied" => {
            let recipe = json!({"stages": [{"technique": "magnitude", "targets": ["re:.*o_proj"]}], "formats": ["tied"]});
            return (sharing(folder), recipe);
        }
        other => panic!("{other} needs a model and a recipe here"),
    };
    (hugging_face(folder), recipe)
}

fn layout(plan: &Plan, model: &Checkpoint) -> Layout {
    let request = Request {
        model,
        tensors: &plan.tensors,
        label: plan.stages[0].label.as_deref(),
        importance: plan.stages[0].importance(),
        squares: None,
        scales: None,
        options: &plan.formats[0].options,
        pointer: "/formats/0",
    };
    let format = writer(&plan.formats[0].format).expect("a writer");
    format.layout(&request).expect("planned")
}

/// What the writer's reader finds in an artifact.
fn check(artifact: &Artifact, layout: &Layout) -> Result<(), String> {
    let sources: Vec<SourceFile> = artifact
        .files
        .iter()
        .map(|file| SourceFile::new(file.name.clone(), file.path.clone()))
        .collect();
    let found = writer(&artifact.format).expect("a writer").reopen(&sources);
    found
        .and_then(|found| layout.check(&found))
        .map_err(|error| error.message)
}

fn replace_first(path: &Path, from: &str, to: &str) {
    let mut bytes = fs::read(path).expect("reads");
    let at = bytes
        .windows(from.len())
        .position(|window| window == from.as_bytes())
        .expect("the name is in the header");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).expect("writes");
}

/// Nothing here needs scratch space of its own.
fn site(out: &Path) -> Site<'_> {
    Site::on_cpu(out, out)
}

/// What says how a sentence encoder pools, and in which order its modules come.
#[test]
fn the_modules_of_a_sentence_encoder_go_along() {
    let folder = TempDir::new().expect("a folder");
    let (source, out) = (folder.path().join("model"), folder.path().join("out"));
    fs::create_dir_all(source.join("1_Pooling")).expect("makes");
    fs::create_dir_all(source.join("onnx")).expect("makes");
    let files = [
        (
            "modules.json",
            r#"[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#,
        ),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#),
        ("config_sentence_transformers.json", "{}"),
        ("onnx/config.json", "{}"),
    ];
    for (name, text) in files {
        fs::write(source.join(name), text).expect("writes");
    }
    let model = hugging_face(&source);
    let recipe = Recipe::from_value(&json!("W8A16")).expect("a recipe");
    let plan = plan(&recipe, &model, &Datasets::new()).expect("plans");
    execute(&plan, &model, &Datasets::new(), &site(&out), &Silent).expect("runs");
    let folder = out.join("compressed-tensors");
    for (name, text) in &files[..3] {
        assert_eq!(fs::read_to_string(folder.join(name)).expect(name), *text);
    }
    assert!(!folder.join("onnx").exists());
}

#[test]
fn every_writer_reads_back_what_it_laid_out_and_notices_what_it_did_not() {
    for format in WRITERS {
        let (source, out) = (
            TempDir::new().expect("temp dir"),
            TempDir::new().expect("temp dir"),
        );
        let (model, recipe) = work(format.name(), source.path());
        let recipe = Recipe::from_value(&recipe).expect("a recipe");
        let datasets = importance(source.path());
        let plan = plan(&recipe, &model, &datasets).expect("plans");
        let outcome = execute(&plan, &model, &datasets, &site(out.path()), &Silent).expect("executes");
        let (layout, artifact) = (layout(&plan, &model), &outcome.artifacts[0]);
        assert_eq!(artifact.format, format.name());
        let entries: Vec<String> = layout.entries().map(|entry| entry.name.clone()).collect();
        assert!(entries.len() >= PROJECTIONS.len(), "{entries:?}");
        assert_eq!(check(artifact, &layout), Ok(()), "{}", format.name());

        let weights = artifact
            .files
            .iter()
            .max_by_key(|file| file.bytes)
            .expect("files");
        let (name, other) = (&entries[0], entries[0].replacen('w', "v", 1));
        replace_first(&weights.path, name, &other);
        let error = check(artifact, &layout).expect_err("another name");
        assert!(error.contains(name) && error.contains(&other), "{error}");

        fs::File::options()
            .write(true)
            .open(&weights.path)
            .and_then(|file| file.set_len(weights.bytes / 2))
            .expect("truncates");
        check(artifact, &layout).expect_err("half a file");
    }
}

#[test]
fn a_name_that_would_be_there_twice_is_refused() {
    let added = [
        ("W4A16", "weight_scale"),
        ("gptq-rtn", "scales"),
        ("nf4", "weight.absmax"),
    ];
    for (preset, suffix) in added {
        let folder = TempDir::new().expect("temp dir");
        let own = format!("a.{suffix}");
        let file = support::models::safetensors(&[("a.weight", [128, 128]), (&own, [1, 4])]);
        fs::write(folder.path().join("model.safetensors"), file).expect("writes");
        fs::write(folder.path().join("config.json"), "{}").expect("writes");
        let options = if preset == "gptq-rtn" {
            json!({"scale_dtype": "F16"})
        } else {
            json!({})
        };
        let recipe = json!({"preset": preset, "options": options});
        let recipe = Recipe::from_value(&recipe).expect("a recipe");
        let refused = plan(&recipe, &opened(folder.path()), &Datasets::new()).expect_err("refused");
        assert_eq!(
            (refused[0].pointer.as_str(), refused[0].code),
            ("/formats/0", "name_clash")
        );
        assert!(refused[0].detail.contains(&own), "{}", refused[0].detail);
    }
}

#[test]
fn one_part_of_a_split_gguf_is_not_taken_for_the_whole() {
    let folder = TempDir::new().expect("temp dir");
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Field::text("llama"));
    metadata.set("split.count", Field::U16(3));
    let tensors = [("blk.0.attn_q.weight".to_owned(), vec![32, 1], GgmlType::F32)];
    let layout = header_bytes(&metadata, &tensors, 32).expect("a header");
    let mut file = layout.header;
    file.resize(layout.file_len as usize, 0);
    fs::write(folder.path().join("m-00001-of-00003.gguf"), file).expect("writes");
    let files = SourceFile::from_path(folder.path()).expect("lists");
    let error = inspect(&files).expect_err("a part");
    assert_eq!(error.code, "split_gguf");
    assert!(
        error.message.contains("one of 3 parts") && error.message.contains("join"),
        "{error}"
    );
}

#[test]
fn a_job_that_fails_says_why() {
    let (source, out) = (
        TempDir::new().expect("temp dir"),
        TempDir::new().expect("temp dir"),
    );
    let model = hugging_face(source.path());
    let recipe = json!({"preset": "W8A16", "formats": ["safetensors"]});
    let recipe = Recipe::from_value(&recipe).expect("a recipe");
    let plan = plan(&recipe, &model, &Datasets::new()).expect("plans");
    let code = |model: &Checkpoint, observer: &dyn Observer| {
        execute(&plan, model, &Datasets::new(), &site(out.path()), observer)
            .expect_err("fails")
            .code
    };
    assert_eq!(code(&model, &Stopping), "cancelled");

    // Where a file shall be there is a folder: the writer fails, not the engine.
    let taken = out.path().join("safetensors/model.safetensors");
    fs::remove_file(&taken).expect("the first try left it");
    fs::create_dir(&taken).expect("made");
    assert_eq!(code(&model, &Silent), "io");
    fs::remove_dir(&taken).expect("removed");

    let path = source.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).expect("writes");
    assert_eq!(code(&opened(source.path()), &Silent), "non_finite_values");
}
