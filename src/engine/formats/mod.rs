//! File formats: readers of what is uploaded, writers of what is handed back.
//!
//! Owns: the two seams and their lists. Must not know: techniques. Siblings never import each other; what several
//! need is beside them: laying bytes out, packing codes, the Hugging Face folder and its safetensors files.
//! Shared by siblings: `container`, `four_bit`, `hf_output`, `pack`, `remote_code`, `safetensors`, `shards`.
//! Invariant: a writer that accepts a plan can write it: everything it cannot hold is refused in `layout`.
//!
//! A format is one file and one line in [`READERS`] or [`WRITERS`]. They are two lists because most formats are
//! only written: reading back a GPTQ checkpoint is not the inverse of writing one.

pub mod awq;
pub mod bitsandbytes;
pub mod compressed_tensors;
pub mod container;
mod four_bit;
pub mod gguf;
pub mod gptq;
pub mod hf_output;
pub mod huggingface;
pub mod low_rank;
pub mod pack;
pub mod packed;
pub mod peft;
mod remote_code;
pub mod safetensors;
mod shards;
pub mod tied;

use crate::checkpoint::{Checkpoint, SourceFile};
use crate::error::{Error, Result};
use crate::plan::{ImportancePlan, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::{InputSquares, Scale, Weight};
use container::{Entry, Layout};
use serde_json::Value;

/// Opens uploaded files.
pub trait Reader: Sync {
    /// Name as the API shows it; that of the writer, where there is one.
    fn name(&self) -> &'static str;
    /// What to upload, in one sentence for the catalogue.
    fn summary(&self) -> &'static str;
    /// True where the files look like this format. Reads a few bytes at most.
    fn sniff(&self, files: &[SourceFile]) -> bool;
    /// Parses the headers and checks them against the files.
    fn open(&self, files: &[SourceFile]) -> Result<Checkpoint>;
}

/// What was seen of a tensor's inputs, by the tensor's index.
pub type Squares<'a> = dyn Fn(usize) -> Result<InputSquares> + 'a;

/// Numbers that calibrated stages found beside weights, by the tensor's index.
pub type Scales<'a> = dyn Fn(usize, Scale) -> Result<f32> + 'a;

/// What a writer lays out.
pub struct Request<'a> {
    /// The source.
    pub model: &'a Checkpoint,
    /// Every tensor with its final kind, in the order they will be produced.
    pub tensors: &'a [TensorPlan],
    /// The recipe's label for the mix (`Q4_K_M`), where it has one.
    pub label: Option<&'a str>,
    /// The importance of columns that the tensors are made with, where they are.
    pub importance: Option<&'a ImportancePlan>,
    /// Its numbers, once there are some.
    pub squares: Option<&'a Squares<'a>>,
    /// Scales of inputs and caches, once there are some.
    pub scales: Option<&'a Scales<'a>>,
    /// The format's own options.
    pub options: &'a Value,
    /// JSON pointer of this format in the recipe, for refusals.
    pub pointer: &'a str,
}

impl Request<'_> {
    /// A number that was found for a tensor.
    pub fn scale(&self, index: usize, which: Scale) -> Result<f32> {
        let scales = self
            .scales
            .ok_or_else(|| Error::internal("scales are not known yet"))?;
        scales(index, which)
    }
}

/// What an artifact's card says about loading it.
#[derive(Clone, Debug)]
pub struct Loading {
    /// The hub's name of the library, where it is one's own format.
    pub library: Option<&'static str>,
    /// Markdown, in the artifact's folder; `{file}` stands for its first file of weights.
    pub text: String,
}

impl Loading {
    /// By transformers, behind these words; `needs` is a package that it wants for it.
    fn with_transformers(words: &str, needs: Option<&str>) -> Self {
        let install = needs.map_or_else(String::new, |package| format!("  # pip install {package}"));
        Self {
            library: Some("transformers"),
            text: format!(
                "{words}\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 model = AutoModelForCausalLM.from_pretrained(\".\", device_map=\"auto\"){install}\n\
                 tokenizer = AutoTokenizer.from_pretrained(\".\")\n```"
            ),
        }
    }
}

/// Lays out and encodes artifacts.
pub trait Writer: Sync {
    /// Name as recipes spell it.
    fn name(&self) -> &'static str;
    /// One sentence for the catalogue.
    fn summary(&self) -> &'static str;
    /// Engines known to load it.
    fn engines(&self) -> &'static [&'static str];
    /// How people load it.
    fn loading(&self) -> Loading;
    /// Engines and loading of an artifact with these options, where they change either.
    fn loaded_by(&self, _options: &Value) -> (&'static [&'static str], Loading) {
        (self.engines(), self.loading())
    }
    /// JSON Schema of its options.
    fn schema(&self) -> Value;
    /// Bytes of weights that an engine holds once it has loaded the artifact: those that are stored, where they are not
    /// turned into others on the way.
    fn memory_bytes(&self, _request: &Request<'_>, layout: &Layout) -> u64 {
        layout.weight_bytes()
    }
    /// True where it holds scales of key/value caches.
    fn holds_caches(&self) -> bool {
        false
    }
    /// What the engines that load it fuse a layer into, with its neighbours; all of it must have one scheme then.
    fn fuses(&self, _tensor: &TensorPlan) -> Option<&'static str> {
        None
    }
    /// Weights that the files hold, those that blocks share once.
    fn parameters(&self, request: &Request<'_>) -> u64 {
        request.tensors.iter().map(|t| t.elements() as u64).sum()
    }
    /// The files, byte-exact, or why not.
    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>>;
    /// The bytes of one tensor, one vector for each of its entries in the layout, in the same order.
    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>>;
    /// What the parser that uploads go through finds in the written files: the layout's entries, if all is well.
    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>>;
}

/// Readers, most particular first.
pub const READERS: &[&dyn Reader] = &[&gguf::Gguf, &huggingface::HuggingFace, &safetensors::Safetensors];

/// Writers, alphabetical.
pub const WRITERS: &[&dyn Writer] = &[
    &awq::Awq,
    &bitsandbytes::Bitsandbytes,
    &compressed_tensors::CompressedTensors,
    &gguf::Gguf,
    &gptq::Gptq,
    &gguf::imatrix::Imatrix,
    &low_rank::LowRankPairs,
    &packed::Packed,
    &peft::Peft,
    &safetensors::Safetensors,
    &tied::Tied,
];

/// The writer of models in between two stages, which are read back as they were.
pub(crate) fn in_between() -> &'static dyn Writer {
    &safetensors::Safetensors
}

pub(crate) fn readers() -> &'static [&'static dyn Reader] {
    READERS
}

/// The writer of that name.
pub fn writer(name: &str) -> Option<&'static dyn Writer> {
    WRITERS.iter().copied().find(|w| w.name() == name)
}
