//! Tied: matrices that blocks share are there once, with the small modeling file that transformers loads.
//!
//! Owns: names of shared matrices, the modeling file. Must not know: how they were found.
//! Invariant: what is left out equals what is kept, to the bit; names and lengths do not depend on which blocks share.

use super::container::{Entry, Layout};
use super::{Loading, Request, Writer, hf_output, remote_code, shards};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::plan::{SharedBlocks, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

/// The format.
pub(super) struct Tied;

const MODULE: &str = "modeling_tied";
/// The class that is loaded.
const CLASS: &str = "TiedModel";
/// What shared matrices are called beside the blocks.
const HOME: &str = "shared_blocks";

/// What transformers loads: the architecture's own class, whose blocks read shared matrices.
fn modeling(base: &str, loader: &str) -> String {
    format!(
        r#"# Written by modelpress. Blocks share matrices: config.json says under "shared_blocks" which blocks have matrices of
# their own (1) and which read those of the block in front (0). A shared matrix is one parameter; biases, norms and the
# place in the cache stay each block's own.
from torch import nn
from transformers import {base}
from transformers.pytorch_utils import Conv1D


class SharedLinear(nn.Module):
    def __init__(self, linear, home):
        super().__init__()
        self.bias = linear.bias
        self.is_turned = isinstance(linear, Conv1D)
        object.__setattr__(self, "home", home)  # no child: the parameter is listed once, where it lives

    @property
    def weight(self):
        return self.home.weight

    def forward(self, x):
        return nn.functional.linear(x, self.weight.t() if self.is_turned else self.weight, self.bias)


def place(root, path):
    for name in path.split("."):
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]
    return root


class {CLASS}({base}):
    _auto_class = "{loader}"  # save_pretrained takes this file along

    def __init__(self, config):
        super().__init__(config)
        shared = config.shared_blocks
        path = shared["blocks"].removeprefix(self.base_model_prefix + ".")
        owner = self.base_model.get_submodule(path.rpartition(".")[0])
        runs = nn.ModuleList()
        for block, is_own in zip(self.base_model.get_submodule(path), shared["own"]):
            if is_own:
                runs.append(nn.Module())
            for module in shared["modules"]:
                parent, _, name = module.rpartition(".")
                parent = block.get_submodule(parent)
                linear, home = getattr(parent, name), place(runs[-1], module)
                if is_own:
                    home.weight = linear.weight
                setattr(parent, name, SharedLinear(linear, home))
        owner.{HOME} = runs
"#
    )
}

impl Tied {
    /// What is shared, if all of it is there and can be left out.
    fn shared(request: &Request<'_>) -> std::result::Result<SharedBlocks, Vec<Refusal>> {
        let refuse =
            |code: &'static str, detail: String| Err(vec![Refusal::new(request.pointer, code, detail)]);
        if let Some(other) = request
            .tensors
            .iter()
            .find(|t| !matches!(t.kind, Kind::Dense { .. }))
        {
            let detail = format!(
                "{} is {}: tied holds plain numbers",
                other.name,
                other.kind.label()
            );
            return refuse("format_cannot_hold", detail);
        }
        let Some(shared) = request.model.config.as_ref().and_then(SharedBlocks::of) else {
            let detail = "no blocks of the model share matrices: ask for the format safetensors instead";
            return refuse("format_cannot_hold", detail.to_owned());
        };
        if let Some(expert) = shared.modules.iter().find(|module| module.contains("experts")) {
            let detail = format!(
                "{expert} is one of many experts, which transformers keeps in one tensor: ask for the format safetensors, or share \
                 attention only"
            );
            return refuse("format_cannot_hold", detail);
        }
        for module in &shared.modules {
            for block in 0..shared.own.len() {
                let of = |block: usize| {
                    let name = shared.name(module, block);
                    request.tensors.iter().find(|t| t.name == name)
                };
                let like = |a: &TensorPlan, b: &TensorPlan| a.shape == b.shape && a.kind == b.kind;
                let (Some(tensor), Some(_)) = (of(block), of(0).zip(of(block)).filter(|(a, b)| like(a, b)))
                else {
                    let detail = format!(
                        "config.json says that {module} is shared, and block {block} has none like it"
                    );
                    return refuse("format_cannot_hold", detail);
                };
                if !tensor.steps.is_empty() {
                    let detail = format!(
                        "{} is shared, and a later stage changes it in each block by itself: let the stage that shares be the last, \
                         or ask for another format",
                        tensor.name
                    );
                    return refuse("sharing_lost", detail);
                }
            }
        }
        Ok(shared)
    }

    /// The tensor that stands for one that is shared.
    fn kept(shared: &SharedBlocks, name: &str) -> Option<String> {
        let (module, block) = shared.place(name)?;
        let first = shared.firsts().get(block).copied()? as usize;
        Some(shared.name(module, first))
    }

    /// What a tensor is called; nothing where another stands for it.
    fn name(shared: &SharedBlocks, name: &str) -> Option<String> {
        let Some((module, block)) = shared.place(name) else {
            return Some(name.to_owned());
        };
        let run = shared.own[..block].iter().filter(|own| **own).count();
        let owner = shared.blocks.rsplit_once('.').map_or("", |(owner, _)| owner);
        let home = if owner.is_empty() {
            HOME.to_owned()
        } else {
            format!("{owner}.{HOME}")
        };
        shared.own[block].then(|| format!("{home}.{run}.{module}.weight"))
    }
}

impl Writer for Tied {
    fn name(&self) -> &'static str {
        "tied"
    }

    fn summary(&self) -> &'static str {
        "Safetensors in which matrices that blocks share are there once, and a modeling file of forty lines that transformers \
         loads with trust_remote_code"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["transformers"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: Some("transformers"),
            text: "In Python; `modeling_tied.py` lets blocks read one matrix together:\n\n```python\nfrom transformers import \
                   AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\".\", \
                   trust_remote_code=True)\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```"
                .to_owned(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {}})
    }

    fn parameters(&self, request: &Request<'_>) -> u64 {
        let shared = request.model.config.as_ref().and_then(SharedBlocks::of);
        let is_there = |t: &&TensorPlan| {
            shared
                .as_ref()
                .is_none_or(|shared| Self::name(shared, &t.name).is_some())
        };
        let there = request.tensors.iter().filter(is_there);
        there.map(|t| t.elements() as u64).sum()
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let shared = Self::shared(request)?;
        let own = remote_code::config(request, MODULE, CLASS)?;
        let mut layout = hf_output::side_files(request, Some(own.config.into()))?;
        layout.push_bytes(
            format!("{MODULE}.py"),
            modeling(&own.base, own.loader).into_bytes(),
        );
        let parts = |index: usize| {
            let tensor = &request.tensors[index];
            let entry = |name: String| {
                let dtype = match tensor.kind {
                    Kind::Dense { dtype } => dtype,
                    _ => tensor.source_dtype,
                };
                Entry {
                    name,
                    dtype: dtype.name().to_owned(),
                    shape: tensor.shape.clone(),
                    bytes: dtype.bytes(tensor.rows(), tensor.cols()).unwrap_or(0) as u64,
                }
            };
            Self::name(&shared, &tensor.name).map(entry).into_iter().collect()
        };
        shards::push(&mut layout, request.tensors.len(), &parts);
        Ok(layout)
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        let Weight::Dense(dense) = weight else {
            return Err(Error::internal(format!("tied was given {weight:?}")));
        };
        let shared = request.model.config.as_ref().and_then(SharedBlocks::of);
        let shared = shared.ok_or_else(|| Error::internal("nothing is shared"))?;
        let name = &request.tensors[index].name;
        if Self::name(&shared, name).is_some() {
            return Ok(vec![dense.bytes.clone()]);
        }
        check_equal(request, &shared, name, &dense.bytes)?;
        Ok(Vec::new())
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        hf_output::reopen(files)
    }
}

/// Compares what is left out with what stands for it: config.json may come from elsewhere.
fn check_equal(request: &Request<'_>, shared: &SharedBlocks, name: &str, bytes: &[u8]) -> Result<()> {
    let kept = Tied::kept(shared, name).unwrap_or_default();
    let tensor = request.model.tensors.iter().find(|t| t.name == kept);
    let tensor = tensor.ok_or_else(|| Error::internal(format!("nothing stands for {name}")))?;
    let mut other = vec![0; tensor.bytes as usize];
    request.model.rows(tensor)?.read_bytes(0, &mut other)?;
    if other == bytes {
        return Ok(());
    }
    Err(Error::bad_input(
        "not_shared",
        format!(
            "config.json says that {name} is shared with {kept}, and they differ: remove \"shared_blocks\" from it"
        ),
    ))
}
