//! Convolutions as several through whole jobs, on a model that no network here runs.

use super::*;
use crate::formats::safetensors::read_header;
use crate::kernels::random::Random;
use crate::tensor::Rows;

/// What batch norms of the model counted: an odd number beyond what f32 holds.
pub(super) const COUNT: i64 = (1 << 53) + 1;

const PLAIN: &str = "safetensors";
const STEM: &str = "resnet.embedder.embedder.convolution";
const FIRST: &str = "resnet.encoder.stages.0.layers.0.layer.0.convolution";
const SECOND: &str = "resnet.encoder.stages.0.layers.0.layer.1.convolution";
const SHORTCUT: &str = "resnet.encoder.stages.0.layers.0.shortcut.convolution";
const ALONE: &str = "resnet.encoder.stages.0.layers.0.dwconv";
const TECHNIQUES: [&str; 5] = [
    "tucker",
    "cp",
    "tensor_train",
    "spatial_svd",
    "depthwise_separable",
];

/// A model with what residual networks have: kernels with and without a bias, one of 1×1, one whose inputs go alone, batch
/// norms that count in integers.
pub(super) fn resnet() -> Value {
    let weight = |module: &str, shape: &[usize]| json!({"name": format!("{module}.weight"), "kind": "matrix", "shape": shape});
    let bias =
        |module: &str, n: usize| json!({"name": format!("{module}.bias"), "kind": "bias", "shape": [n]});
    let mut tensors = vec![
        weight(STEM, &[8, 3, 7, 7]),
        weight(FIRST, &[8, 8, 3, 3]),
        weight(SECOND, &[12, 8, 3, 3]),
        bias(SECOND, 12),
        weight(SHORTCUT, &[12, 8, 1, 1]),
        weight(ALONE, &[12, 1, 3, 3]),
        weight("classifier.1", &[5, 16]),
        bias("classifier.1", 5),
    ];
    for norm in [
        "resnet.embedder.embedder",
        "resnet.encoder.stages.0.layers.0.layer.0",
    ] {
        let part = |name: &str, kind: &str, shape: &[usize]| json!({"name": format!("{norm}.normalization.{name}"), "kind": kind, "shape": shape});
        tensors.extend([
            part("weight", "norm", &[8]),
            part("bias", "bias", &[8]),
            part("running_mean", "bias", &[8]),
            part("running_var", "norm", &[8]),
            part("num_batches_tracked", "count", &[]),
        ]);
    }
    json!({"tensors": tensors, "config": {"architectures": ["ResNetForImageClassification"], "model_type": "resnet",
        "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}})
}

fn recipe(technique: &str, options: &Value, formats: &Value) -> Value {
    json!({"stages": [{"technique": technique, "options": options}], "formats": formats})
}

fn none(small: &Small) -> Datasets {
    small.data(&rows(1))
}

fn tensor(model: &Checkpoint, name: &str) -> (Vec<usize>, Vec<f32>) {
    let info = model.tensors.iter().find(|t| t.name == name);
    let info = info.unwrap_or_else(|| panic!("no {name}"));
    let mut values = vec![0.0; info.elements()];
    model.rows(info).unwrap().read(0, &mut values).unwrap();
    (info.shape.clone(), values)
}

/// Channels with rows and columns.
struct Image {
    sides: [usize; 3],
    values: Vec<f64>,
}

/// What a convolution does.
struct Conv<'a> {
    weight: &'a (Vec<usize>, Vec<f32>),
    groups: usize,
    /// Of rows and of columns.
    stride: [usize; 2],
    padding: [usize; 2],
}

/// By its definition.
fn convolved(image: &Image, conv: &Conv<'_>) -> Image {
    let ([channels, rows, cols], (shape, weight)) = (image.sides, conv.weight);
    let [outputs, inner, height, width] = [shape[0], shape[1], shape[2], shape[3]];
    assert_eq!(channels, inner * conv.groups);
    let side = |side: usize, kernel: usize, axis: usize| {
        (side + 2 * conv.padding[axis] - kernel) / conv.stride[axis] + 1
    };
    let sides = [outputs, side(rows, height, 0), side(cols, width, 1)];
    let mut values = Vec::new();
    for at in 0..sides.iter().product() {
        let (o, y, x) = (
            at / (sides[1] * sides[2]),
            at / sides[2] % sides[1],
            at % sides[2],
        );
        let mut sum = 0.0;
        for k in 0..inner * height * width {
            let (i, h, w) = (k / (height * width), k / width % height, k % width);
            let row = (y * conv.stride[0] + h).checked_sub(conv.padding[0]);
            let col = (x * conv.stride[1] + w).checked_sub(conv.padding[1]);
            if let (Some(row), Some(col)) = (row.filter(|r| *r < rows), col.filter(|c| *c < cols)) {
                let channel = o * conv.groups / outputs * inner + i;
                sum += f64::from(weight[o * inner * height * width + k])
                    * image.values[(channel * rows + row) * cols + col];
            }
        }
        values.push(sum);
    }
    Image { sides, values }
}

/// Stride and padding stay on the axes that a layer spans, as the modeling file has it.
#[test]
fn layers_compute_what_the_dense_kernels_do() {
    let small = Small::new("resnet");
    let data = none(&small);
    let mut random = Random::new(7);
    for technique in TECHNIQUES {
        let both = json!([{"format": PLAIN, "options": {"dtype": "F32"}}, "low-rank"]);
        let recipe = recipe(technique, &json!({"ratio": 0.6}), &both);
        let (plain, outcome) = small.made(&recipe, &data, PLAIN);
        let out = plain.files[0].path.parent().and_then(Path::parent).unwrap();
        let several = inspect(&SourceFile::from_path(&out.join("low-rank")).unwrap()).unwrap();
        let told = several.config.as_ref().unwrap()["low_rank"].as_object().unwrap();
        let mut expected = vec![STEM, FIRST, SECOND];
        if technique == "spatial_svd" {
            expected.push(SHORTCUT);
        }
        assert!(
            told.len() == expected.len() && expected.iter().all(|m| told.contains_key(*m)),
            "{technique}"
        );
        for (module, layers) in told {
            let dense = tensor(&plain, &format!("{module}.weight"));
            let sides = [dense.0[1], 9, 10];
            let start = Image {
                sides,
                values: (0..sides.iter().product())
                    .map(|_| random.share() - 0.5)
                    .collect(),
            };
            let (stride, padding) = ([2, 1], [dense.0[2] / 2, dense.0[3] / 2]);
            let conv = Conv {
                weight: &dense,
                groups: 1,
                stride,
                padding,
            };
            let right = convolved(&start, &conv);
            let mut image = start;
            for (place, layer) in layers.as_array().unwrap().iter().enumerate() {
                let weight = tensor(&several, &format!("{module}.{place}.weight"));
                let of = |values: [usize; 2], otherwise| {
                    [0, 1].map(|axis| {
                        if layer["spans"][axis] == true {
                            values[axis]
                        } else {
                            otherwise
                        }
                    })
                };
                assert_eq!(
                    json!([weight.0[0], weight.0[2..]]),
                    json!([layer["channels"], layer["kernel_size"]])
                );
                let conv = Conv {
                    weight: &weight,
                    groups: layer["groups"].as_u64().unwrap() as usize,
                    stride: of(stride, 1),
                    padding: of(padding, 0),
                };
                image = convolved(&image, &conv);
            }
            assert_eq!(image.sides, right.sides, "{technique} {module}");
            let gap = image
                .values
                .iter()
                .zip(&right.values)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(gap < 1e-5, "{technique} {module}: {gap}");
        }
        let bytes = |format: usize| outcome.report.formats[format].weight_bytes;
        assert!(bytes(1) < bytes(0), "{technique}");
        let last = told[SECOND].as_array().unwrap().len() - 1;
        assert_eq!(
            tensor(&several, &format!("{SECOND}.{last}.bias")),
            tensor(&plain, &format!("{SECOND}.bias"))
        );
    }
}

/// Errors are those of the kernels that the layers make, bits those of the layers.
#[test]
fn the_report_tells_the_error_and_the_size_of_what_is_stored() {
    let small = Small::new("resnet");
    let recipe = recipe("tucker", &json!({"rank_in": 3, "rank_out": 4}), &json!([PLAIN]));
    let (made, outcome) = small.made(&recipe, &none(&small), PLAIN);
    let name = format!("{SECOND}.weight");
    let (before, after) = (tensor(&small.model, &name).1, tensor(&made, &name).1);
    let squares = before.iter().zip(&after).map(|(a, b)| f64::from(a - b).powi(2));
    let mse = squares.sum::<f64>() / before.len() as f64;
    let report = outcome.report.tensors.iter().find(|t| t.name == name).unwrap();
    assert!((report.mse / mse - 1.0).abs() < 1e-4, "{} {mse}", report.mse);
    assert_eq!(report.kind, "tucker 3 4");
    let weights = 3 * 8 + 4 * 3 * 9 + 12 * 4;
    assert_eq!(
        report.stored_bits_per_weight,
        f64::from(32 * weights) / f64::from(12 * 8 * 9)
    );
}

#[test]
fn a_share_of_the_parameters_is_kept_to() {
    let small = Small::new("resnet");
    for technique in TECHNIQUES {
        let plan = small
            .plan(
                &recipe(technique, &json!({"ratio": 0.4}), &json!(["low-rank"])),
                &none(&small),
            )
            .unwrap();
        for tensor in plan.tensors.iter().filter(|t| t.kind.is_compressed()) {
            let share =
                tensor.kind.payload_bytes(tensor.rows(), tensor.cols()) as f64 / tensor.source_bytes as f64;
            assert!(
                share <= 0.4 && share > 0.15,
                "{technique} {}: {share}",
                tensor.name
            );
        }
    }
}

#[test]
fn single_modules_have_ranks_of_their_own() {
    let small = Small::new("resnet");
    let kinds = |technique: &str, options: Value| -> Vec<(String, String)> {
        let plan = small
            .plan(&recipe(technique, &options, &json!(["low-rank"])), &none(&small))
            .unwrap();
        let made = plan.tensors.iter().filter(|t| t.kind.is_compressed());
        made.map(|t| (t.module().to_owned(), t.kind.label())).collect()
    };
    let owned = |pairs: [(&str, &str); 3]| pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    assert_eq!(
        kinds(
            "tensor_train",
            json!({"rank_1": 2, "rank_2": 3, "rank_3": 4, "tensor_rank": {"3, 4,5": ["re:.*embedder"]}})
        ),
        owned([
            (STEM, "tensor train 3 4 5"),
            (FIRST, "tensor train 2 3 4"),
            (SECOND, "tensor train 2 3 4")
        ])
    );
    assert_eq!(
        kinds(
            "depthwise_separable",
            json!({"multiplier": 1, "tensor_rank": {"2": [FIRST]}})
        ),
        owned([
            (STEM, "separable ×1"),
            (FIRST, "separable ×2"),
            (SECOND, "separable ×1")
        ])
    );
    // No side has more directions than its channels.
    assert_eq!(
        kinds("tucker", json!({"rank_in": 50, "rank_out": 2})),
        owned([
            (STEM, "tucker 3 2"),
            (FIRST, "tucker 8 2"),
            (SECOND, "tucker 8 2")
        ])
    );
}

#[test]
fn what_is_no_kernel_or_gets_no_smaller_is_refused() {
    let small = Small::new("resnet");
    let refused = |recipe: &Value| small.refusal(recipe, &none(&small));
    let with = |technique: &str, options: Value| refused(&recipe(technique, &options, &json!([PLAIN])));
    let at = |option: &str| format!("/stages/0/options/{option}");
    assert_eq!(with("cp", json!({"rank": 500})), (at("rank"), "rank_too_large"));
    assert_eq!(
        with("cp", json!({"rank": 4, "ratio": 0.5})),
        (at("rank"), "conflicting_options")
    );
    assert_eq!(
        with("tucker", json!({"rank_in": 4})),
        (at("rank_out"), "missing_option")
    );
    assert_eq!(
        with("tucker", json!({"tensor_rank": {"4": [FIRST]}})),
        (at("tensor_rank/4"), "invalid_option")
    );
    assert_eq!(
        with("depthwise_separable", json!({"multiplier": 9})),
        (at("multiplier"), "rank_too_large")
    );
    let targets = "/stages/0/targets".to_owned();
    let on = |technique: &str, module: &str| {
        let mut recipe = recipe(technique, &json!({}), &json!([PLAIN]));
        recipe["stages"][0]["targets"] = json!([module]);
        refused(&recipe)
    };
    assert_eq!(on("spatial_svd", ALONE), (targets.clone(), "not_a_kernel"));
    assert_eq!(on("tucker", SHORTCUT), (targets.clone(), "not_a_kernel"));
    assert_eq!(on("tucker", "classifier.1"), (targets.clone(), "not_a_kernel"));
    assert_eq!(on("tucker", "re:.*shortcut"), (targets.clone(), "no_targets"));
    let mut twice = recipe("tucker", &json!({}), &json!([PLAIN]));
    twice["stages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"technique": "cp"}));
    assert_eq!(refused(&twice), ("/stages/1/targets".into(), "already_quantized"));
    for format in ["compressed-tensors", "gptq", "awq", "bitsandbytes", "packed"] {
        let recipe = recipe("tucker", &json!({}), &json!([format]));
        assert_eq!(
            refused(&recipe),
            ("/formats/0".into(), "format_cannot_hold"),
            "{format}"
        );
    }
    let words = Small::new("llama_gqa_tied");
    let nothing = words.refusal(&recipe("tucker", &json!({}), &json!([PLAIN])), &none(&words));
    assert_eq!(nothing, (targets, "no_targets"));
}

/// config.json of a `RegNet` says what its kernels do not: that they have groups.
#[test]
fn kernels_in_groups_are_left_alone() {
    let mut case = resnet();
    case["config"]["groups_width"] = json!(8);
    let small = Small::of(&case, |_, _| {});
    let plan = small
        .plan(&recipe("spatial_svd", &json!({}), &json!([PLAIN])), &none(&small))
        .unwrap();
    let made: Vec<&str> = plan
        .tensors
        .iter()
        .filter(|t| t.kind.is_compressed())
        .map(crate::plan::TensorPlan::module)
        .collect();
    assert_eq!(made, [STEM, SHORTCUT]);
}

/// Linear layers of the same model, quantized: what is no weight goes along as it is, integers bit for bit.
#[test]
fn integers_of_batch_norms_pass_through_every_format() {
    let small = Small::new("resnet");
    let rtn = json!({"technique": "rtn", "options": {"granularity": "channel"}});
    for (stage, format) in [
        (rtn.clone(), "compressed-tensors"),
        (rtn, PLAIN),
        (json!({"technique": "nf4"}), "bitsandbytes"),
        (json!({"technique": "svd", "options": {"rank": 2}}), "low-rank"),
        (json!({"technique": "tucker"}), "low-rank"),
    ] {
        let recipe = json!({"stages": [stage], "formats": [format]});
        let plan = small
            .plan(&recipe, &none(&small))
            .unwrap_or_else(|e| panic!("{format}: {e:?}"));
        let out = tempfile::tempdir().unwrap();
        let scratch = out.path().join("scratch");
        execute(
            &plan,
            &small.model,
            &none(&small),
            &Site::on_cpu(out.path(), &scratch),
            &Silent,
        )
        .unwrap();
        let path = out.path().join(format).join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let header = read_header(&SourceFile::new("model.safetensors", &path), 0).unwrap();
        let counts: Vec<_> = header
            .iter()
            .filter(|t| t.name.ends_with("num_batches_tracked"))
            .collect();
        assert_eq!(counts.len(), 2, "{format}");
        for count in counts {
            assert_eq!(
                (count.dtype.name(), count.shape.as_slice()),
                ("I64", [].as_slice()),
                "{format}"
            );
            assert_eq!(
                bytes[count.offset as usize..][..8],
                COUNT.to_le_bytes(),
                "{format}"
            );
        }
    }
}
