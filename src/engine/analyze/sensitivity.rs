//! What each scheme would cost each tensor: how sensitive a model is where.
//!
//! Owns: the figures. Must not know: how they are found, which schemes there are.
//! Invariant: losses are of a tensor that is compressed alone, so that those of several add up as long as they are small.

use serde::{Deserialize, Serialize};

/// What schemes would cost a model, by the gradients of its loss on some data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The data.
    pub dataset: String,
    /// Tokens of it.
    pub tokens: usize,
    /// The format whose schemes they are.
    pub format: String,
    /// The schemes.
    pub candidates: Vec<String>,
    /// Tensors, those together that the format's engines want in the same scheme.
    pub units: Vec<UnitSensitivity>,
}

/// What schemes would cost some tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitSensitivity {
    /// Their names.
    pub tensors: Vec<String>,
    /// Their weights.
    pub parameters: u64,
    /// The schemes that they can have, in the order of the candidates.
    pub schemes: Vec<SchemeLoss>,
}

/// A scheme's price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchemeLoss {
    /// The scheme.
    pub scheme: String,
    /// Bytes that the tensors take.
    pub bytes: u64,
    /// Divergence from the original that is expected, nats a token: ½ Σ F (Δw)², F the diagonal of the Fisher information.
    pub predicted_kl: f64,
}

/// All units that can have a scheme.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SchemeTotal<'a> {
    /// The scheme.
    pub scheme: &'a str,
    /// Their weights.
    pub parameters: u64,
    /// Bytes that they would take.
    pub bytes: u64,
    /// What they would lose together, nats a token.
    pub predicted_kl: f64,
}

impl SchemeTotal<'_> {
    /// `8 · bytes / parameters`.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes as f64 / self.parameters.max(1) as f64
    }
}

/// Bits a weight near which sensitivities are compared: where most choices are made.
const COMPARED_AT: f64 = 4.5;

impl Sensitivity {
    /// Each candidate with what all units that can have it would be, the smallest first.
    pub fn totals(&self) -> Vec<SchemeTotal<'_>> {
        let of = |name: &'_ String| {
            let own =
                |unit: &UnitSensitivity| unit.schemes.iter().find(|scheme| scheme.scheme == *name).cloned();
            let found = self
                .units
                .iter()
                .filter_map(|unit| Some((unit.parameters, own(unit)?)));
            found.fold((0, 0, 0.0), |(parameters, bytes, loss), (more, scheme)| {
                (
                    parameters + more,
                    bytes + scheme.bytes,
                    loss + scheme.predicted_kl,
                )
            })
        };
        let total = |name| {
            let (parameters, bytes, predicted_kl) = of(name);
            SchemeTotal {
                scheme: name,
                parameters,
                bytes,
                predicted_kl,
            }
        };
        let mut totals: Vec<_> = self.candidates.iter().map(total).collect();
        totals.sort_by_key(|total| total.bytes);
        totals
    }

    /// Units with their scheme nearest 4.5 bits a weight, those that lose most a weight first.
    pub fn most_sensitive(&self) -> Vec<(&UnitSensitivity, &SchemeLoss)> {
        let bits = |unit: &UnitSensitivity, scheme: &SchemeLoss| {
            (8.0 * scheme.bytes as f64 / unit.parameters.max(1) as f64 - COMPARED_AT).abs()
        };
        let mut found: Vec<(&UnitSensitivity, &SchemeLoss)> = self
            .units
            .iter()
            .filter_map(|unit| {
                let near = unit
                    .schemes
                    .iter()
                    .min_by(|a, b| bits(unit, a).total_cmp(&bits(unit, b)))?;
                Some((unit, near))
            })
            .collect();
        let a_weight = |(unit, scheme): &(&UnitSensitivity, &SchemeLoss)| {
            scheme.predicted_kl / unit.parameters.max(1) as f64
        };
        found.sort_by(|a, b| a_weight(b).total_cmp(&a_weight(a)));
        found
    }
}
