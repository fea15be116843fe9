//! Frequencies of rotary positions and their scalings.
//!
//! Owns: `rope_theta`, `rope_scaling` and `rope_parameters` of a config.json. Must not know: which family asks.
//! Invariant: an unknown scaling is refused, never ignored.

use crate::error::{Error, Result};
use crate::network::{Dynamic, Rotary};
use serde_json::Value;
use std::f64::consts::PI;

/// The rotary positions of a configuration, for heads of `head_dim` elements.
pub(super) fn rotary(config: &Value, head_dim: usize) -> Result<Rotary> {
    // Newer configurations hold everything in `rope_parameters`.
    let scaling = [config.get("rope_parameters"), config.get("rope_scaling")]
        .into_iter()
        .flatten()
        .find(|v| v.is_object());
    let number = |name: &str| {
        let inner = scaling.and_then(|s| s.get(name));
        inner.or_else(|| config.get(name)).and_then(Value::as_f64)
    };
    let theta = number("rope_theta").unwrap_or(10_000.0);
    let part = number("partial_rotary_factor").unwrap_or(1.0);
    let rotated = (head_dim as f64 * part) as usize / 2 * 2;
    let plain: Vec<f64> = (0..rotated / 2)
        .map(|i| theta.powf(-2.0 * i as f64 / rotated as f64))
        .collect();
    let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
    let kind = kind.and_then(Value::as_str).unwrap_or("default");
    let factor = number("factor").unwrap_or(1.0);
    let (frequencies, scale) = match kind {
        "default" | "dynamic" | "mrope" => (plain, 1.0),
        "linear" => (plain.iter().map(|f| f / factor).collect(), 1.0),
        "llama3" => (llama3(&plain, factor, &number)?, 1.0),
        "yarn" => yarn(&plain, theta, rotated, factor, config, &number),
        other => {
            return Err(Error::unsupported(
                "unsupported_rope_scaling",
                format!("rope scaling {other:?} is not supported; linear, dynamic, llama3 and yarn are"),
            ));
        }
    };
    let context = number("original_max_position_embeddings").or_else(|| number("max_position_embeddings"));
    let dynamic = (kind == "dynamic").then(|| Dynamic {
        theta,
        factor,
        context: context.unwrap_or(2048.0) as usize,
    });
    Ok(Rotary::new(frequencies, scale, dynamic))
}

/// LLaMA 3.1: long wavelengths are stretched, short ones kept, a smooth ramp between.
fn llama3(plain: &[f64], factor: f64, number: &dyn Fn(&str) -> Option<f64>) -> Result<Vec<f64>> {
    let need = |name: &str| {
        number(name).ok_or_else(|| {
            Error::bad_input(
                "invalid_config",
                format!("config.json: rope_scaling of type llama3 has no {name}"),
            )
        })
    };
    let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
    let context = need("original_max_position_embeddings")?;
    let scaled = |f: &f64| {
        let wavelength = 2.0 * PI / f;
        if wavelength > context / low {
            f / factor
        } else if wavelength < context / high {
            *f
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 - smooth) * f / factor + smooth * f
        }
    };
    Ok(plain.iter().map(scaled).collect())
}

/// `YaRN` (Peng et al. 2023).
fn yarn(
    plain: &[f64],
    theta: f64,
    rotated: usize,
    factor: f64,
    config: &Value,
    number: &dyn Fn(&str) -> Option<f64>,
) -> (Vec<f64>, f64) {
    let context = number("original_max_position_embeddings")
        .or_else(|| config.get("max_position_embeddings").and_then(Value::as_f64))
        .unwrap_or(2048.0);
    let fast = number("beta_fast").unwrap_or(32.0);
    let slow = number("beta_slow").unwrap_or(1.0);
    let dim = rotated as f64;
    let turns = |n: f64| dim * (context / (n * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (low, high) = (turns(fast).floor().max(0.0), turns(slow).ceil().min(dim - 1.0));
    let high = if low == high { high + 0.001 } else { high };
    let frequency = |(i, f): (usize, &f64)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f / factor * ramp + f * (1.0 - ramp)
    };
    let attention = number("attention_factor").unwrap_or_else(|| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * factor.ln() + 1.0
        }
    });
    (plain.iter().enumerate().map(frequency).collect(), attention)
}
