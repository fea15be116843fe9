//! AWQ: weights that large activations meet are scaled up before they are rounded.
//!
//! Owns: its options and which tensors it fits. Must not know: packing, how scales are found.
//! Invariant: scales are folded into what feeds a layer, so that the files need no room for them.

mod block;
mod search;

use super::folding::{self, SCALED};
use super::options::{self, Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::kernels::clip::Grams;
use crate::network::Sizes;
use crate::plan::{Context, TensorPlan};
use crate::weight::{Activations, Granularity, Kind};
use block::{Searcher, Settings};
use serde_json::{Value, json};

/// The technique.
pub(super) struct Awq;

impl Technique for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn summary(&self) -> &'static str {
        "Integer weights, those that meet large activations scaled up first and their ranges clipped, both by search \
         over what the block makes of calibration data. Lin et al. 2023."
    }

    fn page(&self) -> &'static str {
        include_str!("../pages/awq.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "n_bits": {"type": "integer", "minimum": 2, "maximum": 8, "default": 4, "examples": [4],
                "description": "Bits of a code."},
            "group_size": {"type": "integer", "minimum": 2, "maximum": 1024, "default": 128, "examples": [64],
                "description": "Consecutive inputs that share a scale; must divide in_features."},
            "symmetric": {"type": "boolean", "default": false, "examples": [false],
                "description": "Symmetric around zero (no zero points), or affine with a zero point for each scale."},
            "duo_scaling": {"type": "boolean", "default": true, "examples": [true],
                "description": "Try scales that look at weights too (x^r / w^(1-r)), beside those that look at activations only (x^r)."},
            "n_grid": {"type": "integer", "minimum": 2, "maximum": 200, "default": 20, "examples": [20],
                "description": "Scalings that are tried for each feed beside none at all; with duo_scaling, half of them look at weights too."},
            "clip": {"type": "boolean", "default": true, "examples": [true],
                "description": "Search each group's range for the least change of the layer's output; else its extremes are the range."},
            "num_search_tokens": {"type": "integer", "minimum": 16, "maximum": 1_048_576, "default": 1024, "examples": [1024],
                "description": "Calibration tokens that each candidate is tried on, from sequences all over the dataset."},
            "scale_dtype": {"type": "string", "enum": ["auto", "F32", "F16", "BF16"], "default": "auto", "examples": ["auto"],
                "description": "Stored type of the scales; auto is the model's own float type."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let scaled = folding::planned(context, |_| true)?;
        let tensors = options::layers(context)?;
        let granularity = Granularity::Group(options.number("group_size"));
        options::check_groups(context, granularity, &tensors)?;
        let mut kinds: Vec<_> = scaled
            .into_iter()
            .filter(|at| !context.targeted[*at])
            .map(|at| (at, SCALED))
            .collect();
        kinds.extend(tensors.iter().map(|(index, tensor)| {
            let kind = Kind::Affine {
                n_bits: options.number("n_bits") as u8,
                symmetric: options.flag("symmetric"),
                granularity,
                scale_dtype: options::scale_dtype(options.text("scale_dtype"), tensor),
                activations: Activations::None,
                act_order: false,
            };
            (*index, kind)
        }));
        Ok(Decision {
            kinds,
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Blocks(&Awq)
    }

    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        true
    }
}

impl Blocks for Awq {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let settings = Settings {
            grid: options.number("n_grid"),
            duo: options.flag("duo_scaling"),
            clip: options.flag("clip"),
            tokens: options.number("num_search_tokens"),
        };
        Box::new(Searcher::new(stage, settings))
    }

    /// What the sample is at a cut and on its way to the next, for the reference and the candidate; the block's weights
    /// as candidates and as codes; Gram matrices of its inputs.
    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], _: &Sizes, _: usize) -> u64 {
        let options = Options::of(options, self.schema());
        let (tokens, group) = (options.number("num_search_tokens"), options.number("group_size"));
        let side = |t: &&TensorPlan| t.rows().max(t.cols());
        let widest = tensors.iter().map(side).max().unwrap_or(0);
        let sample = 4 * (2 * tokens * widest) as u64;
        8 * sample + 3 * folding::block_bytes(tensors) + 4 * Grams::bytes(widest, group)
    }
}
