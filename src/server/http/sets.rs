//! Sets of files on their way in: what models and datasets share.
//!
//! Owns: a file's wire form, the checks of names and numbers, files from uploads, letting blobs go.
//! Must not know: what the files are for.
//! Invariant: names in a set are checked and unique, and there is an end to their number.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::{self, Problem, shorten};
use super::refuse::about;
use crate::domain::model::{check_file_name, is_name};
use crate::domain::ports::StoreError;
use crate::domain::{FileRef, UploadId};

/// A file of a model, dataset or artifact.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileOut {
    /// Relative path with `/`.
    #[schema(example = "model.safetensors")]
    pub name: String,
    /// Size.
    #[schema(example = 269_060_552)]
    pub bytes: u64,
    /// SHA-256.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: String,
}

impl From<&FileRef> for FileOut {
    fn from(file: &FileRef) -> Self {
        Self {
            name: file.name.clone(),
            bytes: file.bytes,
            digest: format!("sha256:{}", file.digest),
        }
    }
}

/// An upload that becomes a file of the set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedFileIn {
    /// Relative path with `/`.
    #[schema(example = "model.safetensors")]
    pub name: String,
    /// The upload's identifier.
    #[schema(example = "upl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub upload: String,
}

/// A file may be added to a set: its name is fine, not taken, and there is room.
pub fn check_new_file(state: &Caller, taken: &[FileRef], name: &str) -> Result<(), Problem> {
    check_file_name(name)?;
    if taken.iter().any(|file| file.name == name) {
        let detail = format!("the file name {} is there twice", shorten(name));
        return Err(Problem::new(problem::FILE_NAME_INVALID, detail).with_code("file_name_duplicate"));
    }
    check_room(state, taken.len())
}

/// There is room for another file.
pub fn check_room(state: &Caller, files: usize) -> Result<(), Problem> {
    if files >= state.limits.model_files {
        let detail = format!(
            "a model or dataset has at most {} files",
            state.limits.model_files
        );
        return Err(Problem::new(problem::TOO_LARGE, detail).with_code("too_many_files"));
    }
    Ok(())
}

/// What a user calls a thing is short and printable.
pub fn check_name(name: Option<&str>) -> Result<(), Problem> {
    match name {
        Some(name) if !is_name(name) => Err(Problem::field(
            "/name",
            "invalid_value",
            "a name has 1 to 200 bytes and no control characters",
        )),
        _ => Ok(()),
    }
}

/// Removes blobs that no row refers to any more.
pub async fn release(state: &Caller, digests: Vec<String>) -> Result<(), StoreError> {
    for digest in state.stores.unreferenced(&digests).await? {
        if let Err(error) = state.blobs.discard(&digest).await {
            tracing::warn!(%digest, %error, "blob not removed; the sweep will try again");
        }
    }
    Ok(())
}

/// The files that complete uploads hold, and the uploads.
pub async fn uploaded(
    state: &Caller,
    given: Vec<UploadedFileIn>,
) -> Result<(Vec<FileRef>, Vec<UploadId>), Problem> {
    let mut files: Vec<FileRef> = Vec::new();
    let mut ids = Vec::new();
    if given.is_empty() {
        return Err(Problem::field(
            "/files",
            "missing_files",
            "name at least one file",
        ));
    }
    for (i, file) in given.into_iter().enumerate() {
        check_new_file(state, &files, &file.name)?;
        let pointer = format!("/files/{i}/upload");
        let unknown = || {
            Problem::field(
                pointer.clone(),
                "unknown_upload",
                format!("no upload {}", shorten(&file.upload)),
            )
        };
        let id: UploadId = file.upload.parse().map_err(|_e| unknown())?;
        let upload = state.store.upload(id).await.map_err(about("upload", &id))?;
        let Some((digest, bytes)) = upload.complete else {
            return Err(Problem::field(
                pointer,
                "upload_incomplete",
                format!("upload {id} is not complete"),
            ));
        };
        files.push(FileRef {
            name: file.name,
            digest,
            bytes,
        });
        ids.push(id);
    }
    Ok((files, ids))
}
