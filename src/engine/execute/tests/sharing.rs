//! Shared weights and entropy coding through whole jobs: what is packed comes back to the bit.

use super::*;
use crate::formats::packed::unpack_to;
use crate::tensor::Rows;

fn shared(options: &Value, formats: &Value) -> Value {
    json!({"stages": [{"technique": "kmeans", "options": options}], "formats": formats,
        "calibration": {"dataset": "mine", "max_seq_length": 16}})
}

fn tensors(folder: &Path) -> Vec<(String, Vec<u32>)> {
    let model = inspect(&SourceFile::from_path(folder).unwrap()).unwrap();
    let read = |t: &crate::tensor::TensorInfo| {
        let mut values = vec![0.0; t.elements()];
        model.rows(t).unwrap().read(0, &mut values).unwrap();
        (t.name.clone(), values.into_iter().map(f32::to_bits).collect())
    };
    let mut all: Vec<_> = model.tensors.iter().map(read).collect();
    all.sort();
    all
}

/// Runs a recipe into a folder.
fn job(small: &Small, recipe: &Value, data: &Datasets) -> (TempDir, Outcome) {
    let plan = small.plan(recipe, data).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let outcome = execute(
        &plan,
        &small.model,
        data,
        &Site::on_cpu(out.path(), &scratch),
        &Silent,
    )
    .unwrap();
    for (format, report) in plan.formats.iter().zip(&outcome.report.formats) {
        assert!(report.bytes <= format.bytes && (format.at_most || report.bytes == format.bytes));
    }
    (out, outcome)
}

fn unpacked(out: &TempDir) -> Vec<(String, Vec<u32>)> {
    let folder = out.path().join("unpacked");
    let files = SourceFile::from_path(&out.path().join("packed")).unwrap();
    unpack_to(&files, &folder, &|| false).unwrap();
    tensors(&folder)
}

#[test]
fn what_is_packed_comes_back_as_it_was() {
    for family in ["llama_gqa_tied", "mixtral", "bert_classes"] {
        let small = Small::new(family);
        let recipe = json!({"stages": [], "formats": ["packed"]});
        let (out, outcome) = job(&small, &recipe, &Datasets::new());
        assert_eq!(
            unpacked(&out),
            tensors(&small.folder.path().join("model")),
            "{family}"
        );
        let report = &outcome.report.formats[0];
        // Their lower halves are zeros.
        assert!(
            report.compression_ratio > 1.8,
            "{family} {}",
            report.compression_ratio
        );
        assert_eq!(outcome.report.totals.compressed_ratio, 0.0);
    }
}

/// A large tensor of one value takes twenty bytes.
#[test]
fn a_constant_tensor_comes_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::create_dir(&path).unwrap();
    let mut file = File::default();
    file.add(
        "w.weight",
        "F32",
        &[1024, 1024],
        std::iter::repeat_n(0u8, 4 << 20),
    );
    file.write(&path);
    let model = inspect(&SourceFile::from_path(&path).unwrap()).unwrap();
    let small = Small { folder, model };
    let recipe = json!({"stages": [], "formats": ["packed"]});
    let (out, outcome) = job(&small, &recipe, &Datasets::new());
    assert!(outcome.report.formats[0].weight_bytes < 200);
    assert_eq!(unpacked(&out), tensors(&path));
}

#[test]
fn codebooks_are_what_the_dense_weights_hold() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    for options in [
        json!({}),
        json!({"granularity": "tensor"}),
        json!({"n_centroids": 4}),
        json!({"n_centroids": 4, "granularity": "group", "group_size": 16}),
        json!({"n_centroids": 64, "vector_size": 4}),
        json!({"n_centroids": 300, "granularity": "tensor"}),
        json!({"weighting": "hessian"}),
    ] {
        let dense = json!({"format": "safetensors", "options": {"dtype": "F32"}});
        for coder in ["rans", "huffman"] {
            let packed = json!({"format": "packed", "options": {"coder": coder}});
            let (out, outcome) = job(&small, &shared(&options, &json!([dense, packed])), &data);
            let plain = tensors(&out.path().join("safetensors"));
            assert_eq!(unpacked(&out), plain, "{options} {coder}");
            let centroids = options["n_centroids"].as_u64().unwrap_or(16);
            let changed = outcome.report.tensors.iter().filter(|t| t.compressed);
            for tensor in changed {
                let bits = (centroids as f64).log2() / options["vector_size"].as_u64().unwrap_or(1) as f64;
                assert!(tensor.code_entropy_bits > 0.2 * bits && tensor.code_entropy_bits <= bits + 1e-9);
                assert!(tensor.mse > 0.0 || centroids == 300, "{}", tensor.name);
            }
        }
    }
}

/// Prune, share, code: zeros stay zeros.
#[test]
fn deep_compression_keeps_zeros() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let stages = json!([{"technique": "sparsegpt"}, {"technique": "kmeans"}]);
    let recipe = json!({"stages": stages, "formats": ["safetensors", "packed"],
        "calibration": {"dataset": "mine", "max_seq_length": 16}});
    let (out, outcome) = job(&small, &recipe, &data);
    // What is nearer to zero than to any other centroid goes too.
    let zeros = outcome.report.totals.zero_ratio;
    assert!(zeros > 0.495 && zeros < 0.8, "{zeros}");
    let dense = tensors(&out.path().join("safetensors"));
    assert_eq!(unpacked(&out), dense);
    let without = shared(&json!({}), &json!(["packed"]));
    let (_, whole) = job(&small, &without, &data);
    let bits = |outcome: &Outcome| outcome.report.totals.code_entropy_bits;
    assert!(
        bits(&outcome) < bits(&whole) - 0.25,
        "{} {}",
        bits(&outcome),
        bits(&whole)
    );
}

#[test]
fn what_cannot_be_shared_or_packed_is_refused() {
    let small = Small::new("llama_gqa_tied");
    let data = small.data(&rows(14));
    let refused = |options: &Value| small.refusal(&shared(options, &json!(["packed"])), &data);
    let at = |option: &str| format!("/stages/0/options/{option}");
    assert_eq!(
        refused(&json!({"n_centroids": 1})),
        (at("n_centroids"), "invalid_option")
    );
    assert_eq!(
        refused(&json!({"vector_size": 5})),
        (at("vector_size"), "vector_size_does_not_divide")
    );
    assert_eq!(
        refused(&json!({"vector_size": 4, "granularity": "channel"})),
        (at("granularity"), "conflicting_options")
    );
    let rounded =
        json!({"stages": [{"technique": "rtn", "options": {"group_size": 16}}], "formats": ["packed"]});
    assert_eq!(
        small.refusal(&rounded, &data),
        ("/formats/0".into(), "format_cannot_hold")
    );
    let other = shared(&json!({}), &json!(["gguf"]));
    assert_eq!(small.refusal(&other, &data).1, "format_cannot_hold");
}

#[test]
fn a_packed_file_that_is_damaged_is_refused() {
    let small = Small::new("llama_gqa_tied");
    let recipe = json!({"stages": [], "formats": ["packed"]});
    let (out, _) = job(&small, &recipe, &Datasets::new());
    let path = out.path().join("packed/model.packed");
    let right = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let files = SourceFile::from_path(&out.path().join("packed")).unwrap();
        unpack_to(&files, &out.path().join("broken"), &|| false)
            .unwrap_err()
            .code
    };
    let end = right.len();
    let with = |at: usize, by: u8| {
        let mut bytes = right.clone();
        bytes[at] ^= by;
        bytes
    };
    for bytes in [
        right[..20].to_vec(),
        right[..end - 1].to_vec(),
        with(0, 1),
        with(8, 1),
        with(end - 9, 0xff),
        with(end - 16, 0xff),
        with(end - 40, 0x80),
        with(100, 1),
    ] {
        assert_eq!(refused(&bytes), "invalid_packed_file");
    }
}
