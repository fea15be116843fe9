//! Measures one tensor against what it became.
//!
//! Owns: error sums. Must not know: techniques, formats.
//! Invariant: sums are taken chunk by chunk in row order, so they do not depend on the number of threads; what is
//! reported is finite, and so is what was made.

use super::TensorReport;
use super::suspect;
use crate::error::Result;
use crate::kernels::symbols::{Symbols, entropy};
use crate::kernels::wide;
use crate::plan::TensorPlan;
use crate::tensor::{Rows, try_fold_chunks};
use crate::weight::{Kind, Weight};
use std::cell::RefCell;

#[derive(Clone, Copy, Default)]
struct Sums {
    signal: f64,
    error: f64,
    worst: f32,
    /// Zeros in what it became.
    zeros: u64,
}

/// Compares `source` with `weight`, both read as rows.
pub fn measure(tensor: &TensorPlan, source: &dyn Rows, weight: &Weight) -> Result<TensorReport> {
    let n = tensor.elements();
    let symbols = Symbols::new(tensor.source_dtype, n);
    let after = weight.as_rows();
    let same_type = matches!(tensor.kind, Kind::Dense { dtype } if dtype == tensor.source_dtype);
    let unchanged = same_type
        && tensor
            .steps
            .iter()
            .all(|step| step.kind == tensor.kind && step.sparsity.is_none());
    let parts = if n == 0 || !tensor.source_dtype.is_float() {
        Vec::new()
    } else {
        try_fold_chunks(source, |first, values| {
            symbols.count(values);
            if unchanged {
                return Ok(square(values));
            }
            BACK.with_borrow_mut(|back| {
                back.resize(values.len(), 0.0);
                after.read(first, back)?;
                Ok(compare(values, back))
            })
        })?
    };
    let mut total = Sums::default();
    for part in &parts {
        total.signal += part.signal;
        total.error += part.error;
        total.worst = total.worst.max(part.worst);
        total.zeros += part.zeros;
    }
    if suspect::is(total.signal, total.error, total.worst) {
        let seen = suspect::look(tensor, source, after)?;
        (total.signal, total.error, total.worst) = (seen.signal, seen.error, seen.worst);
    }
    let (signal, mse) = (total.signal / n.max(1) as f64, total.error / n.max(1) as f64);
    let codes = weight.codes();
    Ok(TensorReport {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        parameters: n as u64,
        source_dtype: tensor.source_dtype.name().to_owned(),
        kind: tensor.kind.label(),
        compressed: tensor.kind.is_compressed() || tensor.sparsity_before(usize::MAX).is_some(),
        source_entropy_bits: symbols.entropy(),
        code_entropy_bits: codes.as_ref().map_or(0.0, |codes| {
            entropy(&codes.histogram) / codes.weights.max(1) as f64
        }),
        stored_bits_per_weight: 8.0 * tensor.kind.payload_bytes(tensor.rows(), tensor.cols()) as f64
            / n.max(1) as f64,
        mse,
        predicted_mse: codes
            .filter(|codes| codes.mean_square_step > 0.0)
            .map(|codes| codes.mean_square_step / 12.0),
        snr_db: (mse > 0.0 && signal > 0.0).then(|| 10.0 * (signal / mse).log10()),
        max_abs_error: f64::from(total.worst),
        zero_ratio: total.zeros as f64 / n.max(1) as f64,
        mean_square: signal,
    })
}

fn square(values: &[f32]) -> Sums {
    compare(values, values)
}

thread_local!(
    /// What a chunk became: one buffer a thread, as long as the longest chunk.
    static BACK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) }
);

fn compare(values: &[f32], back: &[f32]) -> Sums {
    let mut total = Sums::default();
    add_differences(values, back, &mut total);
    total
}

wide! {
/// Sixteen partial sums of 4,096 values each keep f32 sums accurate and let the loop be vectorised.
fn add_differences(values: &[f32], back: &[f32], total: &mut Sums) {
    for (values, back) in values.chunks(4096).zip(back.chunks(4096)) {
        let (mut signal, mut error, mut worst, mut zeros) = ([0f32; 16], [0f32; 16], [0f32; 16], [0u32; 16]);
        let (v16, v_rest) = values.as_chunks::<16>();
        let (b16, b_rest) = back.as_chunks::<16>();
        for (v, b) in v16.iter().zip(b16) {
            for i in 0..16 {
                let e = v[i] - b[i];
                signal[i] += v[i] * v[i];
                error[i] += e * e;
                let a = e.abs();
                worst[i] = if a > worst[i] { a } else { worst[i] };
                zeros[i] += u32::from(b[i] == 0.0);
            }
        }
        for (v, b) in v_rest.iter().zip(b_rest) {
            let e = v - b;
            signal[0] += v * v;
            error[0] += e * e;
            worst[0] = worst[0].max(e.abs());
            zeros[0] += u32::from(*b == 0.0);
        }
        total.zeros += zeros.iter().map(|n| u64::from(*n)).sum::<u64>();
        total.signal += signal.iter().map(|s| f64::from(*s)).sum::<f64>();
        total.error += error.iter().map(|s| f64::from(*s)).sum::<f64>();
        total.worst = worst.iter().copied().fold(total.worst, f32::max);
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_known_pair() {
        let sums = compare(&[1.0, 2.0, 3.0, 0.5], &[1.0, 2.5, 2.0, -0.0]);
        assert_eq!(
            (sums.signal, sums.error, sums.worst, sums.zeros),
            (14.25, 1.5, 1.0, 1)
        );
    }
}
