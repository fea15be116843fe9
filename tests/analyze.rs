//! `analyze`: the figures of a model whose figures are known, and of one that lies on disk in another way.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[expect(unreachable_pub, reason = "tests share it")]
#[path = "support/stopping.rs"]
mod stopping;

use std::fs;
use std::path::Path;
use std::process::Command;

use modelpress_engine::observe::Silent;
use modelpress_engine::report::TensorReport;
use modelpress_engine::tensor::{DType, encode_dense};
use modelpress_engine::{
    Analysis, Checkpoint, Datasets, Site, SourceFile, analyze, execute, inspect, plan, presets,
};
use serde_json::{Value, json};
use stopping::Stopping;

const SIDE: usize = 512;

/// Numbers of a Gaussian with this deviation: pairs by Box and Muller over a grid, so that none is left to chance, in an
/// order in which a row is like any other.
fn gaussian(deviation: f64) -> Vec<f32> {
    let at = |i: usize| (i as f64 + 0.5) / SIDE as f64;
    (0..SIDE * SIDE)
        .map(|n| n * 104_729 % (SIDE * SIDE))
        .map(|n| {
            let radius = (-2.0 * at(n / SIDE).ln()).sqrt();
            (deviation * radius * (2.0 * std::f64::consts::PI * at(n % SIDE)).cos()) as f32
        })
        .collect()
}

/// A bfloat16 checkpoint of these matrices.
fn checkpoint(folder: &Path, tensors: &[(&str, Vec<f32>)]) -> Checkpoint {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, values) in tensors {
        let begin = data.len();
        assert!(encode_dense(DType::BF16, values, &mut data), "finite");
        let entry = json!({"dtype": "BF16", "shape": [SIDE, values.len() / SIDE], "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    fs::write(folder.join("model.safetensors"), bytes).expect("writes");
    let config = json!({"architectures": ["Matrices"], "model_type": "matrices", "torch_dtype": "bfloat16"});
    fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    inspect(&SourceFile::from_path(folder).expect("is there")).expect("opens")
}

/// Two Gaussian matrices, one of them again under another name, one of zeros and two outliers.
fn known(folder: &Path) -> Checkpoint {
    let (wide, narrow) = (gaussian(0.04), gaussian(0.01));
    let mut sparse = vec![0.0; SIDE * SIDE];
    (sparse[7], sparse[9]) = (1.0, -2.0);
    checkpoint(
        folder,
        &[
            ("a.weight", wide.clone()),
            ("b.weight", narrow),
            ("c.weight", wide),
            ("d.weight", sparse),
        ],
    )
}

fn of_known() -> Analysis {
    let folder = tempfile::tempdir().expect("temp dir");
    analyze(&known(folder.path()), &Silent).expect("analyzes")
}

#[test]
fn known_matrices_have_known_figures() {
    let analysis = of_known();
    let [a, b, c, d] = &analysis.tensors[..] else {
        unreachable!("four tensors: {}", analysis.tensors.len());
    };
    for (tensor, deviation) in [(a, 0.04), (b, 0.01)] {
        assert!((tensor.std / deviation - 1.0).abs() < 0.01, "{tensor:?}");
        assert!(
            tensor.excess_kurtosis.expect("it varies").abs() < 0.05,
            "{tensor:?}"
        );
        assert!(
            tensor.non_gaussian_bits.expect("it varies").abs() < 0.1,
            "{tensor:?}"
        );
        assert_eq!(tensor.outliers, 0);
        assert_eq!(tensor.spectrum.as_ref().expect("a matrix").full_rank, SIDE);
    }
    // The figures do not know how large the numbers are; a duplicate has its original's.
    let rank = |tensor: &modelpress_engine::analyze::TensorAnalysis| {
        tensor.spectrum.as_ref().expect("a matrix").effective_rank
    };
    assert!((rank(a) / rank(b) - 1.0).abs() < 0.01 && rank(a) == rank(c));
    // Two numbers in one row.
    assert!((rank(d) - 1.0).abs() < 1e-6, "{d:?}");
    // Four times the deviation is two bits.
    let entropy = |tensor: &modelpress_engine::analyze::TensorAnalysis| {
        tensor.gaussian_entropy_bits.expect("it varies")
    };
    assert!((entropy(a) - entropy(b) - 2.0).abs() < 1e-3);
    assert_eq!(
        (a.duplicate_of.as_ref(), c.duplicate_of.as_deref()),
        (None, Some("a.weight"))
    );
    let zeros = (SIDE * SIDE - 2) as f64 / (SIDE * SIDE) as f64;
    assert_eq!((d.sparsity, d.outliers, d.range), (zeros, 2, Some([-2.0, 1.0])));
    assert!((d.dynamic_range_db.expect("two numbers") - 6.0206).abs() < 1e-3);
    assert!(
        d.symbol_entropy_bits < 0.001 && d.non_gaussian_bits > Some(1.0),
        "{d:?}"
    );
}

#[test]
fn the_model_has_the_sums_of_its_tensors() {
    let analysis = of_known();
    let model = &analysis.model;
    let parameters = 4 * (SIDE * SIDE) as u64;
    assert_eq!((model.parameters, model.bytes), (parameters, 2 * parameters));
    assert_eq!(
        (model.memory.fp32_bytes, model.memory.int4_bytes),
        (4 * parameters, parameters / 2)
    );
    assert_eq!(model.duplicate_bytes, 2 * (SIDE * SIDE) as u64);
    let compute = model.compute.as_ref().expect("it is said");
    assert_eq!(
        (compute.active_parameters, compute.flops_per_token),
        (parameters, 2 * parameters)
    );
    let bits: f64 = analysis
        .tensors
        .iter()
        .map(|tensor| tensor.symbol_entropy_bits * tensor.parameters as f64)
        .sum();
    assert_eq!(model.lossless_bytes, Some((bits / 8.0).ceil() as u64));
    assert!(model.lossless_bytes < Some(model.bytes));
    let bound = &model.gaussian_bound;
    assert!(
        bound.windows(2).all(|pair| pair[1].mse < pair[0].mse),
        "{bound:?}"
    );
    // Where every source is above the water, a bit more is a quarter of the error.
    let at = |rate: f64| {
        bound
            .iter()
            .find(|point| point.bits_per_weight == rate)
            .expect("a rate")
    };
    assert!((at(7.0).mse / at(8.0).mse - 4.0).abs() < 1e-6, "{bound:?}");
}

/// What is said of a preset is what its job does: bytes to the byte, the error as near as a sample can tell.
#[test]
fn presets_come_out_as_foretold() {
    let folder = tempfile::tempdir().expect("temp dir");
    let tensors = [("a.weight", gaussian(0.04)), ("b.weight", gaussian(0.01))];
    let model = checkpoint(folder.path(), &tensors);
    let analysis = analyze(&model, &Silent).expect("analyzes");
    let told: Vec<_> = analysis.presets.iter().filter(|told| !told.calibrated).collect();
    assert!(told.len() >= 6, "{told:?}");
    let refused = analysis.refused_presets.iter().map(|refusal| &refusal.preset);
    let mut all: Vec<&String> = analysis
        .presets
        .iter()
        .map(|told| &told.preset)
        .chain(refused)
        .collect();
    let known = presets::names().len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), known);
    for told in told {
        let recipe = presets::find(&told.preset).expect("a preset");
        let plan = plan(&recipe, &model, &Datasets::new()).expect("plans");
        let out = tempfile::tempdir().expect("temp dir");
        let scratch = out.path().join("scratch");
        let site = Site::on_cpu(out.path(), &scratch);
        let outcome = execute(&plan, &model, &Datasets::new(), &site, &Silent).expect("executes");
        let written = outcome.artifacts[0].planned();
        assert_eq!(
            told.bytes,
            written.map(|file| file.bytes).sum::<u64>(),
            "{told:?}"
        );
        let sum = |figure: fn(&TensorReport) -> f64| -> f64 {
            let of = |tensor: &TensorReport| tensor.parameters as f64 * figure(tensor);
            outcome.report.tensors.iter().map(of).sum()
        };
        let snr = 10.0 * (sum(|tensor| tensor.mean_square) / sum(|tensor| tensor.mse)).log10();
        let foretold = told.snr_db.expect("something is lost");
        assert!((snr - foretold).abs() < 0.2, "{snr}: {told:?}");
        assert_eq!(told.flops_per_token, 4 * (SIDE * SIDE) as u64, "{told:?}");
        // Formats pad, and some store zeros that need not be.
        let read = told.bytes_per_token as f64 / told.weight_bytes as f64;
        assert!((0.95..=1.0).contains(&read), "{told:?}");
        // A Gaussian source: nothing comes nearer than its bound.
        assert!(told.gap_db > Some(0.0), "{told:?}");
    }
}

#[test]
fn layers_that_are_nearly_the_same_are_found() {
    let folder = tempfile::tempdir().expect("temp dir");
    let base = gaussian(0.04);
    let near: Vec<f32> = base
        .iter()
        .zip(gaussian(0.04).iter().rev())
        .map(|(a, b)| a + 0.1 * b)
        .collect();
    let other: Vec<f32> = base.iter().rev().copied().collect();
    let names = [
        "model.layers.0.up.weight",
        "model.layers.1.up.weight",
        "model.layers.2.up.weight",
    ];
    let model = checkpoint(
        folder.path(),
        &[(names[0], base), (names[1], other), (names[2], near)],
    );
    let found = analyze(&model, &Silent).expect("analyzes").near_layers;
    let [pair] = &found[..] else {
        unreachable!("one pair: {found:?}");
    };
    assert_eq!((pair.tensor.as_str(), pair.like.as_str()), (names[0], names[2]));
    assert!(
        (pair.relative_distance - 0.1).abs() < 0.02 && pair.cosine > 0.99,
        "{pair:?}"
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = tempfile::tempdir().expect("temp dir");
    let model = known(folder.path());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let analysis = pool.expect("threads").install(|| analyze(&model, &Silent));
        serde_json::to_string(&analysis.expect("analyzes")).expect("writes")
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("temp dir");
    let error = analyze(&known(folder.path()), &Stopping).expect_err("told to stop");
    assert_eq!(error.code, "cancelled");
}

#[test]
fn the_command_prints_a_table_or_every_figure() {
    let folder = tempfile::tempdir().expect("temp dir");
    let model = known(folder.path());
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .arg("analyze")
            .arg(folder.path())
            .args(more)
            .output()
            .expect("runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let table = run(&[]);
    for part in [
        "c.weight = a.weight",
        "lossless bound",
        "Gaussian bound",
        "1,048,576 weights",
        "to bound  preset",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let analysis = analyze(&model, &Silent).expect("analyzes");
    assert_eq!(
        run(&["--json"]).trim_end(),
        serde_json::to_string(&analysis).expect("writes")
    );
}
