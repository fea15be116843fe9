//! A second look at a tensor whose sums are no numbers or whose error is enormous.
//!
//! Owns: telling weights that are broken, weights that their new form cannot hold, and weights that are only large
//! from each other. Must not know: techniques, formats.
//! Invariant: nothing with an infinity or a NaN in it is accepted that was finite before, and no weight that the
//! network computes with may be one.

use crate::error::{Error, Result};
use crate::plan::TensorPlan;
use crate::tensor::{Rows, try_fold_chunks};

/// Scales are often float16, whose largest number is 65504: below this nothing can have overflowed.
const LARGE: f32 = 50_000.0;

/// What was seen, in double precision.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) signal: f64,
    pub(super) error: f64,
    pub(super) worst: f32,
    largest: f32,
}

/// Sums of squares below this may have lost some: those of single precision end at 1e-38.
const SMALL: f64 = 1e-26;

/// Whether these sums call for a second look.
pub(super) fn is(signal: f64, error: f64, worst: f32) -> bool {
    let overflowed = !signal.is_finite() || !error.is_finite() || worst > LARGE;
    overflowed || signal < SMALL || (worst > 0.0 && error < SMALL)
}

/// Looks at every weight and what it became.
pub(super) fn look(tensor: &TensorPlan, source: &dyn Rows, after: &dyn Rows) -> Result<Seen> {
    let cols = source.cols();
    // A table of masks may hold infinities; passed through as it is, it is nobody's error.
    let forgiven = tensor.steps.is_empty() && !tensor.is_known();
    let parts = try_fold_chunks(source, |first, values| {
        let mut back = vec![0.0; values.len()];
        after.read(first, &mut back)?;
        let mut seen = Seen::default();
        for (i, (value, became)) in values.iter().zip(&back).enumerate() {
            let at = || first * cols + i;
            if !value.is_finite() {
                if forgiven {
                    continue;
                }
                return Err(broken(at(), *value));
            }
            if !became.is_finite() {
                return Err(lost(tensor, &format!("element {} is {value:e}", at())));
            }
            let error = (value - became).abs();
            seen.signal += f64::from(*value).powi(2);
            seen.error += f64::from(error).powi(2);
            seen.worst = seen.worst.max(error);
            seen.largest = seen.largest.max(value.abs());
        }
        Ok(seen)
    })?;
    let total = parts.into_iter().fold(Seen::default(), |a, b| Seen {
        signal: a.signal + b.signal,
        error: a.error + b.error,
        worst: a.worst.max(b.worst),
        largest: a.largest.max(b.largest),
    });
    // Rounding, even to two bits and with clipping, leaves a third of the largest weight.
    if total.worst > LARGE && total.worst >= 0.9 * total.largest {
        return Err(lost(tensor, &format!("weights reach {:e}", total.largest)));
    }
    Ok(total)
}

fn broken(at: usize, value: f32) -> Error {
    Error::numeric(
        "non_finite_values",
        format!("element {at} is {value}: compression needs finite weights"),
    )
}

fn lost(tensor: &TensorPlan, what: &str) -> Error {
    Error::numeric(
        "value_overflow",
        format!(
            "{what}, which {} cannot hold: its scales overflow",
            tensor.kind.label()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::{Range, Spec, quantize};
    use crate::kernels::{float8, ggml};
    use crate::report::measure;
    use crate::tensor::{DType, GgmlType, MemoryRows};
    use crate::weight::{Activations, Block, Dense, Granularity, Kind, Weight};
    use serde_json::json;

    fn plan(role: &str, kind: Kind, changed: bool) -> TensorPlan {
        let steps = if changed {
            vec![crate::plan::Step {
                stage: 0,
                kind,
                rotation: None,
                sparsity: None,
            }]
        } else {
            Vec::new()
        };
        let plan = json!({"name": "w", "role": role, "shape": [2, 256], "source_dtype": DType::F32,
            "source_bytes": 2048, "steps": steps, "kind": kind});
        serde_json::from_value(plan).unwrap()
    }

    /// Small weights, and one that the test chooses.
    fn weights(odd: f32) -> Vec<f32> {
        let mut values: Vec<f32> = (0..512)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 1000.0)
            .collect();
        values[300] = odd;
        values
    }

    fn code(result: Result<crate::report::TensorReport>) -> &'static str {
        result.map_or_else(|e| e.code, |_| "fine")
    }

    fn untouched(role: &str, odd: f32) -> &'static str {
        let values = weights(odd);
        let rows = MemoryRows {
            values: &values,
            cols: 256,
        };
        let dense = Weight::Dense(Dense {
            rows: 2,
            cols: 256,
            dtype: DType::F32,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
        let tensor = plan(role, Kind::Dense { dtype: DType::F32 }, false);
        code(measure(&tensor, &rows, &dense))
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused_also_where_nothing_changes() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(untouched("norm", odd), "non_finite_values");
            assert_eq!(untouched("token_embedding", odd), "non_finite_values");
            assert_eq!(untouched("other", odd), "fine");
        }
        assert_eq!(untouched("norm", 3e38), "fine");
    }

    fn blocks(ty: GgmlType, odd: f32) -> &'static str {
        let values = weights(odd);
        let rows = MemoryRows {
            values: &values,
            cols: 256,
        };
        let mut blocks = vec![0; 2 * ty.row_bytes(256).unwrap()];
        ggml::quantize_rows(ty, &values, 256, None, &mut blocks);
        let weight = Weight::Block(Block {
            rows: 2,
            cols: 256,
            ggml_type: ty,
            blocks,
        });
        code(measure(
            &plan("linear", Kind::Block { ggml_type: ty }, true),
            &rows,
            &weight,
        ))
    }

    #[test]
    fn blocks_whose_scales_overflow_are_refused() {
        use GgmlType as G;
        for ty in [
            G::Q4_0,
            G::Q4_1,
            G::Q5_0,
            G::Q5_1,
            G::Q8_0,
            G::Q2_K,
            G::Q3_K,
            G::Q4_K,
            G::Q5_K,
            G::Q6_K,
            G::IQ4_NL,
            G::IQ4_XS,
        ] {
            assert_eq!(blocks(ty, 1e38), "value_overflow", "{}", ty.name());
            assert_eq!(blocks(ty, -1e9), "value_overflow", "{}", ty.name());
            assert_eq!(blocks(ty, 1000.0), "fine", "{}", ty.name());
        }
    }

    fn integers(scale_dtype: DType, n_bits: u8, odd: f32) -> (&'static str, Option<f64>) {
        let values = weights(odd);
        let rows = MemoryRows {
            values: &values,
            cols: 256,
        };
        let granularity = Granularity::Group(64);
        let spec = Spec {
            n_bits,
            symmetric: true,
            granularity,
            scale_dtype,
            range: Range::Mse,
            signed_scales: false,
        };
        let kind = Kind::Affine {
            n_bits,
            symmetric: true,
            granularity,
            scale_dtype,
            activations: Activations::None,
            act_order: false,
        };
        let made = quantize(&rows, &spec).map(Weight::Affine);
        let report = made.and_then(|made| measure(&plan("linear", kind, true), &rows, &made));
        let snr = report.as_ref().ok().and_then(|r| r.snr_db);
        (code(report), snr)
    }

    #[test]
    fn integers_whose_scales_overflow_are_refused_and_others_are_measured() {
        for n_bits in [2, 4, 8] {
            let refused = integers(DType::F16, n_bits, 1e9).0;
            assert_eq!(refused, "scale_overflow");
            for (dtype, odd) in [
                (DType::F32, 1e38),
                (DType::F32, -1e38),
                (DType::BF16, 1e38),
                (DType::F16, 60_000.0),
            ] {
                let (code, snr) = integers(dtype, n_bits, odd);
                assert_eq!(code, "fine", "{dtype} {n_bits} {odd}");
                assert!(snr.is_some_and(|snr| snr.is_finite() && snr > 1.0), "{snr:?}");
            }
        }
    }

    #[test]
    fn floats_whose_scales_overflow_are_refused() {
        let values = weights(1e38);
        let rows = MemoryRows {
            values: &values,
            cols: 256,
        };
        let kind = Kind::Float8 {
            granularity: Granularity::Channel,
            scale_dtype: DType::F16,
            activations: Activations::DynamicToken,
        };
        let spec = float8::Spec {
            granularity: Granularity::Channel,
            scale_dtype: DType::F16,
            search: true,
        };
        let made = float8::quantize(&rows, &spec).map(Weight::Float8);
        let report = made.and_then(|made| measure(&plan("linear", kind, true), &rows, &made));
        assert_eq!(code(report), "scale_overflow");
    }
}
