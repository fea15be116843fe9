//! Quantized tensors of which next to nothing is left.
//!
//! Owns: telling the user. Must not know: techniques, formats.
//! Invariant: one line for all of them, however many there are.

use super::TensorReport;

/// Below this the error has nearly the power of the weights: a tensor of zeros has 0 dB, two bits about 7.
const FAINT_DB: f64 = 1.0;
const NAMED: usize = 3;

/// A warning, if one is due.
pub(super) fn warning(tensors: &[TensorReport]) -> Option<String> {
    let faint: Vec<&TensorReport> = tensors
        .iter()
        .filter(|t| t.compressed && t.snr_db.is_some_and(|snr| snr < FAINT_DB))
        .collect();
    let named: Vec<String> = faint
        .iter()
        .take(NAMED)
        .map(|t| format!("{} ({:.1} dB)", t.name, t.snr_db.unwrap_or_default()))
        .collect();
    let more = match faint.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!faint.is_empty()).then(|| {
        format!(
            "next to nothing is left of {}{more}: their weights are too small, or too unlike each other, for the type \
             they were given; name a wider type for them in the recipe",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::affine::{Range, Spec, quantize};
    use crate::report::measure;
    use crate::tensor::{DType, MemoryRows};
    use crate::weight::{Activations, Granularity, Kind, Weight};
    use serde_json::json;

    /// Weights of about `size`, in four bits with float16 scales.
    fn made(size: f32) -> TensorReport {
        let values: Vec<f32> = (0..512)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0 * size)
            .collect();
        let rows = MemoryRows {
            values: &values,
            cols: 256,
        };
        let granularity = Granularity::Group(64);
        let spec = Spec {
            n_bits: 4,
            symmetric: true,
            granularity,
            scale_dtype: DType::F16,
            range: Range::WeightedMse,
            signed_scales: true,
        };
        let kind = Kind::Affine {
            n_bits: 4,
            symmetric: true,
            granularity,
            scale_dtype: DType::F16,
            activations: Activations::None,
            act_order: false,
        };
        let plan = json!({"name": format!("w{size:e}"), "role": "linear", "shape": [2, 256],
            "source_dtype": DType::F32, "source_bytes": 2048, "steps": [{"stage": 0, "kind": kind}], "kind": kind});
        let weight = Weight::Affine(quantize(&rows, &spec).unwrap());
        measure(&serde_json::from_value(plan).unwrap(), &rows, &weight).unwrap()
    }

    #[test]
    fn weights_below_the_smallest_scale_are_named_and_others_are_not() {
        for size in [1e3, 1.0, 1e-5, 1e-6] {
            assert_eq!(warning(&[made(size)]), None, "{size:e}");
        }
        for size in [1e-9, 1e-15, 1e-25] {
            let said = warning(&[made(1.0), made(size)]).unwrap();
            assert!(said.contains(&format!("left of w{size:e} (")), "{said}");
        }
        let many: Vec<TensorReport> = (0..5).map(|_| made(1e-20)).collect();
        assert!(warning(&many).unwrap().contains(" and 2 more:"));
    }
}
