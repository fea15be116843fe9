//! Which tensors a stage is for.
//!
//! Owns: the words of `targets` and `ignore`. Must not know: what a stage does.
//! Invariant: a name means one module, an expression is anchored at its start.

use super::TensorPlan;
use crate::models::Role;
use crate::recipe::Refusal;
use regex::Regex;

/// `Linear`, module names and `re:` expressions, as llm-compressor's `targets` and `ignore`.
pub(super) struct Matcher {
    linear: bool,
    names: Vec<String>,
    expressions: Vec<Regex>,
}

impl Matcher {
    pub(super) fn new(words: &[String], pointer: &str) -> Result<Self, Vec<Refusal>> {
        let mut matcher = Self {
            linear: false,
            names: Vec::new(),
            expressions: Vec::new(),
        };
        for (i, word) in words.iter().enumerate() {
            if word == "Linear" {
                matcher.linear = true;
            } else if let Some(expression) = word.strip_prefix("re:") {
                // Python's re.match is anchored at the start only.
                let compiled = Regex::new(&format!("^(?:{expression})")).map_err(|e| {
                    vec![Refusal::new(
                        format!("{pointer}/{i}"),
                        "invalid_regex",
                        format!("{word:?}: {e}"),
                    )]
                })?;
                matcher.expressions.push(compiled);
            } else {
                matcher
                    .names
                    .push(word.strip_suffix(".weight").unwrap_or(word).to_owned());
            }
        }
        Ok(matcher)
    }

    pub(super) fn matches(&self, tensor: &TensorPlan) -> bool {
        let module = tensor.module();
        (self.linear && tensor.role.is_linear() && tensor.role != Role::Router)
            || self
                .names
                .iter()
                .any(|n| module == n || (n == "lm_head" && tensor.role == Role::Output))
            || self.expressions.iter().any(|e| e.is_match(module))
    }
}
