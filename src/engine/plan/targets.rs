//! Which tensors a stage is for.
//!
//! Owns: the words of `targets` and `ignore`. Must not know: what a stage does.
//! Invariant: a name means one module, an expression is anchored at its start.

use super::{Context, TensorPlan};
use crate::models::Role;
use crate::recipe::{MAX_EXPRESSIONS, Refusal};
use regex::{Regex, RegexBuilder};
use std::collections::HashSet;

/// Most bytes that one compiled expression may take. Recipes bring up to [`crate::recipe::MAX_EXPRESSIONS`].
const MAX_COMPILED: usize = 1 << 20;

/// Classes of layers, by the names that torch has for them.
pub(super) const LINEAR: &str = "Linear";
const CONVOLUTION: &str = "Conv2d";

/// `Linear`, `Conv2d`, module names and `re:` expressions, as llm-compressor's `targets` and `ignore`.
pub(super) struct Matcher {
    linear: bool,
    convolutions: bool,
    names: HashSet<String>,
    expressions: Vec<Regex>,
}

impl Matcher {
    pub(super) fn new(words: &[String], pointer: &str) -> Result<Self, Vec<Refusal>> {
        let mut matcher = Self {
            linear: false,
            convolutions: false,
            names: HashSet::new(),
            expressions: Vec::new(),
        };
        for (i, word) in words.iter().enumerate() {
            if word == LINEAR {
                matcher.linear = true;
            } else if word == CONVOLUTION {
                matcher.convolutions = true;
            } else if let Some(expression) = word.strip_prefix("re:") {
                // Compiled as it is given, so that no bracket in it can reach beyond its end.
                let compiled = RegexBuilder::new(expression).size_limit(MAX_COMPILED).build();
                let compiled = compiled.map_err(|e| {
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
                    .insert(word.strip_suffix(".weight").unwrap_or(word).to_owned());
            }
        }
        Ok(matcher)
    }

    pub(super) fn matches(&self, tensor: &TensorPlan) -> bool {
        let module = tensor.module();
        // Python's re.match is anchored at the start only.
        let at_start = |e: &Regex| e.find(module).is_some_and(|found| found.start() == 0);
        (self.linear && tensor.role.is_linear() && tensor.role != Role::Router)
            || (self.convolutions && tensor.role == Role::Convolution)
            || self.names.contains(module)
            || (tensor.role == Role::Output && self.names.contains("lm_head"))
            || self.expressions.iter().any(at_start)
    }
}

impl Context<'_> {
    /// Index of each tensor that words as in `targets` name; a name that no tensor has is refused, and so are more
    /// expressions than a recipe may have.
    pub fn matching(&self, words: &[String], pointer: &str) -> Result<Vec<usize>, Vec<Refusal>> {
        let expressions = words.iter().filter(|word| word.starts_with("re:")).count();
        if expressions > MAX_EXPRESSIONS {
            let detail = format!("a list has at most {MAX_EXPRESSIONS} expressions; join some with |");
            return Err(vec![Refusal::new(pointer, "too_many", detail)]);
        }
        let matcher = Matcher::new(words, pointer)?;
        let tensors = self.tensors.iter().enumerate();
        let found: Vec<usize> = tensors
            .filter(|(_, t)| matcher.matches(t))
            .map(|(at, _)| at)
            .collect();
        if found.is_empty() && !words.is_empty() {
            let mut refusals = nothing(self.tensors, pointer);
            for refusal in &mut refusals {
                pointer.clone_into(&mut refusal.pointer);
            }
            return Err(refusals);
        }
        Ok(found)
    }
}

/// Says that nothing matched, with names that would.
pub(super) fn nothing(tensors: &[TensorPlan], pointer: &str) -> Vec<Refusal> {
    let matrices = tensors.iter().filter(|t| t.shape.len() > 1).take(3);
    let names: Vec<&str> = matrices.map(TensorPlan::module).collect();
    let detail = match names.as_slice() {
        [] => "no tensor matches: the model has no matrix".to_owned(),
        names => format!("no tensor matches: modules are named like {}", names.join(", ")),
    };
    vec![Refusal::new(format!("{pointer}/targets"), "no_targets", detail)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::weight::Kind;

    fn tensor(name: &str) -> TensorPlan {
        TensorPlan {
            cache: None,
            name: name.into(),
            role: Role::Other,
            layer: None,
            shape: vec![2, 2],
            source_dtype: DType::F32,
            source_bytes: 16,
            steps: Vec::new(),
            kind: Kind::Dense { dtype: DType::F32 },
        }
    }

    fn matches(word: &str, name: &str) -> bool {
        Matcher::new(&[word.to_owned()], "")
            .unwrap()
            .matches(&tensor(name))
    }

    #[test]
    fn a_class_means_the_layers_of_that_class() {
        let of = |role| TensorPlan {
            role,
            ..tensor("stem.weight")
        };
        let matches = |word: &str, role| {
            let matcher = Matcher::new(&[word.to_owned()], "").unwrap();
            matcher.matches(&of(role))
        };
        assert!(matches("Conv2d", Role::Convolution) && !matches("Linear", Role::Convolution));
        assert!(matches("Linear", Role::Linear) && !matches("Conv2d", Role::Linear));
    }

    #[test]
    fn expressions_are_anchored_at_the_start_only() {
        assert!(matches("re:model", "model.norm.weight"));
        assert!(matches("re:.*norm$", "model.norm.weight"));
        assert!(!matches("re:norm", "model.norm.weight"));
        assert!(matches("re:x|model", "model.norm.weight"));
        assert!(
            matches("model.norm", "model.norm.weight") && matches("model.norm.weight", "model.norm.weight")
        );
    }

    #[test]
    fn an_expression_cannot_leave_its_brackets_or_take_the_memory() {
        for (word, says) in [
            ("re:a)|(?:.*", "unopened group"),
            ("re:(\\w{100}){100}", "size limit"),
        ] {
            let refused = Matcher::new(&[word.to_owned()], "/targets").err().unwrap();
            assert_eq!(
                (refused[0].pointer.as_str(), refused[0].code),
                ("/targets/0", "invalid_regex")
            );
            assert!(refused[0].detail.contains(says), "{}", refused[0].detail);
        }
    }

    #[test]
    fn who_matches_nothing_is_told_what_there_is() {
        let refused = nothing(&[tensor("model.up.weight")], "/stages/0");
        assert_eq!(refused[0].pointer, "/stages/0/targets");
        assert!(
            refused[0].detail.contains("named like model.up"),
            "{}",
            refused[0].detail
        );
    }
}
