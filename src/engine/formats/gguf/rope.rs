//! Owns: rotary embedding settings of a `config.json`, the GGUF keys and the frequency factors made of them.
//!
//! Must not know: the rest of the config. Invariant: a scaling llama.cpp would compute differently is refused.

use std::f64::consts::TAU;

use serde_json::Value as Json;

use super::error::GgufError;
use super::fields::{number, unsupported, value_error};
use super::value::{Metadata, Value};

/// Base frequency and scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `rope_theta`; `None` where the config leaves the default of 10000.
    pub base: Option<f64>,
    /// How positions beyond the first training length are handled.
    pub scaling: Scaling,
}

/// Rope scaling, by transformers' `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// `default`.
    None,
    /// `linear`: positions divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// `yarn`.
    Yarn {
        /// Context extension factor.
        factor: f64,
        /// Context before the extension, tokens.
        original_context: u32,
        /// Optional settings: the key after `{arch}.rope.scaling.`, and its value.
        extras: Vec<(&'static str, f32)>,
    },
    /// `llama3`: a factor for each frequency, stored as a tensor.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low` are divided.
        low: f64,
        /// Wavelengths below `original_context / high` are kept.
        high: f64,
        /// Context before the extension, tokens.
        original_context: f64,
    },
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (before). `context` is
    /// `max_position_embeddings`, tokens.
    pub(super) fn from_json(config: &Json, context: u32) -> Result<Self, GgufError> {
        let field = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|field| !config[*field].is_null());
        let Some(field) = field else {
            return Ok(Self {
                base: number(config, "rope_theta")?,
                scaling: Scaling::None,
            });
        };
        let params = &config[field];
        if !params.is_object() {
            return Err(value_error(field, "an object", params));
        }
        let base = match number(params, "rope_theta")? {
            None => number(config, "rope_theta")?,
            base => base,
        };
        Ok(Self {
            base,
            scaling: Scaling::from_json(field, params, context)?,
        })
    }

    /// `{arch}.rope.*`.
    pub(super) fn add_keys(&self, arch: &str, out: &mut Metadata) {
        let mut set = |key: &str, value: Value| out.set(format!("{arch}.rope.{key}"), value);
        match &self.scaling {
            // llama3 is all in the tensor
            Scaling::None | Scaling::Llama3 { .. } => {}
            Scaling::Linear { factor } => {
                set("scaling.type", Value::text("linear"));
                set("scaling.factor", Value::F32(*factor as f32));
            }
            Scaling::Yarn {
                factor,
                original_context,
                extras,
            } => {
                set("scaling.type", Value::text("yarn"));
                set("scaling.factor", Value::F32(*factor as f32));
                set("scaling.original_context_length", Value::U32(*original_context));
                for (key, value) in extras {
                    set(&format!("scaling.{key}"), Value::F32(*value));
                }
            }
        }
        if let Some(base) = self.base {
            set("freq_base", Value::F32(base as f32));
        }
    }

    /// What each of the `head_dim / 2` frequencies is divided by, for llama-3 scaling: 1 for short wavelengths,
    /// `factor` for long ones, and smoothly between (transformers `modeling_rope_utils`, rope type `llama3`).
    pub(super) fn freq_factors(&self, head_dim: u32) -> Option<Vec<f32>> {
        let Scaling::Llama3 {
            factor,
            low,
            high,
            original_context,
        } = self.scaling
        else {
            return None;
        };
        let base = self.base.unwrap_or(10_000.0);
        let factors = (0..head_dim / 2).map(|i| {
            let wavelength = TAU * base.powf(f64::from(2 * i) / f64::from(head_dim));
            if wavelength < original_context / high {
                1.0
            } else if wavelength > original_context / low {
                factor as f32
            } else {
                let smooth = (original_context / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        });
        Some(factors.collect())
    }
}

impl Scaling {
    fn from_json(field: &str, params: &Json, context: u32) -> Result<Self, GgufError> {
        let named = ["rope_type", "type"]
            .into_iter()
            .find(|key| !params[*key].is_null());
        let Some(key) = named else { return Ok(Self::None) };
        let need = |key: &str| {
            number(params, key)?.ok_or_else(|| GgufError::MissingConfig {
                key: format!("{field}.{key}"),
            })
        };
        match params[key].as_str() {
            Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear {
                factor: need("factor")?,
            }),
            Some("yarn") => Self::yarn(field, params, context, need("factor")?),
            Some("llama3") => {
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                if low >= high {
                    let key = format!("{field}.low_freq_factor");
                    return Err(value_error(&key, "less than high_freq_factor", &Json::from(low)));
                }
                let original_context = need("original_max_position_embeddings")?;
                Ok(Self::Llama3 {
                    factor: need("factor")?,
                    low,
                    high,
                    original_context,
                })
            }
            _ => Err(unsupported(
                format!("{field}.{key}"),
                "default, linear, yarn or llama3",
                &params[key],
            )),
        }
    }

    fn yarn(field: &str, params: &Json, context: u32, factor: f64) -> Result<Self, GgufError> {
        for key in ["mscale", "mscale_all_dim"] {
            if !params[key].is_null() {
                return Err(unsupported(
                    format!("{field}.{key}"),
                    "yarn without mscale",
                    &params[key],
                ));
            }
        }
        let original = number(params, "original_max_position_embeddings")?;
        let mut extras = Vec::new();
        for (key, gguf) in [
            ("extrapolation_factor", "yarn_ext_factor"),
            ("attention_factor", "yarn_attn_factor"),
            ("beta_fast", "yarn_beta_fast"),
            ("beta_slow", "yarn_beta_slow"),
        ] {
            if let Some(value) = number(params, key)? {
                extras.push((gguf, value as f32));
            }
        }
        let original_context = original.map_or(context, |n| n as u32);
        Ok(Self::Yarn {
            factor,
            original_context,
            extras,
        })
    }
}
