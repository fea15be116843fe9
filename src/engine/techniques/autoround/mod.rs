//! `AutoRound`: rounding that is learned block by block from what the block answers.
//!
//! Owns: its options and which tensors it fits. Must not know: packing, how rounding is learned.
//! Invariant: every draw comes from the recipe's seed.

mod draw;
mod learn;
mod start;

use super::options::{self, Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Technique, Work};
use crate::kernels::gptq::working_bytes;
use crate::kernels::linalg::Gram;
use crate::network::Sizes;
use crate::plan::{Context, TensorPlan};
use learn::{Learner, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The technique.
pub(super) struct AutoRound;

impl Technique for AutoRound {
    fn name(&self) -> &'static str {
        "autoround"
    }

    fn summary(&self) -> &'static str {
        "Integer weights whose scales and rounding are learned block by block, by steps against the sign of the \
         gradient, so that the block answers calibration data as the original model does. From where GPTQ ends, or \
         from rounding to nearest. Cheng et al. 2023."
    }

    fn page(&self) -> &'static str {
        include_str!("../pages/autoround.md")
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
            "iters": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 200, "examples": [200],
                "description": "Steps for each block."},
            "batch_size": {"type": "integer", "minimum": 1, "maximum": 512, "default": 8, "examples": [4],
                "description": "Sequences that each step looks at."},
            "lr": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.0, "examples": [0.005],
                "description": "How far the first step moves a weight towards its neighbour on the grid, in parts of the way; it falls linearly to 0. 0 is 1 / iters from nearest, and 0.3 / iters from GPTQ's solution."},
            "minmax_lr": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.003, "examples": [0.003],
                "description": "How much the first step changes a scale, as a part of it; it falls linearly to 0."},
            "enable_minmax_tuning": {"type": "boolean", "default": true, "examples": [true],
                "description": "Learn the scales too."},
            "start": {"type": "string", "enum": ["gptq", "nearest"], "default": "gptq", "examples": ["gptq"],
                "description": "Where learning begins: at GPTQ's solution, or at rounding to nearest."},
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
        Work::Blocks(&AutoRound)
    }
}

fn settings(options: &Options<'_>) -> Settings {
    let iters = options.number("iters");
    let compensated = options.text("start") == "gptq";
    let given = options.real("lr");
    // At GPTQ's solution each weight makes up for others: far steps from there cost more than they gain.
    let way = if compensated { 0.3 } else { 1.0 };
    let lr = if given > 0.0 {
        given
    } else {
        way / iters.max(1) as f64
    };
    let minmax_lr = if options.flag("enable_minmax_tuning") {
        options.real("minmax_lr")
    } else {
        0.0
    };
    Settings {
        iters,
        batch: options.number("batch_size"),
        lr: lr as f32,
        minmax_lr: minmax_lr as f32,
        compensated,
    }
}

impl Blocks for AutoRound {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        Box::new(Learner::new(stage, settings(&options)))
    }

    /// While a block is learned: places, weights on their grids, their gradients twice while they are added up, and the
    /// best codes, beside what a batch leaves behind on its way forth and back. Before that: every layer's Gram
    /// matrix, and what GPTQ takes for one of them.
    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], sizes: &Sizes, longest: usize) -> u64 {
        let batch = Options::of(options, self.schema()).number("batch_size");
        let mut blocks: BTreeMap<Option<usize>, Vec<&TensorPlan>> = BTreeMap::new();
        for tensor in tensors {
            blocks.entry(tensor.layer).or_default().push(tensor);
        }
        let of = |block: &Vec<&TensorPlan>| {
            let elements: u64 = block.iter().map(|t| t.elements() as u64).sum();
            let sides: u64 = block.iter().map(|t| (t.rows() + t.cols()) as u64).sum();
            let passed = (batch * longest) as u64 * 4 * (3 * sides + 16 * sizes.hidden as u64);
            let grams: u64 = block.iter().map(|t| Gram::bytes(t.cols())).sum();
            let solving = block.iter().map(|t| working_bytes(t.cols(), t.elements()));
            let solving = solving.max().unwrap_or(0);
            elements * 22 + passed.max(grams + solving)
        };
        blocks.values().map(of).max().unwrap_or(0)
    }
}
