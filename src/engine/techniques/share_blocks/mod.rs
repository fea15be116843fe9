//! Neighbouring blocks with matrices in common.
//!
//! Owns: its options, which matrices are shared, the outline. Must not know: how a shared matrix is found, file formats.
//! Invariant: blocks of a run have equal matrices, to the bit; biases, norms and all else stay each block's own.

mod choose;
mod fit;

use super::options::{self, Options, Planned};
use super::structure;
use super::{BlockStage, Blocks, Decision, Maker, Reshapes, Technique, Work, folding};
use crate::models::Role;
use crate::network::Sizes;
use crate::plan::{Context, Origin, Outline, SharedBlocks, TensorPlan, Which};
use crate::recipe::Refusal;
use serde_json::{Value, json};

/// The technique.
pub(super) struct ShareBlocks;

/// The list of the first block of each block's run.
const LIST: &str = "runs";

impl Technique for ShareBlocks {
    fn name(&self) -> &'static str {
        "share_blocks"
    }

    fn summary(&self) -> &'static str {
        "Runs of neighbouring blocks use one set of matrices, their mean or one fitted to the outputs of all; norms and biases stay each \
         block's own. Stored once in the format tied. Lan et al. 2020 (ALBERT); Liu et al. 2024 (MobileLLM)."
    }

    fn page(&self) -> &'static str {
        include_str!("../pages/share_blocks.md")
    }

    fn schema(&self) -> Value {
        let [(damp, damping), _] = structure::fitting();
        json!({"type": "object", "additionalProperties": false, "properties": {
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.1, "examples": [0.1],
                "description": "Share of the blocks whose matrices go."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [27],
                "description": "Different sets of matrices that stay, instead of a ratio."},
            "runs": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "examples": [[[20, 21], [22, 23, 24]]],
                "description": "The blocks that share, instead of a choice: lists of neighbours, counted from 0."},
            "choose": {"type": "string", "enum": ["errors", "outputs", "weights"], "default": "errors", "examples": ["errors"],
                "description": "Which neighbours are near to each other: those whose layers' outputs change least with the mean of their matrices, by how much each block changes what goes through it (errors); those whose outputs point in the same direction (outputs); those whose matrices differ least (weights)."},
            "modules": {"type": "string", "enum": ["all", "mlp", "attention"], "default": "all", "examples": ["mlp"],
                "description": "Which matrices of a block are shared."},
            "fit": {"type": "string", "enum": ["mean", "first", "least_squares"], "default": "mean", "examples": ["mean"],
                "description": "The shared matrix: the mean of those that it replaces; that of the run's first block; or the one whose outputs are nearest to those of all, on the inputs that each block has while nothing is shared."},
            damp: damping}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let count = context.blocks.len();
        let firsts = if let Some(firsts) = given_runs(context, count)? {
            firsts
        } else {
            // Which blocks share is known once they have run; until then any that are as many stand for them.
            let keep = structure::kept(context, &options, count, 1)?;
            (0..count).map(|block| block.min(keep - 1) as u32).collect()
        };
        let Some(shared) = shared(context, options.text("modules"))? else {
            return Ok(Decision::default());
        };
        let shared = shared.in_runs(&firsts);
        let names = context.tensors.iter().map(|t| t.name.as_str());
        structure::check_plain(context, names.filter(|name| shared.place(name).is_some()))?;
        let mut config = config.clone();
        shared.put(&mut config);
        let (mut tensors, mut ours, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for (index, tensor) in context.tensors.iter().enumerate() {
            let mut outlined = structure::whole(tensor);
            if let (Some((module, block)), Origin::Tensor { which, .. }) =
                (shared.place(&tensor.name), &mut outlined.origin)
            {
                *which = Which::Item {
                    pattern: format!("{}.{{}}.{module}.weight", shared.blocks),
                    list: LIST.to_owned(),
                    at: block,
                };
                kinds.push((index, folding::SCALED));
                let place = shared.modules.iter().position(|known| known == module);
                ours.push(((block, place), outlined));
            } else {
                tensors.push(outlined);
            }
        }
        // Behind all others and block by block: then it makes no difference to where a file has what which blocks share.
        ours.sort_by_key(|(place, _)| *place);
        tensors.extend(ours.into_iter().map(|(_, outlined)| outlined));
        Ok(Decision {
            kinds,
            outline: Some(Outline {
                config,
                tensors,
                shared: Some(LIST.to_owned()),
            }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&ShareBlocks)
    }
}

/// The first block of each block's run, where the recipe says which blocks share.
fn given_runs(context: &Context<'_>, count: usize) -> Planned<Option<Vec<u32>>> {
    let asked = &context.spec.options;
    let Some(runs) = asked.get("runs") else {
        return Ok(None);
    };
    let refuse = |code: &'static str, detail: String| {
        Err(vec![Refusal::new(
            options::pointer(context, "runs"),
            code,
            detail,
        )])
    };
    if let Some(other) = ["keep", "ratio", "choose"]
        .iter()
        .find(|other| asked.get(**other).is_some())
    {
        return refuse("conflicting_options", format!("give runs or {other}, not both"));
    }
    let run = |run: &Value| -> Option<Vec<usize>> {
        let blocks = run.as_array()?.iter();
        blocks
            .map(|block| usize::try_from(block.as_u64()?).ok())
            .collect()
    };
    let read = runs
        .as_array()
        .and_then(|runs| runs.iter().map(run).collect::<Option<Vec<_>>>());
    let Some(runs) = read.filter(|runs| !runs.is_empty()) else {
        let detail = "runs is a list of lists of neighbouring blocks, such as [[4, 5], [8, 9, 10]]";
        return refuse("invalid_option", detail.to_owned());
    };
    let mut firsts: Vec<u32> = (0..count as u32).collect();
    let mut taken = vec![false; count];
    for run in runs {
        let are_neighbours = run.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
        let fits = run.last().is_some_and(|last| *last < count);
        if run.len() < 2 || !are_neighbours || !fits {
            let detail = format!(
                "{run:?} is no run: two or more blocks in order, without a gap, of 0 to {}",
                count - 1
            );
            return refuse("invalid_option", detail);
        }
        for block in &run {
            if std::mem::replace(&mut taken[*block], true) {
                return refuse("invalid_option", format!("block {block} is in two runs"));
            }
            firsts[*block] = run[0] as u32;
        }
    }
    Ok(Some(firsts))
}

/// The matrices that every block has alike and that are to be shared, each block with its own; nothing where there are none.
fn shared(context: &Context<'_>, which: &str) -> Planned<Option<SharedBlocks>> {
    let is_part = |role: Role| match role {
        Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnQkv | Role::AttnOutput => which != "mlp",
        Role::FfnGate | Role::FfnUp | Role::FfnDown => which != "attention",
        _ => false,
    };
    let is_read = |name: &str| context.readers.contains(name) || context.transposed.contains(name);
    let mut found: Option<SharedBlocks> = None;
    for tensor in context.tensors {
        if tensor.layer != Some(0) || !is_part(tensor.role) || !is_read(&tensor.name) {
            continue;
        }
        let place = tensor.module().split_once(".0.");
        let Some((blocks, module)) = place.filter(|_| tensor.name.ends_with(".weight")) else {
            continue;
        };
        let shared = found.get_or_insert_with(|| SharedBlocks {
            blocks: blocks.to_owned(),
            modules: Vec::new(),
            own: vec![true; context.blocks.len()],
        });
        if shared.blocks == blocks && in_every_block(context, shared, module, tensor)? {
            shared.modules.push(module.to_owned());
        }
    }
    Ok(found.filter(|shared| !shared.modules.is_empty()))
}

/// True where a module is targeted in every block, and alike in all.
fn in_every_block(
    context: &Context<'_>,
    shared: &SharedBlocks,
    module: &str,
    like: &TensorPlan,
) -> Planned<bool> {
    let mut targeted = true;
    for block in 0..shared.own.len() {
        let name = shared.name(module, block);
        let at = context.tensors.iter().position(|t| t.name == name);
        let alike = |at: &usize| {
            let tensor = &context.tensors[*at];
            tensor.shape == like.shape && tensor.source_dtype == like.source_dtype
        };
        let Some(at) = at.filter(alike) else {
            let detail = format!(
                "{} is not in every block alike: only equal blocks can share",
                like.name
            );
            return Err(vec![Refusal::new(
                context.technique_pointer(),
                "mixed_structure",
                detail,
            )]);
        };
        targeted &= context.targeted[at];
    }
    Ok(targeted)
}

impl Reshapes for ShareBlocks {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&ShareBlocks)
    }
}

impl Blocks for ShareBlocks {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let how = fit::How {
            fit: options.text("fit").to_owned(),
            damp: options.real("damp_percent"),
        };
        let outline = stage.stage.outline.as_ref();
        let shared = outline.and_then(|outline| SharedBlocks::of(&outline.config));
        let is_given = stage.stage.options.get("runs").is_some();
        let by = (!is_given).then(|| choose::By::of(options.text("choose")));
        Box::new(fit::Sharer::new(stage, how, shared, by))
    }

    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], sizes: &Sizes, longest: usize) -> u64 {
        let tokens = crate::calibrate::batch_tokens(sizes.widest, longest);
        8 * (tokens * sizes.hidden) as u64 + fit::working_bytes(tensors, sizes.hidden)
    }
}
