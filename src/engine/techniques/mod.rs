//! Techniques: each turns a weight of one kind into another.
//!
//! Owns: the seam and the list. Must not know: file formats. Siblings never import each other.
//! Invariant: `run` produces exactly the kind `plan` promised, the same bytes for any number of threads.
//!
//! Shared by siblings: `convolving`, `correction`, `factoring`, `folding`, `hessians`, `layerwise`, `mixture`, `options`, `pruning`, `structure`, `whitening`.
//!
//! A technique is one file and one line in [`TECHNIQUES`]; documentation, the API's schema and the law tests are
//! made from the list.

mod autoround;
mod awq;
mod convolving;
mod correction;
mod cp;
mod depthwise_separable;
mod factoring;
mod folding;
mod fp8;
mod ggml;
mod gptq;
mod gqa;
mod hadamard;
mod hessians;
mod hqq;
mod kmeans;
mod kv_cache;
mod layerwise;
mod loftq;
mod lqer;
mod magnitude;
mod mixture;
mod moefication;
mod nf4;
mod obd;
mod options;
mod prune_blocks;
mod prune_experts;
mod prune_heads;
mod prune_hidden;
mod prune_neurons;
mod pruning;
mod rtn;
mod share_blocks;
mod smoothquant;
mod sparsegpt;
mod spatial_svd;
mod static_activations;
mod structure;
mod svd;
mod tensor_train;
mod tucker;
mod upcycle;
mod wanda;
mod whitened_svd;
mod whitening;

use crate::calibrate::Visitor;
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use crate::network::Sizes;
use crate::observe::Observer;
use crate::plan::{CacheDtype, Context, Outline, OutlinedTensor, Rotation, StagePlan, Statistic, TensorPlan};
use crate::recipe::Refusal;
use crate::tensor::Rows;
use crate::weight::{InputSquares, Kind, Scale, Sparsity, Weight};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// What a technique decided.
#[derive(Default)]
pub struct Decision {
    /// Index of each tensor it changes, and what it becomes.
    pub kinds: Vec<(usize, Kind)>,
    /// Name of the mix, where it has one.
    pub label: Option<String>,
    /// Index of each tensor whose results are kept in the key/value cache, and as what.
    pub caches: Vec<(usize, CacheDtype)>,
    /// What it must know of its layers' inputs; only for techniques that work on one tensor at a time.
    pub needs: Option<Statistic>,
    /// How it turns tensors, for those that it turns.
    pub rotations: Vec<(usize, Rotation)>,
    /// Zeros that it makes, by the tensor's index.
    pub sparsities: Vec<(usize, Sparsity)>,
    /// The model that it makes, where it changes the structure.
    pub outline: Option<Outline>,
    /// True where only weights or data tell what some tensors become: their kinds are the largest then.
    pub is_open: bool,
}

/// One tensor to be made.
pub struct Task<'a> {
    /// The stage's options and label.
    pub stage: &'a StagePlan,
    /// The tensor.
    pub tensor: &'a TensorPlan,
    /// What it becomes.
    pub kind: Kind,
    /// Mean square of each column's inputs, for each matrix in the tensor, where the stage asked for it and it is known.
    pub importance: Option<&'a [f32]>,
    /// How much the loss bends along each weight, where the stage asked for it and it is known.
    pub diagonal: Option<&'a [f32]>,
    /// The zeros that it is to have, with their share, where the stage makes some.
    pub sparsity: Option<Sparsity>,
    /// How it is turned, where the plan says so.
    pub rotation: Option<&'a Rotation>,
    /// Seed of everything random.
    pub seed: u64,
    /// True once nobody waits for it any more.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// All values of another tensor, as it is before this stage.
    pub other: &'a (dyn Fn(&str) -> Result<Vec<f32>> + Sync),
}

/// A compression technique.
pub trait Technique: Sync {
    /// Name as recipes spell it.
    fn name(&self) -> &'static str;
    /// One or two sentences for the catalogue, with the source.
    fn summary(&self) -> &'static str;
    /// Its page of the documentation, Markdown: what it does, Formula, When to use it, Measured.
    fn page(&self) -> &'static str;
    /// JSON Schema of its options: description, default and example for each.
    fn schema(&self) -> Value;
    /// Chooses what becomes of each targeted tensor, or says why it cannot.
    fn plan(&self, context: &Context<'_>) -> std::result::Result<Decision, Vec<Refusal>>;
    /// How it works.
    fn work(&self) -> Work;
    /// The class of layers that it is for, as `targets` spells it.
    fn layers(&self) -> &'static str {
        "Linear"
    }
    /// The schemes that it can give each tensor by itself, where there are several.
    fn schemes(&self) -> Option<&'static dyn Schemes> {
        None
    }
    /// The options of each of several stages that it is instead of one, where these say that it is done in steps.
    fn steps(&self, _options: &Value) -> Option<Vec<Value>> {
        None
    }
    /// How that is found out which its options leave open, where they can leave something open.
    fn settles(&self) -> Option<&'static dyn Settles> {
        None
    }
    /// True where what is zero before it is zero after it, in what it makes a tensor into.
    fn keeps_zeros(&self, _kind: &Kind) -> bool {
        false
    }
    /// True where it needs a head that shares no weight with the embedding, with these options, checked or not.
    fn unties(&self, _options: &Value) -> bool {
        false
    }
}

/// Schemes that a technique can give each tensor by itself: what a budget chooses from.
pub trait Schemes: Sync {
    /// All of them, as users name them.
    fn all(&self) -> &'static [&'static str];
    /// Those to choose from unless the user says otherwise.
    fn suggested(&self) -> &'static [&'static str];
    /// True where a targeted tensor can have the scheme.
    fn fits(&self, scheme: &str, tensor: &TensorPlan) -> bool;
    /// The options with which a stage gives modules these schemes, made from those that the user gave it.
    fn assign(&self, options: &Value, modules: &BTreeMap<&str, Vec<&str>>) -> Value;
    /// True where some rows of a tensor do not tell what the whole would lose.
    fn needs_all_rows(&self) -> bool {
        false
    }
}

/// Finds out what options leave open, such as ranks that keep so much of each matrix: the stage is planned again then, with
/// options that say it.
pub trait Settles: Sync {
    /// How tensors are looked at.
    fn looks(&self) -> Look;
    /// The options with all said, by what was seen of the tensors that the stage changes.
    fn settle(&self, options: &Value, seen: &[(&TensorPlan, Vec<f64>)]) -> Result<Value>;
}

/// How a stage looks at tensors before it is planned again.
pub enum Look {
    /// At one after another: what is seen of each is some numbers.
    Each(fn(&Task<'_>, &dyn Rows) -> Result<Vec<f64>>),
    /// Block by block: the numbers are what [`Maker::listed`] hands out under [`seen_name`], as [`seen_words`].
    Blocks(&'static dyn Blocks),
}

/// What a list of numbers that were seen of the tensor of that index is called.
pub fn seen_name(tensor: usize) -> String {
    format!("seen-{tensor}")
}

/// Numbers as a list: each its bits in two words, the lower first.
pub fn seen_words(numbers: &[f64]) -> Vec<u32> {
    let halves = |v: &f64| [v.to_bits() as u32, (v.to_bits() >> 32) as u32];
    numbers.iter().flat_map(halves).collect()
}

/// Numbers of such a list.
pub fn seen_numbers(words: &[u32]) -> Vec<f64> {
    let pairs = words.as_chunks::<2>().0.iter();
    pairs
        .map(|[low, high]| f64::from_bits(u64::from(*high) << 32 | u64::from(*low)))
        .collect()
}

/// How a technique works.
pub enum Work {
    /// On one tensor after another, from its values alone.
    Each(&'static dyn Each),
    /// Block by block, on what the layers read when the model runs over data.
    Blocks(&'static dyn Blocks),
    /// Block by block too, but weights stay: what is found is stored beside them.
    Scales(&'static dyn Blocks),
    /// Changes the model's structure: what follows sees another model.
    Reshapes(&'static dyn Reshapes),
}

impl Work {
    /// The work of those that go through the model block by block.
    pub fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        match self {
            Self::Each(_) => None,
            Self::Blocks(work) | Self::Scales(work) => Some(*work),
            Self::Reshapes(work) => work.by_blocks(),
        }
    }
}

/// Work on one tensor.
pub trait Each: Sync {
    /// Makes one tensor.
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight>;
    /// A look at all tensors before the first is made, where these options need one.
    fn survey(&self, _options: &Value) -> Option<&'static dyn Survey> {
        None
    }
}

/// What decides on one tensor by looking at all of them: weights of many layers that compete.
pub trait Survey: Sync {
    /// What is to be known of one tensor, in a few numbers.
    fn look(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Vec<u64>>;
    /// The share of each tensor that goes, by what was seen of each.
    fn shares(&self, options: &Value, seen: &[Vec<u64>]) -> Vec<f64>;
}

/// Work on a model that runs.
pub trait Blocks: Sync {
    /// Whoever looks at the inputs and makes the weights.
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a>;
    /// Most bytes that it holds for one block beside weights and activations, with these options, in a network of these
    /// sizes whose longest sequence has `longest` tokens.
    fn working_bytes(&self, options: &Value, tensors: &[&TensorPlan], sizes: &Sizes, longest: usize) -> u64;
    /// How exact the products of linear layers are that it sees the inputs of.
    fn precision(&self, _options: &Value) -> Precision {
        Precision::Split
    }
}

/// Work on a model's structure.
pub trait Reshapes: Sync {
    /// How it goes through the model first, block by block, where it does: weights that it makes on the way stay of their
    /// shapes, and lists that it finds say what is taken of them.
    fn by_blocks(&self) -> Option<&'static dyn Blocks>;
    /// A tensor of the new model that is taken from none of the old one's.
    fn make(&self, _stage: &StagePlan, tensor: &OutlinedTensor, _old: &Old<'_>) -> Result<Vec<f32>> {
        Err(Error::internal(format!("nothing makes {}", tensor.name)))
    }
    /// True where what is taken is changed once more.
    fn finishes(&self, _stage: &StagePlan) -> bool {
        false
    }
    /// Changes what was taken of another tensor.
    fn finish(&self, _stage: &StagePlan, _tensor: &OutlinedTensor, _values: &mut [f32], _old: &Old<'_>) {}
}

/// A model behind the stage that changes its structure.
pub struct Old<'a> {
    /// All values of a tensor.
    pub tensor: &'a (dyn Fn(&str) -> Result<Vec<f32>> + Sync),
    /// True where there is a tensor of that name.
    pub has: &'a (dyn Fn(&str) -> bool + Sync),
    /// A list that the stage found.
    pub list: &'a (dyn Fn(&str) -> Result<Vec<u32>> + Sync),
    /// Seed of everything random.
    pub seed: u64,
    /// True once nobody waits any more.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// A visitor that makes weights.
pub trait Maker: Visitor {
    /// What was made since this was last asked: index of the tensor, and its weight.
    fn made(&mut self) -> Vec<(usize, Weight)>;
    /// Scales that were found since this was last asked, of the inputs of layers or of what they write to caches.
    fn found(&mut self) -> Vec<(usize, Scale, f32)> {
        Vec::new()
    }
    /// Lists that were found since this was last asked, by name: what is taken of a model whose structure changes.
    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        Vec::new()
    }
    /// How often it goes through the model; what it found on the way stays with it. One that goes more than once starts over
    /// where it was cut short.
    fn walks(&self) -> usize {
        1
    }
    /// True where what was summed up over blocks is not kept over a break: then the walk starts over.
    fn starts_over(&self) -> bool {
        false
    }
    /// How tensors were scaled since this was last asked, for those that it scales.
    fn scaled(&mut self) -> Vec<(usize, Factors)> {
        Vec::new()
    }
}

/// How a tensor was scaled without changing what the model computes; what it becomes is measured against that. An empty
/// list is all ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Factors {
    /// One for each row.
    pub rows: Vec<f32>,
    /// One for each column.
    pub cols: Vec<f32>,
}

impl Factors {
    /// Scales some whole rows of `count` values, the first being row `first`.
    pub fn apply(&self, first: usize, count: usize, values: &mut [f32]) {
        for (row, values) in (first..).zip(values.chunks_mut(count.max(1))) {
            let by = self.rows.get(row).copied().unwrap_or(1.0);
            for v in values.iter_mut() {
                *v *= by;
            }
            values.iter_mut().zip(&self.cols).for_each(|(v, c)| *v *= c);
        }
    }
}

/// A stage that works block by block.
#[derive(Clone, Copy)]
pub struct BlockStage<'a> {
    /// Its place among the stages.
    pub index: usize,
    /// The stage.
    pub stage: &'a StagePlan,
    /// Every tensor of the model.
    pub tensors: &'a [TensorPlan],
    /// Blocks of the network.
    pub blocks: usize,
    /// Those that the checkpoint stores as `[in, out]`.
    pub transposed: &'a HashSet<String>,
    /// All values of a tensor as it is before this stage, by its index.
    pub before: &'a (dyn Fn(usize) -> Result<Vec<f32>> + Sync),
    /// What was seen of a tensor's inputs, by its index, where the stage asked for it.
    pub squares: &'a (dyn Fn(usize) -> Result<InputSquares> + Sync),
    /// How much the loss bends along each weight of a tensor, by its index, where the stage asked for it.
    pub diagonal: &'a (dyn Fn(usize) -> Result<Vec<f32>> + Sync),
    /// Seed of everything random.
    pub seed: u64,
    /// Whom it tells, and who may stop it.
    pub observer: &'a dyn Observer,
}

impl BlockStage<'_> {
    /// What the tensor of that name becomes in this stage, if anything.
    pub fn step(&self, name: &str) -> Option<(usize, Kind)> {
        let at = self.tensors.iter().position(|t| t.name == name)?;
        let step = self.tensors[at].steps.iter().find(|s| s.stage == self.index)?;
        Some((at, step.kind))
    }

    /// The zeros that the tensor of that name is to have behind this stage.
    pub fn sparsity(&self, name: &str) -> Option<Sparsity> {
        let tensor = self.tensors.iter().find(|t| t.name == name)?;
        tensor.steps.iter().find(|s| s.stage == self.index)?.sparsity
    }
}

/// Every technique, alphabetical.
pub const TECHNIQUES: &[&dyn Technique] = &[
    &autoround::AutoRound,
    &awq::Awq,
    &cp::Cp,
    &depthwise_separable::DepthwiseSeparable,
    &fp8::Fp8,
    &ggml::Ggml,
    &gptq::Gptq,
    &gqa::Gqa,
    &hadamard::Hadamard,
    &hqq::Hqq,
    &kmeans::KMeans,
    &kv_cache::KvCache,
    &loftq::LoftQ,
    &lqer::Lqer,
    &magnitude::Magnitude,
    &moefication::Moefication,
    &nf4::NormalFloat4,
    &obd::OptimalBrainDamage,
    &prune_blocks::PruneBlocks,
    &prune_experts::PruneExperts,
    &prune_heads::PruneHeads,
    &prune_hidden::PruneHidden,
    &prune_neurons::PruneNeurons,
    &rtn::Rtn,
    &share_blocks::ShareBlocks,
    &smoothquant::SmoothQuant,
    &sparsegpt::SparseGpt,
    &spatial_svd::SpatialSvd,
    &static_activations::StaticActivations,
    &svd::Svd,
    &tensor_train::TensorTrain,
    &tucker::Tucker,
    &upcycle::Upcycle,
    &wanda::Wanda,
    &whitened_svd::WhitenedSvd,
];

/// The technique of that name.
pub fn find(name: &str) -> Option<&'static dyn Technique> {
    TECHNIQUES.iter().copied().find(|t| t.name() == name)
}

/// Names of all techniques.
pub fn names() -> Vec<&'static str> {
    TECHNIQUES.iter().map(|t| t.name()).collect()
}
