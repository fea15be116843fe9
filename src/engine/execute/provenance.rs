//! What goes beside an artifact's files: the model card, and the manifest of them all.
//!
//! Owns: `README.md` and `modelpress.json`, the digests of what they were made from. Must not know: how files are
//! encoded, who signs the manifest.
//! Invariant: no times, and no paths but those that a recipe names its data by, so that the artifact is the same whenever and
//! wherever it is made; the manifest names every other file.

use super::{Artifact, ArtifactFile, Target};
use crate::checkpoint::{Checkpoint, SourceFile};
use crate::digest;
use crate::error::{Error, Result};
use crate::formats::container::Written;
use crate::formats::hf_output::pretty;
use crate::observe::Observer;
use crate::plan::Plan;
use crate::report::{Card, Origin, Report, card};
use serde_json::json;
use std::fs::File;
use std::path::Path;

/// The manifest's name.
pub const MANIFEST: &str = "modelpress.json";
/// The name of its signature, which whoever has a key adds.
pub const SIGNATURE: &str = "modelpress.json.sig";
/// The card's name.
pub(super) const CARD: &str = "README.md";

/// What the artifacts were made from: each file with its digest, which is looked up or else found by reading it.
pub(super) fn origins(model: &Checkpoint, observer: &dyn Observer) -> Result<Vec<Origin>> {
    model.files.iter().map(|file| origin(file, observer)).collect()
}

fn origin(file: &SourceFile, observer: &dyn Observer) -> Result<Origin> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let mut open = File::open(&file.path).map_err(io)?;
    let bytes = open.metadata().map_err(io)?.len();
    let sha256 = match file.sha256.clone() {
        Some(known) => known,
        None => digest::sha256_of(&mut open, &|| !observer.should_stop())
            .map_err(io)?
            .ok_or_else(Error::cancelled)?,
    };
    Ok(Origin {
        name: file.name.clone(),
        bytes,
        sha256,
    })
}

/// Completes an artifact.
pub(super) fn complete(
    target: &Target<'_>,
    written: Vec<Written>,
    plan: &Plan,
    model: &Checkpoint,
    report: &Report,
    origins: &[Origin],
    dir: &Path,
) -> Result<Artifact> {
    let format = &target.spec.format;
    let mut files: Vec<ArtifactFile> = written.into_iter().map(artifact_file).collect();
    let (engines, loading) = target.writer.loaded_by(&target.spec.options);
    let text = card(&Card {
        report,
        model,
        format,
        library: loading.library,
        loading: &loading.text,
        engines,
        weights: files
            .iter()
            .max_by_key(|file| file.bytes)
            .map(|file| file.name.as_str()),
        origins,
    });
    files.push(beside(dir, CARD, text.as_bytes())?);
    let manifest = pretty(&manifest(plan, report, format, &files, origins));
    files.push(beside(dir, MANIFEST, &manifest)?);
    Ok(Artifact {
        format: format.clone(),
        files,
    })
}

fn manifest(
    plan: &Plan,
    report: &Report,
    format: &str,
    files: &[ArtifactFile],
    origins: &[Origin],
) -> serde_json::Value {
    let list: Vec<_> = files
        .iter()
        .map(|f| json!({"name": f.name, "bytes": f.bytes, "sha256": f.sha256}))
        .collect();
    let mut body = json!({
        "generator": "modelpress", "manifest_version": 2, "engine_version": plan.engine_version, "format": format,
        "recipe": plan.recipe, "recipe_hash": plan.recipe_hash, "seed": plan.recipe.seed, "source": {"files": origins},
        "files": list,
    });
    if let Some(quality) = &report.quality {
        body["evaluation"] = json!(quality);
    }
    body
}

fn beside(dir: &Path, name: &str, bytes: &[u8]) -> Result<ArtifactFile> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).map_err(|e| Error::io(format!("writing {name}"), &e))?;
    Ok(ArtifactFile {
        name: name.to_owned(),
        path,
        bytes: bytes.len() as u64,
        sha256: digest::sha256(bytes),
    })
}

fn artifact_file(file: Written) -> ArtifactFile {
    ArtifactFile {
        name: file.name,
        path: file.path,
        bytes: file.bytes,
        sha256: file.sha256,
    }
}
