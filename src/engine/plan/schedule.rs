//! Stages that are done in several steps: one stage of a recipe as several, one behind the other.
//!
//! Owns: the recipe with its steps spelled out, and which stage of the given one each is. Must not know: techniques by name.
//! Invariant: a recipe that is spelled out stays as it is; refusals point into the recipe that was given.

use crate::recipe::{Recipe, Refusal, StageSpec};
use crate::techniques;

/// A recipe with its steps spelled out.
pub(super) struct Spelled {
    /// The recipe.
    pub recipe: Recipe,
    /// The given stage that each stage is part of.
    of: Vec<usize>,
}

/// Spells out the stages that are done in steps.
pub(super) fn spelled(recipe: &Recipe) -> Spelled {
    let (mut stages, mut of) = (Vec::new(), Vec::new());
    for (index, stage) in recipe.stages.iter().enumerate() {
        let steps = techniques::find(&stage.technique).and_then(|t| t.steps(&stage.options));
        match steps {
            None => stages.push(stage.clone()),
            Some(steps) => stages.extend(steps.into_iter().map(|options| StageSpec {
                options,
                ..stage.clone()
            })),
        }
        of.resize(stages.len(), index);
    }
    Spelled {
        recipe: Recipe {
            stages,
            ..recipe.clone()
        },
        of,
    }
}

impl Spelled {
    /// Refusals by the stages that were given; what several steps are refused for is said once.
    pub(super) fn given(&self, refusals: Vec<Refusal>) -> Vec<Refusal> {
        let mut all: Vec<Refusal> = Vec::new();
        for refusal in refusals {
            let refusal = match at_stage(&refusal.pointer) {
                Some((stage, rest)) => Refusal {
                    pointer: format!("/stages/{}{rest}", self.of.get(stage).copied().unwrap_or(stage)),
                    ..refusal
                },
                None => refusal,
            };
            let is_known = |known: &Refusal| (&known.pointer, known.code) == (&refusal.pointer, refusal.code);
            if !all.iter().any(is_known) {
                all.push(refusal);
            }
        }
        all
    }
}

/// The stage that a pointer leads into, and the rest of the pointer.
pub(super) fn at_stage(pointer: &str) -> Option<(usize, &str)> {
    let rest = pointer.strip_prefix("/stages/")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some((rest[..digits].parse().ok()?, &rest[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schedule_is_several_stages_that_point_at_the_one_given() {
        let recipe = Recipe::from_value(&json!({"stages": [
            {"technique": "hadamard"},
            {"technique": "magnitude", "options": {"sparsity": 0.5, "iterations": 2, "schedule": "linear"}},
            {"technique": "rtn"}], "formats": ["safetensors"]}))
        .unwrap();
        let spelled = spelled(&recipe);
        assert_eq!(spelled.of, [0, 1, 1, 2]);
        assert_eq!(spelled.recipe.stages[1].options, json!({"sparsity": 0.25}));
        assert_eq!(spelled.recipe.stages[2].options, json!({"sparsity": 0.5}));
        let again = super::spelled(&spelled.recipe);
        assert_eq!(again.recipe, spelled.recipe);
        let refusal = |at: &str| Refusal::new(at, "code", "detail");
        let given = spelled.given(vec![
            refusal("/stages/1/targets"),
            refusal("/stages/2/targets"),
            refusal("/stages/3"),
        ]);
        let pointers: Vec<&str> = given.iter().map(|r| r.pointer.as_str()).collect();
        assert_eq!(pointers, ["/stages/1/targets", "/stages/2"]);
    }
}
