//! Zeros in files: left out where that is smaller, back in their places when read, and counted as what they are.

use super::*;
use crate::formats::packed::unpack_to;
use crate::tensor::TensorInfo;

/// Magnitude pruning with these options, into one format.
fn pruned(options: &Value, format: &Value) -> Value {
    json!({"stages": [{"technique": "magnitude", "options": options}], "formats": ["safetensors", format]})
}

fn sparse(form: &str) -> Value {
    json!({"format": "compressed-tensors", "options": {"sparsity": form}})
}

/// Runs a recipe into a folder.
fn job(small: &Small, recipe: &Value) -> (TempDir, Outcome) {
    let plan = small.plan(recipe, &Datasets::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let site = Site::on_cpu(out.path(), &scratch);
    let outcome = execute(&plan, &small.model, &Datasets::new(), &site, &Silent).unwrap();
    (out, outcome)
}

fn opened(folder: &Path) -> Checkpoint {
    inspect(&SourceFile::from_path(folder).unwrap()).unwrap()
}

/// The weights of an artifact, as they lie in its file; whole, some are refused as quantized already.
fn weights(artifact: &Path) -> Checkpoint {
    opened(&artifact.join("model.safetensors"))
}

/// The bytes of a tensor as the file has them.
fn bytes(model: &Checkpoint, name: &str) -> (TensorInfo, Vec<u8>) {
    let info = model.tensors.iter().find(|t| t.name == name);
    let info = info.unwrap_or_else(|| panic!("there is no {name}")).clone();
    let file = std::fs::read(&model.files[info.file].path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let at = &header[name]["data_offsets"];
    let begin = file.len() - data_length(&header) + at[0].as_u64().unwrap() as usize;
    let bytes = file[begin..begin + info.bytes as usize].to_vec();
    (info, bytes)
}

fn data_length(header: &Value) -> usize {
    let ends = header.as_object().unwrap().values();
    let ends = ends.filter_map(|entry| entry["data_offsets"][1].as_u64());
    ends.max().unwrap() as usize
}

/// What a reader of masks makes of a layer, told without our kernels.
fn made_dense(model: &Checkpoint, module: &str) -> Vec<u8> {
    let part = |suffix: &str| bytes(model, &format!("{module}.{suffix}"));
    let (info, values) = part("compressed");
    let width = info.bytes as usize / info.elements();
    let numbers = |bytes: &[u8]| -> Vec<usize> {
        let numbers = bytes.chunks(8);
        numbers
            .map(|n| u64::from_le_bytes(n.try_into().unwrap()) as usize)
            .collect()
    };
    let shape = numbers(&part("shape").1);
    let (mask, cols) = (part("bitmask").1, shape[1]);
    let mut values = values.chunks(width);
    let mut dense = Vec::new();
    for at in 0..shape[0] * cols {
        let (row, column) = (at / cols, at % cols);
        let kept = mask[row * cols.div_ceil(8) + column / 8] >> (column % 8) & 1 == 1;
        let zero = vec![0; width];
        dense.extend_from_slice(if kept { values.next().unwrap() } else { &zero });
    }
    assert_eq!(values.next(), None, "{module}: as many values as bits");
    dense
}

fn pruned_layers(outcome: &Outcome) -> Vec<String> {
    let pruned = outcome.report.tensors.iter().filter(|t| t.zero_ratio > 0.1);
    pruned.map(|t| t.name.clone()).collect()
}

#[test]
fn sparse_checkpoints_hold_what_the_dense_one_does() {
    for (options, form) in [
        (json!({"pattern": "2:4"}), "sparse-24-bitmask"),
        (json!({"pattern": "1:4"}), "sparse-24-bitmask"),
        (json!({"pattern": "2:4"}), "sparse-bitmask"),
        (json!({"sparsity": 0.7, "scope": "row"}), "sparse-bitmask"),
        (json!({"sparsity": 0.33}), "sparse-bitmask"),
    ] {
        let small = Small::new("llama_gqa_tied");
        let (out, outcome) = job(&small, &pruned(&options, &sparse(form)));
        let dense = weights(&out.path().join("safetensors"));
        let masked = weights(&out.path().join("compressed-tensors"));
        let layers = pruned_layers(&outcome);
        assert!(layers.len() >= 7, "{form}");
        for name in &layers {
            let module = name.strip_suffix(".weight").unwrap();
            let (_, right) = bytes(&dense, name);
            assert_eq!(made_dense(&masked, module), right, "{form} {options} {name}");
            assert!(
                masked.tensors.iter().all(|t| t.name != *name),
                "{name} is not stored twice"
            );
        }
        let others = dense.tensors.iter().filter(|t| !layers.contains(&t.name));
        for tensor in others {
            assert_eq!(bytes(&dense, &tensor.name).1, bytes(&masked, &tensor.name).1);
        }
        let config = std::fs::read(out.path().join("compressed-tensors/config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let said = &config["quantization_config"]["sparsity_config"];
        assert_eq!(said["format"], form);
        let structure = if form == "sparse-bitmask" {
            "unstructured"
        } else {
            "2:4"
        };
        assert_eq!(said["sparsity_structure"], structure);
    }
}

#[test]
fn a_mask_of_two_of_four_has_two_of_every_four() {
    let small = Small::new("llama_gqa_tied");
    let (out, outcome) = job(
        &small,
        &pruned(&json!({"pattern": "1:4"}), &sparse("sparse-24-bitmask")),
    );
    let masked = weights(&out.path().join("compressed-tensors"));
    for name in pruned_layers(&outcome) {
        let module = name.strip_suffix(".weight").unwrap();
        let (info, mask) = bytes(&masked, &format!("{module}.bitmask"));
        let halves = mask.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        assert!(halves.into_iter().all(|half| half.count_ones() == 2), "{name}");
        let (values, _) = bytes(&masked, &format!("{module}.compressed"));
        assert_eq!(values.shape, [info.shape[0], info.shape[1] * 4]);
        assert_eq!(bytes(&masked, &format!("{module}.shape")).0.shape, [2, 1]);
    }
}

#[test]
fn what_no_sparse_checkpoint_holds_is_refused_when_planned() {
    let small = Small::new("llama_gqa_tied");
    let none = Datasets::new();
    let at = "/formats/1/options/sparsity".to_owned();
    for (options, form) in [
        (json!({}), "sparse-24-bitmask"),
        (json!({"pattern": "4:8"}), "sparse-24-bitmask"),
        (json!({"scope": "global"}), "sparse-bitmask"),
    ] {
        let recipe = pruned(&options, &sparse(form));
        let refusal = small.refusal(&recipe, &none);
        assert_eq!(refusal, (at.clone(), "format_cannot_hold"), "{options} {form}");
    }
    let mut rounded = pruned(&json!({"pattern": "2:4"}), &sparse("sparse-24-bitmask"));
    let stages = rounded["stages"].as_array_mut().unwrap();
    stages.push(json!({"technique": "rtn", "options": {"group_size": 16}}));
    assert_eq!(small.refusal(&rounded, &none), (at.clone(), "format_cannot_hold"));
    let untouched = json!({"stages": [], "formats": ["safetensors", sparse("sparse-24-bitmask")]});
    assert_eq!(small.refusal(&untouched, &none), (at, "format_cannot_hold"));
    let unknown = pruned(&json!({"pattern": "2:4"}), &sparse("2:4"));
    assert_eq!(small.refusal(&unknown, &none).1, "invalid_option");
    let gpt2 = Small::new("gpt2");
    let unstructured = pruned(&json!({}), &sparse("sparse-bitmask"));
    assert_eq!(gpt2.refusal(&unstructured, &none).1, "format_cannot_hold");
    let dense = pruned(&json!({"pattern": "2:4"}), &sparse("dense"));
    assert_eq!(
        small.refusal(&dense, &none),
        ("/formats/1".into(), "format_cannot_hold")
    );
}

/// A tied LLaMA whose weights are large enough that a mask pays.
fn large() -> Small {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::create_dir(&path).unwrap();
    let mut file = File::default();
    let (rows, cols) = (256, 512);
    let mut state = 7u32;
    let values: Vec<u8> = (0..rows * cols)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A byte of mantissa and some exponents.
            ((state >> 16) as u16 & 0x81ff | 0x3c00).to_le_bytes()
        })
        .collect();
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        file.add(&name, "BF16", &[rows, cols], values.iter().copied());
    }
    file.write(&path);
    let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]});
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let model = opened(&path);
    Small { folder, model }
}

#[test]
fn packed_files_leave_zeros_out_and_give_them_back() {
    let small = large();
    let mut sizes = Vec::new();
    for options in [
        json!({"sparsity": 0.05}),
        json!({}),
        json!({"pattern": "2:4"}),
        json!({"sparsity": 0.9}),
    ] {
        let (out, outcome) = job(&small, &pruned(&options, &json!("packed")));
        let folder = out.path().join("unpacked");
        let files = SourceFile::from_path(&out.path().join("packed")).unwrap();
        unpack_to(&files, &folder, &|| false).unwrap();
        let (dense, unpacked) = (weights(&out.path().join("safetensors")), weights(&folder));
        for tensor in &dense.tensors {
            assert!(
                bytes(&dense, &tensor.name).1 == bytes(&unpacked, &tensor.name).1,
                "{options}"
            );
        }
        sizes.push(outcome.report.formats[1].bits_per_weight);
    }
    // Two bits of exponents and eight of signs and mantissas. The larger half has one bit of exponents: 9 / 2 bits, and one
    // for each place. The larger two of four have 1.6, and places log₂ 6 bits for four. A tenth, of the highest exponent
    // alone, has 6.7, and places 0.47.
    let [few, half, two_four, most] = sizes[..] else {
        panic!()
    };
    assert!(few > 9.0, "{few}");
    assert!((5.5..5.65).contains(&half), "{half}");
    assert!((5.44..5.6).contains(&two_four) && two_four < half, "{two_four}");
    assert!((1.13..1.3).contains(&most), "{most}");
}

#[test]
fn sizes_on_disk_and_in_memory_are_told_apart() {
    let small = large();
    let stored = small.model.tensor_bytes();
    for format in [json!("packed"), sparse("sparse-24-bitmask")] {
        let recipe = pruned(&json!({"pattern": "2:4"}), &format);
        let plan = small.plan(&recipe, &Datasets::new()).unwrap();
        let (_out, outcome) = job(&small, &recipe);
        let [dense, other] = &outcome.report.formats[..] else {
            panic!()
        };
        assert_eq!((dense.weight_bytes, dense.memory_bytes), (stored, stored));
        assert_eq!(other.memory_bytes, stored, "{format}");
        assert!(other.weight_bytes * 10 < other.memory_bytes * 6, "{format}");
        assert_eq!(plan.formats[1].memory_bytes, stored);
    }
    let mut rounded = pruned(&json!({"pattern": "2:4"}), &json!("packed"));
    rounded["formats"] = json!(["compressed-tensors"]);
    let stages = rounded["stages"].as_array_mut().unwrap();
    stages.push(json!({"technique": "rtn", "options": {"group_size": 64}}));
    let plan = small.plan(&rounded, &Datasets::new()).unwrap();
    assert!(plan.formats[0].memory_bytes * 3 < stored);
    assert_eq!(plan.formats[0].memory_bytes, plan.formats[0].weight_bytes);
}

#[test]
fn a_report_says_what_each_layout_takes() {
    let small = large();
    let (rows, cols) = (512u64, 512u64);
    let n = rows * cols;
    let (_, outcome) = job(&small, &pruned(&json!({"pattern": "2:4"}), &json!("packed")));
    let sizes = outcome.report.sparse.clone().unwrap();
    assert_eq!((sizes.tensors, sizes.parameters, sizes.nonzero), (2, n, n / 2));
    assert_eq!(sizes.dense_bytes, 2 * n);
    assert_eq!(
        (sizes.pattern.as_deref(), sizes.pattern_bytes),
        (Some("2:4"), Some(n + n / 8))
    );
    assert_eq!(sizes.bitmask_bytes, n + n / 8 + 8 * rows);
    // Columns take two bytes, offsets four.
    assert_eq!(sizes.csr_bytes, 2 * n + 4 * (rows + 2));
    assert_eq!(sizes.smallest_bytes, n + n / 8);
    let page = crate::report::html(&outcome.report);
    assert!(page.contains("Sparse storage") && page.contains("2:4, values and indices"));
    let (_, free) = job(&small, &pruned(&json!({"sparsity": 0.99}), &json!("packed")));
    let sizes = free.report.sparse.clone().unwrap();
    assert_eq!((sizes.pattern, sizes.pattern_bytes), (None, None));
    assert_eq!(sizes.smallest_bytes, sizes.csr_bytes);
    let (_, none) = job(&small, &json!({"stages": [], "formats": ["packed"]}));
    assert_eq!(none.report.sparse, None);
}

/// Reports and plans that were stored before anyone counted this are read.
#[test]
fn what_was_stored_before_is_still_read() {
    let small = large();
    let recipe = pruned(&json!({"pattern": "2:4"}), &json!("packed"));
    let plan = small.plan(&recipe, &Datasets::new()).unwrap();
    let mut old = serde_json::to_value(&plan).unwrap();
    for format in old["formats"].as_array_mut().unwrap() {
        format.as_object_mut().unwrap().remove("memory_bytes").unwrap();
    }
    let read: Plan = serde_json::from_value(old).unwrap();
    assert_eq!(read.formats[0].memory_bytes, 0);
    let (_, outcome) = job(&small, &recipe);
    let mut old = serde_json::to_value(&outcome.report).unwrap();
    old.as_object_mut().unwrap().remove("sparse").unwrap();
    for format in old["formats"].as_array_mut().unwrap() {
        format.as_object_mut().unwrap().remove("memory_bytes").unwrap();
    }
    let read: crate::report::Report = serde_json::from_value(old).unwrap();
    assert_eq!((read.formats[1].memory_bytes, read.sparse), (0, None));
}

/// Version 1 had the same records but those of masks.
#[test]
fn packed_files_of_version_1_are_read() {
    let small = Small::new("llama_gqa_tied");
    let (out, _) = job(&small, &json!({"stages": [], "formats": ["packed"]}));
    let path = out.path().join("packed/model.packed");
    let mut file = std::fs::read(&path).unwrap();
    let unpacked = |file: &[u8]| {
        std::fs::write(&path, file).unwrap();
        let files = SourceFile::from_path(&out.path().join("packed")).unwrap();
        unpack_to(&files, &out.path().join("unpacked"), &|| false).map(drop)
    };
    assert_eq!(file[8], 2);
    for (version, is_read) in [(1, true), (0, false), (3, false)] {
        file[8] = version;
        assert_eq!(unpacked(&file).is_ok(), is_read, "{version}");
    }
}
