//! An opened model: its files, tensors and configuration. Headers are in memory, weights stay on disk.
//!
//! Owns: [`Checkpoint`], its summary, and [`inspect`]. Must not know: techniques, recipes.
//! Invariant: every tensor's bytes lie inside its file; names are unique; no weight has been read.

use crate::error::{Error, Result};
use crate::formats::gguf::value::Metadata;
use crate::formats::readers;
use crate::models::{Facts, Place, architecture_of};
use crate::tensor::{SourceRows, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of a model: the name the user gave it and where its bytes are. The two need not match: a blob store
/// names files by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Relative name with `/` separators, e.g. `model-00001-of-00002.safetensors`.
    pub name: String,
    /// Where to read it.
    pub path: PathBuf,
    /// SHA-256 of its bytes in hexadecimal, where somebody knows it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

impl SourceFile {
    /// A file whose digest nobody has looked at.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            sha256: None,
        }
    }

    /// The files of a folder, or the one file `path` names. Hidden files are left out, and what lies in folders, but for
    /// the configurations of sentence-transformers' modules.
    pub fn from_path(path: &Path) -> Result<Vec<Self>> {
        let io = |e: std::io::Error| Error::io(path.display(), &e);
        if path.is_file() {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            return Ok(vec![Self::new(name, path)]);
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (module, inside) = (format!("{name}/config.json"), entry.path().join("config.json"));
            if is_module_config(&module) && inside.is_file() {
                files.push(Self::new(module, inside));
            } else if !name.starts_with('.') && entry.path().is_file() {
                files.push(Self::new(name, entry.path()));
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

/// True of the configuration of a sentence-transformers module, `1_Pooling/config.json`.
pub(crate) fn is_module_config(name: &str) -> bool {
    let Some((folder, "config.json")) = name.split_once('/') else {
        return false;
    };
    let number = folder.split_once('_').map_or("", |(number, _)| number);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// Where the weights came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// config.json + safetensors, single or sharded.
    Huggingface,
    /// One GGUF file.
    Gguf,
    /// Safetensors without a config.json.
    Safetensors,
}

/// An opened model.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the weights came from.
    pub format: SourceFormat,
    /// Every file of the model.
    pub files: Vec<SourceFile>,
    /// Tensors in the order their bytes lie (by file, then offset).
    pub tensors: Vec<TensorInfo>,
    /// Parsed config.json.
    pub config: Option<Value>,
    /// Metadata of a GGUF file.
    pub gguf: Option<Metadata>,
    /// Total bytes of all files.
    pub bytes: u64,
    handles: Vec<Option<Arc<File>>>,
}

/// What `GET /v1/models/{id}` and plans show of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Where the weights came from.
    pub format: SourceFormat,
    /// Architecture as the model names it (`LlamaForCausalLM`, `llama`).
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameter_count: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the tensors.
    pub tensor_bytes: u64,
    /// Parameters by dtype.
    pub dtypes: BTreeMap<String, u64>,
    /// Number of tensors.
    pub tensor_count: usize,
}

/// One row of the tensor listing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorSummary {
    /// Name in the checkpoint.
    pub name: String,
    /// Stored type.
    pub dtype: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Stored bytes.
    pub bytes: u64,
}

/// Opens a model: recognises its format by content and reads the headers.
pub fn inspect(files: &[SourceFile]) -> Result<Checkpoint> {
    if files.is_empty() {
        return Err(Error::bad_input("no_files", "the model has no files"));
    }
    let reader = readers().iter().find(|r| r.sniff(files)).ok_or_else(|| {
        Error::unsupported(
            "unknown_model_format",
            "no *.safetensors and no GGUF file among the files: upload a Hugging Face checkpoint with safetensors \
             weights, a GGUF file, or plain safetensors",
        )
    })?;
    reader.open(files)
}

impl Checkpoint {
    /// Builds a checkpoint; tensors are put in the order of their bytes.
    pub(crate) fn new(
        format: SourceFormat,
        files: &[SourceFile],
        mut tensors: Vec<TensorInfo>,
        config: Option<Value>,
        gguf: Option<Metadata>,
    ) -> Result<Self> {
        tensors.sort_by_key(|t| (t.file, t.offset, t.bytes));
        let mut bytes = 0;
        let mut handles = vec![None; files.len()];
        for (i, file) in files.iter().enumerate() {
            let io = |e: std::io::Error| Error::io(&file.name, &e);
            bytes += std::fs::metadata(&file.path).map_err(io)?.len();
            if tensors.iter().any(|t| t.file == i) {
                handles[i] = Some(Arc::new(File::open(&file.path).map_err(io)?));
            }
        }
        Ok(Self {
            format,
            files: files.to_vec(),
            tensors,
            config,
            gguf,
            bytes,
            handles,
        })
    }

    /// Rows of a tensor.
    pub fn rows<'a>(&'a self, tensor: &'a TensorInfo) -> Result<SourceRows<'a>> {
        let file = self.handles[tensor.file].clone();
        let file =
            file.ok_or_else(|| Error::internal(format!("tensor {}: its file is not open", tensor.name)))?;
        Ok(SourceRows { info: tensor, file })
    }

    /// The same model with its head's weight apart from its embedding's: where there is no tensor of the head's name,
    /// it is the embedding's bytes under that name, and config.json says that they are two.
    pub(crate) fn untied(&self, embedding: &str, head: &str) -> Self {
        let mut tensors = self.tensors.clone();
        let at = tensors.iter().position(|t| t.name == embedding);
        if let Some(at) = at.filter(|_| tensors.iter().all(|t| t.name != head)) {
            let name = head.to_owned();
            let own = TensorInfo {
                name,
                ..tensors[at].clone()
            };
            tensors.insert(at + 1, own);
        }
        let mut config = self.config.clone();
        if let Some(Value::Object(config)) = &mut config {
            config.insert("tie_word_embeddings".into(), Value::Bool(false));
        }
        Self {
            format: self.format,
            files: self.files.clone(),
            tensors,
            config,
            gguf: self.gguf.clone(),
            bytes: self.bytes,
            handles: self.handles.clone(),
        }
    }

    /// The headers of a model that is to be made of this one: its configuration and tensors, and this one's side files. No
    /// weight can be read.
    pub(crate) fn outlined(&self, config: Value, tensors: Vec<TensorInfo>) -> Self {
        Self {
            format: SourceFormat::Huggingface,
            files: self.files.clone(),
            bytes: tensors.iter().map(|t| t.bytes).sum(),
            tensors,
            config: Some(config),
            gguf: None,
            handles: vec![None; self.files.len().max(1)],
        }
    }

    /// Bytes of all tensors; those that several share count once.
    pub fn tensor_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut before = None;
        for tensor in &self.tensors {
            let place = Some((tensor.file, tensor.offset, tensor.bytes));
            bytes += if place == before { 0 } else { tensor.bytes };
            before = place;
        }
        bytes
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&SourceFile> {
        self.files.iter().find(|f| f.name == name)
    }

    /// Reads a small side file (configuration, tokenizer), at most 256 MiB.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name) else {
            return Ok(None);
        };
        read_side_file(file).map(Some)
    }

    /// A side file parsed as JSON.
    pub fn side_json(&self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.side_file(name)? else {
            return Ok(None);
        };
        parse_json(name, &bytes).map(Some)
    }

    /// Architecture name as the model gives it.
    pub fn architecture(&self) -> Option<String> {
        if let Some(metadata) = &self.gguf {
            return metadata.get_str("general.architecture").map(str::to_owned);
        }
        let config = self.config.as_ref()?;
        let listed = config
            .get("architectures")
            .and_then(|a| a.get(0))
            .and_then(Value::as_str);
        listed
            .or_else(|| config.get("model_type").and_then(Value::as_str))
            .map(str::to_owned)
    }

    /// The tensor's place in the network.
    pub fn place(&self, tensor: &TensorInfo) -> Place {
        architecture_of(self).place(tensor)
    }

    /// Layer and head counts.
    pub fn facts(&self) -> Facts {
        architecture_of(self).facts(self)
    }

    /// What the API shows.
    pub fn summary(&self) -> ModelSummary {
        let mut dtypes = BTreeMap::new();
        for tensor in &self.tensors {
            *dtypes.entry(tensor.dtype.name().to_owned()).or_insert(0) += tensor.elements() as u64;
        }
        ModelSummary {
            format: self.format,
            architecture: self.architecture(),
            parameter_count: self.tensors.iter().map(|t| t.elements() as u64).sum(),
            bytes: self.bytes,
            tensor_bytes: self.tensors.iter().map(|t| t.bytes).sum(),
            dtypes,
            tensor_count: self.tensors.len(),
        }
    }

    /// The tensor listing, in file order.
    pub fn tensor_summaries(&self) -> Vec<TensorSummary> {
        let row = |t: &TensorInfo| TensorSummary {
            name: t.name.clone(),
            dtype: t.dtype.name().to_owned(),
            shape: t.shape.clone(),
            bytes: t.bytes,
        };
        self.tensors.iter().map(row).collect()
    }
}

/// Side files are small; a "config.json" of many gigabytes is an attack or a mistake.
const MAX_SIDE_FILE: u64 = 256 << 20;

pub(crate) fn read_side_file(file: &SourceFile) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let length = std::fs::metadata(&file.path).map_err(io)?.len();
    if length > MAX_SIDE_FILE {
        return Err(Error::bad_input(
            "side_file_too_large",
            format!(
                "{} is {length} bytes; at most {MAX_SIDE_FILE} are read",
                file.name
            ),
        ));
    }
    std::fs::read(&file.path).map_err(io)
}

pub(crate) fn parse_json(name: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::bad_input("invalid_json", format!("{name} is not valid JSON: {e}")))
}
