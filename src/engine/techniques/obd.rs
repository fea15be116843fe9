//! Optimal brain damage: what loses least when it becomes zero, by the loss' second derivative at each weight by itself.
//!
//! Owns: its options and its score. Must not know: how derivatives are had.
//! Invariant: what stays is what it was, to the bit.

use super::options::{self, Options, Planned};
use super::pruning::{self, Scope};
use super::{Decision, Each, Survey, Task, Technique, Work};
use crate::error::Result;
use crate::plan::{Context, ImportanceSource, Statistic};
use crate::recipe::Refusal;
use crate::tensor::Rows;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct OptimalBrainDamage;

impl Technique for OptimalBrainDamage {
    fn name(&self) -> &'static str {
        "obd"
    }

    fn summary(&self) -> &'static str {
        "Optimal brain damage: the weights of least saliency w²·∂²L/∂w² become zeros, by the diagonal of the \
         Fisher information, from gradients of the loss, or of each layer's own Hessian. LeCun et al. 1989; Theis et al. \
         2018; Kurtic et al. 2022."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/obd.md")
    }

    fn schema(&self) -> Value {
        pruning::schema(&json!({
            "scope": pruning::scopes("layer"),
            "curvature": {"type": "string", "enum": ["fisher", "hessian"], "default": "fisher", "examples": ["fisher"],
                "description": "The second derivative: the diagonal of the Fisher information, by going through the model and back over calibration data (fisher), or of the Hessian of each layer's own squared error, which only needs its inputs (hessian)."},
            "labels": {"type": "string", "enum": ["drawn", "data"], "default": "drawn", "examples": ["data"],
                "description": "The loss whose gradients are taken, curvature fisher: of labels that the model draws itself (drawn), which is the Fisher information, or of the tokens that follow in the data (data), which is the empirical one."}}))
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::matrices(context)?;
        let is_fisher = options.text("curvature") == "fisher";
        let at = options::pointer(context, "curvature");
        let is_global = pruning::is_global(&options);
        pruning::check_stored(context, &options, &tensors)?;
        if is_global && !is_fisher {
            let detail = "errors of different layers cannot be compared by their own Hessians: scope global needs \
                          curvature fisher";
            let pointer = options::pointer(context, "scope");
            return Err(vec![Refusal::new(
                pointer,
                "conflicting_options",
                detail.to_owned(),
            )]);
        }
        let source = match (is_fisher, options.text("labels")) {
            (true, "data") => ImportanceSource::Gradients,
            (true, _) => ImportanceSource::Diagonal,
            (false, _) => ImportanceSource::Calibration,
        };
        let known = context.importance(source, &at)?;
        if let Some((_, tensor)) = tensors.iter().find(|(index, _)| !known.knows(*index)) {
            let name = tensor.module();
            let (code, detail) = if context.transposed.contains(&tensor.name) {
                let why = "is stored as [in, out], and a layer's Hessian tells of inputs";
                (
                    "stored_transposed",
                    format!("{name} {why}: use curvature fisher here"),
                )
            } else {
                let detail = format!("nothing is known of {name} while the model runs: add it to ignore");
                ("not_a_layer_of_a_block", detail)
            };
            let pointer = format!("{}/targets", context.pointer);
            return Err(vec![Refusal::new(pointer, code, detail)]);
        }
        let mut decision = pruning::decide(context, &options, &tensors, is_global)?;
        decision.needs = Some(Statistic::Importance(known));
        Ok(decision)
    }

    fn work(&self) -> Work {
        Work::Each(&OptimalBrainDamage)
    }

    fn steps(&self, options: &Value) -> Option<Vec<Value>> {
        pruning::steps(options)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

/// `w²·h`, h of the weight itself or of its column.
fn saliency<'a>(task: &'a Task<'_>, cols: usize) -> impl Fn(usize, f32) -> f32 + Sync + 'a {
    let (diagonal, columns) = (task.diagonal, task.importance);
    move |at, w| {
        let curvature = match (diagonal, columns) {
            (Some(diagonal), _) => diagonal[at],
            (None, Some(columns)) => columns[at % cols],
            (None, None) => 1.0,
        };
        // What no gradient reached is told apart by its size all the same.
        w * w * curvature.max(f32::MIN_POSITIVE)
    }
}

impl Each for OptimalBrainDamage {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let scope = Scope::of(&Options::of(&task.stage.options, self.schema()));
        pruning::prune(task, input, scope, &saliency(task, input.cols()))
    }

    fn survey(&self, options: &Value) -> Option<&'static dyn Survey> {
        let options = Options::of(options, self.schema());
        pruning::is_global(&options).then_some(&OptimalBrainDamage)
    }
}

impl Survey for OptimalBrainDamage {
    fn look(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Vec<u64>> {
        pruning::histogram(input, &saliency(task, input.cols()))
    }

    fn shares(&self, options: &Value, seen: &[Vec<u64>]) -> Vec<f64> {
        pruning::shares(seen, Options::of(options, self.schema()).real("sparsity"))
    }
}
