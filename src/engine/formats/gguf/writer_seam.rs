//! GGUF as an artifact.
//!
//! Owns: which tensors go in under which names, metadata from either source, row order.
//! Must not know: how blocks are made. Invariant: every weight is whole ggml rows or plain floats.

use super::Gguf;
use super::build::header_bytes;
use super::imatrix::{self, ImatrixNote};
use super::metadata::{About, ModelConfig};
use super::names::{TensorRename, permute_row};
use super::reader_seam::read;
use super::shapes::{self, Found};
use super::tokenizer::{Target, TokenizerFiles, convert};
use super::value::{Metadata, Value as Field};
use crate::checkpoint::{SourceFile, SourceFormat};
use crate::error::{Error, Result};
use crate::formats::container::{Content, Entry, Layout, OutFile, Placed};
use crate::formats::{Loading, Request, Writer};
use crate::plan::TensorPlan;
use crate::recipe::Refusal;
use crate::tensor::{DType, GgmlType, encode_rows};
use crate::weight::{Kind, Weight};
use serde_json::{Value, json};

const ALIGNMENT: u32 = 32;

impl Writer for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn summary(&self) -> &'static str {
        "One GGUF v3 file with weights, configuration and tokenizer, for llama.cpp and what is built on it"
    }

    fn engines(&self) -> &'static [&'static str] {
        &["llama.cpp", "Ollama", "LM Studio"]
    }

    fn loading(&self) -> Loading {
        Loading {
            library: None,
            text: "With llama.cpp: `llama-cli -m {file}`, or `llama-server -m {file}`. With Ollama: a Modelfile that says `FROM ./{file}`.".to_owned(),
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "name": {"type": "string", "description": "general.name of the file.", "examples": ["SmolLM2 135M Instruct"]},
            "tokenizer_pre": {"type": "string", "examples": ["llama-bpe"],
                "description": "llama.cpp's name of the pre-tokenizer, where tokenizer.json does not show which it is."}}})
    }

    fn layout(&self, request: &Request<'_>) -> std::result::Result<Layout, Vec<Refusal>> {
        let refuse = |e: Error| vec![Refusal::new(request.pointer, e.code, e.message)];
        let renames = renames(request).map_err(refuse)?;
        let mut table = Vec::new();
        let mut placed = Vec::new();
        let mut refusals = Vec::new();
        if let Some(values) = rope_freqs(request).map_err(refuse)? {
            let literal: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let entry = entry("rope_freqs.weight", &[values.len()], GgmlType::F32, literal.len());
            table.push((entry.name.clone(), vec![values.len() as u64], GgmlType::F32));
            placed.push(Placed {
                tensor: None,
                literal,
                entries: vec![entry],
            });
        }
        for (index, (tensor, rename)) in request.tensors.iter().zip(&renames).enumerate() {
            let Some(rename) = rename else {
                placed.push(Placed {
                    tensor: Some(index),
                    literal: Vec::new(),
                    entries: Vec::new(),
                });
                continue;
            };
            match ggml_type(&stored(request, tensor), tensor.cols()) {
                Ok((ty, row)) => {
                    let dims = tensor.shape.iter().rev().map(|d| *d as u64).collect();
                    table.push((rename.gguf.clone(), dims, ty));
                    let entries = vec![entry(&rename.gguf, &tensor.shape, ty, row * tensor.rows())];
                    placed.push(Placed {
                        tensor: Some(index),
                        literal: Vec::new(),
                        entries,
                    });
                }
                Err(why) => refusals.push(Refusal::new(
                    request.pointer,
                    "format_cannot_hold",
                    format!("{} is {}: {why}", tensor.name, tensor.kind.label()),
                )),
            }
        }
        if !refusals.is_empty() {
            refusals.truncate(10);
            return Err(refusals);
        }
        let metadata = metadata(request).map_err(refuse)?;
        let built = header_bytes(&metadata, &table, ALIGNMENT).map_err(|e| refuse(Error::from(e)))?;
        let name = format!("model-{}.gguf", request.label.unwrap_or("mixed"));
        let content = Content::Tensors {
            header: built.header,
            placed,
            alignment: u64::from(ALIGNMENT),
        };
        Ok(Layout {
            files: vec![OutFile {
                name,
                bytes: built.file_len,
                content,
            }],
        })
    }

    fn encode(&self, request: &Request<'_>, index: usize, weight: &Weight) -> Result<Vec<Vec<u8>>> {
        // Only this tensor's name is needed, and names do not depend on the other tensors.
        let Some(rename) = rename_of(request, index)? else {
            return Ok(Vec::new());
        };
        let wide;
        let bytes = match weight {
            Weight::Dense(w) => match stored(request, &request.tensors[index]) {
                Kind::Dense { dtype } if dtype != w.dtype => {
                    wide = encode_rows(w, dtype)?;
                    &wide
                }
                _ => &w.bytes,
            },
            Weight::Block(w) => &w.blocks,
            other => {
                return Err(Error::internal(format!(
                    "{} reached GGUF as {other:?}",
                    rename.gguf
                )));
            }
        };
        let Some(heads) = rename.permute_heads else {
            return Ok(vec![bytes.clone()]);
        };
        // A bias has one row of `rows` elements; a matrix has rows of blocks. Both move as rows.
        let rows = request.tensors[index].shape.first().copied().unwrap_or(1);
        let width = bytes.len() / rows.max(1);
        let mut out = Vec::with_capacity(bytes.len());
        for row in 0..rows {
            out.extend_from_slice(&bytes[permute_row(row, rows, heads) * width..][..width]);
        }
        Ok(vec![out])
    }

    fn reopen(&self, files: &[SourceFile]) -> Result<Vec<Entry>> {
        let (_, tensors) = read(files)?;
        Ok(tensors.into_iter().map(Entry::from).collect())
    }
}

fn entry(name: &str, shape: &[usize], ty: GgmlType, bytes: usize) -> Entry {
    Entry {
        name: name.to_owned(),
        dtype: ty.name().to_owned(),
        shape: shape.to_vec(),
        bytes: bytes as u64,
    }
}

/// As what a tensor is stored. Norms and biases that no stage touched are wide, as llama.cpp's converter makes them: it adds and
/// multiplies by them in f32 only. What comes from a GGUF stays as it is.
fn stored(request: &Request<'_>, tensor: &TensorPlan) -> Kind {
    let is_vector = tensor.shape.len() == 1 && request.model.format != SourceFormat::Gguf;
    match tensor.kind {
        Kind::Dense {
            dtype: DType::F16 | DType::BF16,
        } if is_vector => Kind::Dense { dtype: DType::F32 },
        kind => kind,
    }
}

fn ggml_type(kind: &Kind, cols: usize) -> std::result::Result<(GgmlType, usize), String> {
    let ty = match kind {
        Kind::Dense { dtype } => dtype.to_ggml(),
        Kind::Block { ggml_type } => Some(*ggml_type),
        _ => None,
    };
    let ty = ty.ok_or("GGUF holds ggml types; use the technique ggml (a preset such as Q4_K_M)")?;
    let row = ty
        .row_bytes(cols)
        .ok_or_else(|| format!("rows of {cols} are no whole number of {} blocks", ty.name()))?;
    Ok((ty, row))
}

fn model_config(request: &Request<'_>) -> Result<ModelConfig> {
    let config = request.model.config.as_ref().ok_or_else(|| {
        Error::unsupported(
            "needs_config_json",
            "GGUF carries the model's configuration and tokenizer: upload the whole Hugging Face folder, or a GGUF",
        )
    })?;
    Ok(ModelConfig::from_json(config)?)
}

fn renames(request: &Request<'_>) -> Result<Vec<Option<TensorRename>>> {
    if request.model.format == SourceFormat::Gguf {
        let same = |t: &crate::plan::TensorPlan| {
            Some(TensorRename {
                gguf: t.name.clone(),
                permute_heads: None,
            })
        };
        return Ok(request.tensors.iter().map(same).collect());
    }
    let config = model_config(request)?;
    let names = config.names();
    let mut renames = Vec::new();
    for tensor in request.tensors {
        renames.push(names.to_gguf(&tensor.name)?);
    }
    let found = request.tensors.iter().zip(&renames);
    let found = found.filter_map(|(tensor, rename)| {
        Some(Found {
            name: &tensor.name,
            gguf: &rename.as_ref()?.gguf,
            shape: &tensor.shape,
        })
    });
    shapes::check(&config, found)?;
    Ok(renames)
}

fn rename_of(request: &Request<'_>, index: usize) -> Result<Option<TensorRename>> {
    let name = &request.tensors[index].name;
    if request.model.format == SourceFormat::Gguf {
        return Ok(Some(TensorRename {
            gguf: name.clone(),
            permute_heads: None,
        }));
    }
    Ok(model_config(request)?.names().to_gguf(name)?)
}

fn rope_freqs(request: &Request<'_>) -> Result<Option<Vec<f32>>> {
    if request.model.format == SourceFormat::Gguf {
        return Ok(None);
    }
    Ok(model_config(request)?.rope_freqs())
}

fn metadata(request: &Request<'_>) -> Result<Metadata> {
    let mut metadata = match &request.model.gguf {
        Some(source) => source_metadata(source, request.importance.is_some())?,
        None => converted_metadata(request)?,
    };
    metadata.set("general.file_type", Field::U32(file_type(request)));
    if let Some(importance) = request.importance {
        ImatrixNote::of(importance).add_to(&mut metadata);
    }
    if request.tensors.iter().any(|t| {
        t.kind.is_compressed()
            || matches!(
                t.kind,
                Kind::Dense {
                    dtype: DType::Ggml(_)
                }
            )
    }) {
        metadata.set("general.quantization_version", Field::U32(2));
    }
    Ok(metadata)
}

/// The source's own keys, less those that describe how it was split or aligned, and the importance matrix that it was
/// made with where there is another one now.
fn source_metadata(source: &Metadata, weighed_again: bool) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for (key, value) in source.iter() {
        let of_before = weighed_again && key.starts_with(imatrix::KEYS);
        if !key.starts_with("split.") && key != "general.alignment" && !of_before {
            metadata.insert(key, value.clone())?;
        }
    }
    Ok(metadata)
}

fn converted_metadata(request: &Request<'_>) -> Result<Metadata> {
    let config = model_config(request)?;
    let json = request.model.config.clone().unwrap_or_default();
    let generation = request.model.side_json("generation_config.json")?;
    let given = request.options.get("name").and_then(Value::as_str);
    let named = json
        .get("_name_or_path")
        .and_then(Value::as_str)
        .filter(|n| !n.is_empty());
    let name = given
        .or(named.and_then(|n| n.rsplit('/').next()))
        .unwrap_or("model");
    let parameters = request.tensors.iter().map(|t| t.elements() as u64).sum();
    let about = About {
        name,
        parameters,
        file_type: file_type(request),
        generation_config: generation.as_ref(),
    };
    let mut metadata = config.metadata(&about);
    let files = TokenizerFiles::read(|name| request.model.side_file(name))?;
    let target = Target {
        vocab_size: config.vocab,
        config: &json,
        generation_config: generation.as_ref(),
        pre: request.options.get("tokenizer_pre").and_then(Value::as_str),
    };
    metadata.extend(convert(&files, &target)?);
    Ok(metadata)
}

/// llama.cpp's `llama_ftype` of the mix, else of the most common type, else "guessed".
fn file_type(request: &Request<'_>) -> u32 {
    const FILE_TYPES: &[(&str, u32)] = &[
        ("F32", 0),
        ("F16", 1),
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q8_0", 7),
        ("Q5_0", 8),
        ("Q5_1", 9),
        ("Q2_K", 10),
        ("Q3_K_S", 11),
        ("Q3_K_M", 12),
        ("Q3_K_L", 13),
        ("Q4_K_S", 14),
        ("Q4_K_M", 15),
        ("Q5_K_S", 16),
        ("Q5_K_M", 17),
        ("Q6_K", 18),
        ("IQ2_XXS", 19),
        ("IQ2_XS", 20),
        ("Q2_K_S", 21),
        ("IQ3_XS", 22),
        ("IQ3_XXS", 23),
        ("IQ4_NL", 25),
        ("IQ3_S", 26),
        ("IQ3_M", 27),
        ("IQ2_S", 28),
        ("IQ2_M", 29),
        ("IQ4_XS", 30),
        ("BF16", 32),
        ("MXFP4", 38),
    ];
    let label = request.label.unwrap_or_default();
    FILE_TYPES
        .iter()
        .find(|row| row.0 == label)
        .map_or(1024, |row| row.1)
}

#[cfg(test)]
mod stored_tests {
    use super::*;
    use crate::checkpoint::inspect;
    use crate::plan::untouched;

    /// llama.cpp has no arithmetic between f32 and bf16 vectors.
    #[test]
    fn vectors_that_no_stage_touched_are_stored_wide() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"norm.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
            "q.weight": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [8, 40]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes().chain([0; 40]));
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let model = inspect(&SourceFile::from_path(folder.path()).unwrap()).unwrap();
        let tensors: Vec<TensorPlan> = model.tensors.iter().map(|t| untouched(&model, t)).collect();
        let options = json!({});
        let request = crate::plan::request(&options, "", &[], &tensors, &model);
        for tensor in &tensors {
            let dtype = if tensor.shape.len() == 1 {
                DType::F32
            } else {
                DType::BF16
            };
            assert_eq!(stored(&request, tensor), Kind::Dense { dtype }, "{}", tensor.name);
        }
    }
}
