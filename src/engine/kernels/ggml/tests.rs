//! Golden vectors made by ggml's own code (`tests/interop/make_ggml_golden.py`), and laws that hold for every type.

use super::*;
use sha2::{Digest as _, Sha256};

const ROWS: usize = 2;
const COLS: usize = 512;

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

/// The generator that the golden file describes.
fn sequence(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as i64
    };
    (0..count)
        .map(|_| {
            let sum: i64 = (0..4).map(|_| next()).sum();
            (sum - (1 << 25)) as f32 / (1 << 24) as f32
        })
        .collect()
}

fn written() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL
        .iter()
        .copied()
        .filter(|ty| ty.is_quantized() && ty.can_quantize())
}

fn quantized(ty: GgmlType, values: &[f32], cols: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let mut blocks = vec![0; values.len() / ty.block_size() * ty.block_bytes()];
    quantize_rows(ty, values, cols, importance, &mut blocks);
    blocks
}

fn read(ty: GgmlType, blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / ty.block_bytes() * ty.block_size()];
    dequantize_rows(ty, blocks, &mut values);
    values
}

fn mse(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        / a.len() as f64
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_type_writes_the_bytes_of_the_reference() {
    let golden = golden();
    let values = sequence(42, ROWS * COLS);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(
        hex(&Sha256::digest(&bytes)),
        golden["input"]["sha256_f32le"].as_str().unwrap()
    );
    let importance: Vec<f32> = sequence(7, COLS).iter().map(|v| v.abs() + 0.125).collect();
    let mut wrong = Vec::new();
    for (name, entry) in golden["types"].as_object().unwrap() {
        let ty = GgmlType::from_name(name).unwrap();
        for (path, weights) in [("plain", None), ("imatrix", Some(&importance[..]))] {
            let expected = &entry[path];
            if expected.is_null() {
                assert!(weights.is_none() && requires_importance(ty), "{name} {path}");
                continue;
            }
            let blocks = quantized(ty, &values, COLS, weights);
            let back = read(ty, &blocks);
            let error = mse(&values, &back);
            let reference = expected["mse"].as_f64().unwrap();
            let first = hex(&blocks[..ty.block_bytes()]);
            let same = hex(&Sha256::digest(&blocks)) == expected["sha256"].as_str().unwrap();
            if !same {
                wrong.push(format!(
                    "{name} {path}: mse {error:e}, reference {reference:e}\n  {first}\n  {}",
                    expected["first_block_hex"].as_str().unwrap()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The inputs that the golden file calls hard, by its rules.
fn hard(case: &str, values: &[f32]) -> Vec<f32> {
    let rule = |(i, v): (usize, &f32)| match case {
        "heavy" => v * v * v,
        "zero_groups" if i / 32 % 3 == 0 => 0.0,
        "zero_blocks" if i / 256 % 2 == 0 => 0.0,
        "constant" => 0.7,
        "ties" => (4.0 * v).round_ties_even(),
        "outliers" if i % 97 == 0 => 1000.0 * v,
        "zero_groups" | "zero_blocks" | "outliers" => *v,
        other => panic!("no rule for {other}"),
    };
    values.iter().enumerate().map(rule).collect()
}

#[test]
fn zeros_ties_outliers_and_columns_that_do_not_matter_give_the_bytes_of_the_reference_too() {
    let golden = golden();
    let values = sequence(42, ROWS * COLS);
    let uneven: Vec<f32> = sequence(7, COLS)
        .iter()
        .enumerate()
        .map(|(i, v)| if i % 3 == 0 { 0.0 } else { v * v })
        .collect();
    let mut wrong = Vec::new();
    for (case, entry) in golden["hard"].as_object().unwrap() {
        let values = hard(case, &values);
        for (name, digests) in entry["sha256"].as_object().unwrap() {
            let ty = GgmlType::from_name(name).unwrap();
            for (path, digest) in digests.as_object().unwrap() {
                let weights = (path == "imatrix").then_some(&uneven[..]);
                let blocks = quantized(ty, &values, COLS, weights);
                if hex(&Sha256::digest(&blocks)) != digest.as_str().unwrap() {
                    wrong.push(format!("{name} {case} {path}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// ggml stores the groups after one of zeros one place too early.
#[test]
fn iq3_s_keeps_its_groups_in_their_places_beside_a_group_of_zeros() {
    let values = hard("zero_groups", &sequence(42, ROWS * COLS));
    let back = read(GgmlType::IQ3_S, &quantized(GgmlType::IQ3_S, &values, COLS, None));
    let power = mse(&values, &vec![0.0; values.len()]);
    assert!(mse(&values, &back) < 0.04 * power);
}

#[test]
fn reading_gives_the_reference_values_to_the_bit() {
    let golden = golden();
    for (name, entry) in golden["types"].as_object().unwrap() {
        let ty = GgmlType::from_name(name).unwrap();
        for path in ["plain", "imatrix"]
            .into_iter()
            .filter(|path| !entry[path].is_null())
        {
            let values = read(ty, &unhex(entry[path]["first_block_hex"].as_str().unwrap()));
            for (i, expected) in entry[path]["dequant_first4"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
            {
                assert_eq!(values[i], expected.as_f64().unwrap() as f32, "{name} {path} {i}");
            }
        }
    }
}

/// Three random blocks of each codebook type, decoded by the `gguf` package (0.19.0).
#[test]
fn codebook_types_are_read_as_the_gguf_package_reads_them() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden-read.json")).unwrap();
    for (name, entry) in golden.as_object().unwrap() {
        let ty = GgmlType::from_name(name).unwrap();
        let values = read(ty, &unhex(entry["blocks"].as_str().unwrap()));
        for (value, expected) in values.iter().zip(entry["first8"].as_array().unwrap()) {
            assert_eq!(*value, expected.as_f64().unwrap() as f32, "{name}");
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(
            hex(&Sha256::digest(&bytes)),
            entry["sha256_f32le"].as_str().unwrap(),
            "{name}"
        );
    }
    assert_eq!(golden.as_object().unwrap().len(), 7);
}

#[test]
fn the_bytes_do_not_depend_on_what_lies_beside_a_row() {
    let values = sequence(3, 4 * 1280);
    let importance: Vec<f32> = sequence(4, 1280).iter().map(|v| v.abs() + 0.01).collect();
    for ty in written() {
        for weights in [None, Some(&importance[..])] {
            let whole = quantized(ty, &values, 1280, weights);
            let rows: Vec<u8> = values
                .chunks(1280)
                .flat_map(|row| quantized(ty, row, 1280, weights))
                .collect();
            assert_eq!(whole, rows, "{ty}");
        }
    }
}

#[test]
fn zeros_constants_and_single_values_come_back() {
    for ty in written() {
        for value in [0.0f32, 1.0, -3.5, 0.01] {
            let values = vec![value; 512];
            let back = read(ty, &quantized(ty, &values, 512, None));
            for v in back {
                let slack = match ty {
                    // Powers of two, or a scale of three mantissa bits.
                    GgmlType::MXFP4 | GgmlType::NVFP4 => 0.35,
                    // Not every vector of eight equal levels is in the codebook.
                    GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ2_S => 0.75,
                    GgmlType::IQ3_XXS | GgmlType::IQ3_S => 0.3,
                    // A k-quant scale of a constant block is 1/63 to 1/4 coarse; constants below zero sit on the min.
                    _ => 0.08,
                };
                assert!(
                    (v - value).abs() <= slack * value.abs().max(1e-3),
                    "{ty} {value} {v}"
                );
            }
        }
    }
}

#[test]
fn more_bits_leave_less_error() {
    let values = sequence(11, 8 * 1024);
    let error = |ty| mse(&values, &read(ty, &quantized(ty, &values, 1024, None)));
    let order = [
        GgmlType::IQ2_XXS,
        GgmlType::IQ2_XS,
        GgmlType::Q2_K,
        GgmlType::IQ2_S,
        GgmlType::IQ3_XXS,
        GgmlType::IQ3_S,
        GgmlType::Q3_K,
        GgmlType::Q4_0,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
        GgmlType::Q8_0,
    ];
    for pair in order.windows(2) {
        assert!(error(pair[0]) > error(pair[1]), "{} {}", pair[0], pair[1]);
    }
}

#[test]
fn codes_are_counted_and_steps_predict_the_error() {
    let values = sequence(5, 64 * 1024);
    for ty in written() {
        let blocks = quantized(ty, &values, 1024, None);
        let mut histogram = vec![0; code_levels(ty)];
        let square_steps = survey_codes(ty, &blocks, &mut histogram);
        assert_eq!(histogram.iter().sum::<u64>(), values.len() as u64, "{ty}");
        assert!(histogram.iter().filter(|n| **n > 0).count() > 1, "{ty}");
        // Uniform rounding inside the range leaves s²/12; a search trades some clipping for a smaller step.
        if ty.bits_per_weight() > 5.0 {
            let predicted = square_steps / values.len() as f64 / 12.0;
            let ratio = mse(&values, &read(ty, &blocks)) / predicted;
            assert!((0.8..1.3).contains(&ratio), "{ty} {ratio}");
        }
    }
}

#[test]
fn any_bytes_can_be_read() {
    let noise: Vec<u8> = sequence(9, 16 * 1024)
        .iter()
        .flat_map(|v| v.to_bits().to_le_bytes())
        .collect();
    for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_quantized()) {
        let blocks = &noise[..noise.len() / ty.block_bytes() * ty.block_bytes()];
        assert_eq!(
            read(ty, blocks).len(),
            blocks.len() / ty.block_bytes() * ty.block_size()
        );
    }
}
