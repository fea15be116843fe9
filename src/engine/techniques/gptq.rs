//! GPTQ: rounding column by column, each error made up for by the columns that follow.
//!
//! Owns: its options, which tensors it fits, Hessians of the layers of a block. Must not know: packing, data.
//! Invariant: a layer's Hessian is that of its inputs behind the layers already quantized ("true sequential").

use super::hessians::{Hessians, Seen, tell_damping};
use super::layerwise::{Done, Layer, Layerwise, Walker};
use super::options::{self, Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::affine::{Range, Spec};
use crate::kernels::gptq::{ActOrder, Curvature, How, solve, working_bytes};
use crate::network::Sizes;
use crate::observe::Level;
use crate::plan::{Context, TensorPlan};
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Gptq;

impl Technique for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn summary(&self) -> &'static str {
        "Integer weights rounded column by column, each error made up for by the columns that follow, by the inputs \
         that calibration data brings. Frantar et al. 2022."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/gptq.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "n_bits": {"type": "integer", "minimum": 2, "maximum": 8, "default": 4, "examples": [4],
                "description": "Bits of a code."},
            "symmetric": {"type": "boolean", "default": true, "examples": [true],
                "description": "Symmetric around zero (no zero points), or affine with a zero point for each scale."},
            "granularity": {"type": "string", "enum": ["channel", "group"], "default": "group", "examples": ["group"],
                "description": "Which weights share a scale."},
            "group_size": {"type": "integer", "minimum": 2, "maximum": 1_048_576, "default": 128, "examples": [64],
                "description": "Consecutive inputs that share a scale (granularity group); must divide in_features."},
            "act_order": {"type": "string", "enum": ["none", "static", "group"], "default": "static", "examples": ["static"],
                "description": "Order of the columns: as they lie; by falling activation with grids chosen before (static: no g_idx is needed); or by falling activation with groups that follow it (group: g_idx is stored)."},
            "damp_percent": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.01, "examples": [0.01],
                "description": "Part of the Hessian's mean diagonal that is added to it; raised tenfold, up to five times, where that is not enough."},
            "range": {"type": "string", "enum": ["minmax", "mse", "hessian"], "default": "hessian", "examples": ["hessian"],
                "description": "How the clipping range is found: the extremes; least squared error; or least squared error weighted by the Hessian's diagonal."},
            "activations": {"type": "string", "enum": ["none", "dynamic_token"], "default": "none", "examples": ["none"],
                "description": "Let the engine quantize the layer's inputs to 8 bits per token."},
            "scale_dtype": {"type": "string", "enum": ["auto", "F32", "F16", "BF16"], "default": "auto", "examples": ["auto"],
                "description": "Stored type of the scales; auto is the model's own float type."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let tensors = options::layers(context)?;
        let granularity = options.granularity();
        options::check_groups(context, granularity, &tensors)?;
        Ok(Decision {
            kinds: options.affine(granularity, &tensors),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Blocks(&Gptq)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for Gptq {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let act_order = match options.text("act_order") {
            "none" => ActOrder::None,
            "group" => ActOrder::Group,
            _ => ActOrder::Static,
        };
        let range = match options.text("range") {
            "minmax" => Range::MinMax,
            _ => Range::Mse,
        };
        let solver = Solver {
            act_order,
            range,
            by_hessian: options.text("range") == "hessian",
            damp: options.real("damp_percent"),
        };
        Box::new(Walker::new(stage, solver, true))
    }

    /// A Gram matrix in strips for each input of a cut, and the largest solve.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let bytes = |t: &&TensorPlan| working_bytes(t.cols(), t.elements());
        tensors.iter().map(bytes).max().unwrap_or(0) + Hessians::bytes(tensors)
    }
}

struct Solver {
    act_order: ActOrder,
    range: Range,
    by_hessian: bool,
    damp: f64,
}

impl Solver {
    fn spec(&self, kind: Kind) -> Result<Spec> {
        Spec::of(kind, self.range, self.range != Range::MinMax)
            .ok_or_else(|| Error::internal(format!("gptq was planned as {}", kind.label())))
    }

    fn tell(&self, stage: &BlockStage<'_>, readers: &[String], curvature: &Curvature, tokens: usize) {
        let by = (curvature, self.damp);
        tell_damping(stage, readers, by, tokens, "rounded to nearest");
        if curvature.dead == curvature.n {
            let message = format!(
                "{}: no calibration token reached this layer; rounded to nearest instead",
                readers.join(", ")
            );
            let data = json!({"tensors": readers, "damp_percent": curvature.damp_percent, "tokens": tokens});
            stage.observer.event(Level::Warning, &message, data);
        }
    }
}

impl Layerwise for Solver {
    type Input = Curvature;

    fn input(&self, stage: &BlockStage<'_>, seen: Seen, readers: &[String]) -> Result<Curvature> {
        let stop = || stage.observer.should_stop();
        let tokens = seen.tokens;
        let gram = seen.into_gram();
        let n = gram.len().isqrt();
        let curvature = Curvature::new(&gram, n, self.damp, self.act_order, self.by_hessian, &stop)?;
        self.tell(stage, readers, &curvature, tokens);
        Ok(curvature)
    }

    fn layer(&self, stage: &BlockStage<'_>, curvature: &Curvature, layer: Layer<'_>) -> Result<Done> {
        let stop = || stage.observer.should_stop();
        let how = How {
            act_order: self.act_order,
            keeps_zeros: stage.sparsity(layer.name).is_some(),
        };
        let solved = solve(layer.values, curvature, how, &self.spec(layer.kind)?, &stop)?;
        Ok(Done::Weight(Weight::Affine(solved.weight)))
    }
}
