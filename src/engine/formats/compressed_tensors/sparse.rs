//! The sparse checkpoints of older compressed-tensors: masks and the values that they keep.
//!
//! Owns: names, `sparsity_config`, which tensors fit. Must not know: how weights were pruned.
//! Invariant: lengths are known before a weight is made: a mask keeps as many values as the plan bounds, zeros too where
//! there are fewer.
//!
//! A weight `X.weight` becomes `X.compressed`, `X.bitmask` and `X.shape`, as `compressors/sparse_compressors` of
//! compressed-tensors 0.9 to 0.14 reads them; 0.15 gave them up.

use super::{Entry, Loading, Part, Request};
use crate::error::{Error, Result};
use crate::kernels::sparse::mask;
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::DType;
use crate::weight::{Dense, Kind, Pattern};
use serde_json::{Value, json};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Two values of every four.
    TwoOfFour,
    /// Values anywhere.
    Anywhere,
}

/// The option's name.
pub(super) const OPTION: &str = "sparsity";

/// Runs of 2:4.
const TWO_OF_FOUR: (usize, usize) = (2, 4);

/// The option's schema.
pub(super) fn schema() -> Value {
    json!({"type": "string", "enum": ["dense", "sparse-24-bitmask", "sparse-bitmask"], "default": "dense", "examples": ["dense"],
        "description": "How plain weights that a stage pruned are stored. dense leaves their zeros in, as any engine reads them. The \
                        other two are sparse checkpoints of older versions, which compressed-tensors up to 0.14 with \
                        transformers 4 makes dense in memory, and today's vLLM refuses: sparse-24-bitmask for 2:4, \
                        sparse-bitmask for zeros anywhere."})
}

impl Form {
    /// What the options ask for; nothing for dense.
    pub(super) fn of(options: &Value) -> Option<Self> {
        match options.get(OPTION)?.as_str()? {
            "sparse-24-bitmask" => Some(Self::TwoOfFour),
            "sparse-bitmask" => Some(Self::Anywhere),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::TwoOfFour => "sparse-24-bitmask",
            Self::Anywhere => "sparse-bitmask",
        }
    }

    fn structure(self) -> &'static str {
        match self {
            Self::TwoOfFour => "2:4",
            Self::Anywhere => "unstructured",
        }
    }

    /// By what, and how.
    pub(super) fn loaded_by(self) -> (&'static [&'static str], Loading) {
        const ENGINES: &[&str] = &["transformers 4 with compressed-tensors up to 0.14"];
        let install = "With `pip install 'compressed-tensors<=0.14.0.1' 'transformers<5' accelerate`, the newest versions that \
                       read sparse checkpoints; weights are dense in memory. compressed-tensors from 0.15 on has no reader of \
                       them, and vLLM from 0.19.1 on refuses them: for these write the option sparsity \"dense\" or the format \
                       safetensors.";
        let code = match self {
            Self::TwoOfFour => "model = AutoModelForCausalLM.from_pretrained(\".\", dtype=\"auto\")",
            // transformers 4 cannot prepare for values of a length that depends on them.
            Self::Anywhere => {
                "model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)\n\
                               ModelCompressor.from_compression_config(config.quantization_config).decompress(\".\", model)"
            }
        };
        let imports = match self {
            Self::TwoOfFour => "from transformers import AutoModelForCausalLM, AutoTokenizer\n",
            Self::Anywhere => {
                "from compressed_tensors import ModelCompressor\n\
                               from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n\n\
                               config = AutoConfig.from_pretrained(\".\")"
            }
        };
        let text = format!(
            "{install}\n\n```python\n{imports}\n{code}\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```"
        );
        let library = Some("transformers");
        (ENGINES, Loading { library, text })
    }

    /// How many values a tensor keeps; nothing for one that stays as it is. Where a tensor does not fit, why.
    fn kept(self, tensor: &TensorPlan) -> std::result::Result<Option<usize>, String> {
        let Some(sparsity) = tensor.sparsity_before(usize::MAX) else {
            return Ok(None);
        };
        let name = &tensor.name;
        if tensor.shape.len() != 2 || !name.ends_with(".weight") || !tensor.role.is_linear() {
            return Err(format!(
                "{name} is no matrix of a linear layer, which alone {} holds: leave it out of the stage's targets",
                self.name()
            ));
        }
        let (n, edges) = (tensor.elements(), tensor.rows() + tensor.cols());
        match (self, sparsity.pattern, sparsity.share) {
            (Self::TwoOfFour, Pattern::NOfM { keep, of }, _) if is_two_of_four(keep, of) => {
                if tensor.cols().is_multiple_of(4) {
                    Ok(Some(n / 2))
                } else {
                    Err(format!(
                        "{name} has rows of {} columns, which four do not divide",
                        tensor.cols()
                    ))
                }
            }
            (Self::TwoOfFour, pattern, _) => Err(format!(
                "{name} has zeros in the pattern {pattern}, not 2:4: set the stage's option pattern to \"2:4\", or sparsity to \
                 \"sparse-bitmask\" or \"dense\""
            )),
            (Self::Anywhere, Pattern::NOfM { keep, of }, _) => Ok(Some(n / of * keep)),
            // A share is rounded in each row, or in each column.
            (Self::Anywhere, Pattern::Unstructured, Some(share)) => {
                let zeros = (n as f64 * share) as usize;
                Ok(Some((n - zeros.min(n) + edges).min(n)))
            }
            (Self::Anywhere, Pattern::Unstructured, None) => Err(format!(
                "how many zeros {name} gets is found while the stage runs, and the file's header must say it before: use \
                 another scope than global, or the format packed"
            )),
        }
    }
}

/// True where whatever keeps the pattern keeps 2:4.
fn is_two_of_four(keep: usize, of: usize) -> bool {
    (keep <= 2 && of.is_multiple_of(4)) || (keep, of) == (1, 2)
}

/// A plain weight whose zeros are left out: its type and the values that are stored.
fn sparse(form: Form, tensor: &TensorPlan) -> Option<(DType, usize)> {
    match tensor.kind {
        Kind::Dense { dtype } => Some((dtype, form.kept(tensor).ok()??)),
        _ => None,
    }
}

/// Refuses what the form cannot hold.
pub(super) fn check(request: &Request<'_>, form: Form) -> std::result::Result<(), Vec<Refusal>> {
    let pointer = format!("{}/options/{OPTION}", request.pointer);
    let refused = |why: String| Refusal::new(pointer.clone(), "format_cannot_hold", why);
    if let Some(other) = request
        .tensors
        .iter()
        .find(|t| t.kind.is_compressed() || t.cache.is_some())
    {
        return Err(vec![refused(format!(
            "{} is quantized, and {} holds plain weights: leave sparsity \"dense\"",
            other.name,
            form.name()
        ))]);
    }
    if request
        .model
        .config
        .as_ref()
        .is_some_and(|config| config["model_type"] == "gpt2")
    {
        let why = "GPT-2 stores its layers as [in, out], which compressed-tensors does not take for linear ones: leave sparsity \
                   \"dense\", or write the format safetensors";
        return Err(vec![refused(why.to_owned())]);
    }
    let refusals: Vec<Refusal> = request
        .tensors
        .iter()
        .filter_map(|t| form.kept(t).err())
        .take(10)
        .map(refused)
        .collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    if request.tensors.iter().any(|t| sparse(form, t).is_some()) {
        Ok(())
    } else {
        Err(vec![refused(format!(
            "no stage prunes a tensor, so {} has nothing to leave out: add a stage such as magnitude, or write the format \
             packed, which finds zeros by itself",
            form.name()
        ))])
    }
}

/// `quantization_config` of a checkpoint that is only sparse.
pub(super) fn config(request: &Request<'_>, form: Form) -> Value {
    let all: usize = request.tensors.iter().map(TensorPlan::elements).sum();
    let gone = |t: &TensorPlan| sparse(form, t).map(|(_, kept)| t.elements() - kept);
    let zeros: usize = request.tensors.iter().filter_map(gone).sum();
    // Any other matrix could be a linear layer to the reader.
    let ignore: Vec<&str> = request
        .tensors
        .iter()
        .filter(|t| t.shape.len() == 2 && t.name.ends_with(".weight") && sparse(form, t).is_none())
        .map(TensorPlan::module)
        .chain(
            std::iter::once("lm_head").filter(|_| !request.tensors.iter().any(|t| t.module() == "lm_head")),
        )
        .collect();
    json!({
        "quant_method": "compressed-tensors", "version": "0.14.0.1", "transform_config": {},
        "sparsity_config": {
            "format": form.name(), "global_sparsity": zeros as f64 / all.max(1) as f64, "ignore": ignore,
            "registry_requires_subclass": false, "sparsity_structure": form.structure(), "targets": ["Linear"]
        }
    })
}

/// What a tensor becomes; nothing for one that is stored as it is.
pub(super) fn parts(form: Form, tensor: &TensorPlan) -> Option<Vec<Part>> {
    let (dtype, kept) = sparse(form, tensor)?;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let part = |suffix: &str, dtype: DType, shape: Vec<usize>| Entry {
        name: format!("{}.{suffix}", tensor.module()),
        dtype: dtype.name().to_owned(),
        bytes: (shape.iter().product::<usize>() * dtype.bytes(1, 1).unwrap_or(1)) as u64,
        shape,
    };
    let mask = part("bitmask", DType::U8, vec![rows, mask::row_bytes(cols)]);
    Some(match form {
        Form::TwoOfFour => vec![
            part("compressed", dtype, vec![rows, cols / 2]),
            mask,
            part("shape", DType::I64, vec![2, 1]),
        ],
        Form::Anywhere => vec![
            part("compressed", dtype, vec![kept]),
            mask,
            part("shape", DType::I64, vec![2]),
            part("row_offsets", DType::I64, vec![rows]),
        ],
    })
}

/// The bytes of these parts.
pub(super) fn encode(form: Form, tensor: &TensorPlan, dense: &Dense) -> Result<Option<Vec<Vec<u8>>>> {
    let Some((dtype, kept)) = sparse(form, tensor) else {
        return Ok(None);
    };
    let (width, cols) = (dtype.bytes(1, 1).unwrap_or(1), dense.cols);
    let named = |error: Error| {
        Error::new(
            error.class,
            error.code,
            format!("{}: {}", tensor.name, error.message),
        )
    };
    let mut mask = match form {
        Form::TwoOfFour => mask::of_runs(&dense.bytes, width, cols, TWO_OF_FOUR).map_err(named)?,
        Form::Anywhere => mask::nonzero(&dense.bytes, width, cols),
    };
    if !mask::fill(&mut mask, cols, kept) {
        return Err(Error::internal(format!(
            "{} keeps more than the {kept} values that were planned",
            tensor.name
        )));
    }
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let values = mask::gather(&dense.bytes, width, cols, &mask);
    let shape = numbers(&[dense.rows as u64, cols as u64]);
    Ok(Some(match form {
        Form::TwoOfFour => vec![values, mask, shape],
        Form::Anywhere => {
            let offsets = numbers(&mask::row_offsets(&mask, cols));
            vec![values, mask, shape, offsets]
        }
    }))
}
