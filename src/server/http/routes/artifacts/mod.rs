//! `/v1/artifacts`: what jobs produced.
//!
//! Owns: the artifact's wire form.
//! Must not know: where bytes are.
//! Invariant: an artifact and its files never change, so a digest is their entity tag.

pub mod archive;
pub mod files;
pub mod get;
pub mod list;

use axum::http::HeaderValue;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::Artifact;
use crate::http::sets::FileOut;

/// An artifact.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactOut {
    /// Identifier.
    #[schema(example = "art_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub id: String,
    /// Always `artifact`.
    #[schema(example = "artifact")]
    pub object: &'static str,
    /// The job that made it.
    #[schema(example = "job_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub job: String,
    /// The model it was made from.
    #[schema(example = "mdl_0193d0a67c1e7bd08d532f5a9f1d1c11")]
    pub model: String,
    /// The format of its files.
    #[schema(example = "gguf")]
    pub format: String,
    /// Size of all files.
    #[schema(example = 105_454_144)]
    pub bytes: u64,
    /// SHA-256 over file digests and names.
    pub digest: String,
    /// Its files.
    pub files: Vec<FileOut>,
    /// When it was published.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl From<&Artifact> for ArtifactOut {
    fn from(artifact: &Artifact) -> Self {
        Self {
            id: artifact.id.to_string(),
            object: "artifact",
            job: artifact.job.to_string(),
            model: artifact.model.to_string(),
            format: artifact.format.clone(),
            bytes: artifact.files.iter().map(|file| file.bytes).sum(),
            digest: format!("sha256:{}", artifact.digest),
            files: artifact.files.iter().map(FileOut::from).collect(),
            created_at: artifact.created_at,
        }
    }
}

/// `Content-Disposition` with the name in both forms of RFC 8187.
fn attachment(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let encoded: String = name
        .bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let text = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::attachment;

    #[test]
    fn names_cannot_break_out_of_the_header() {
        let value = attachment("a\"b\r\né.gguf");
        let text = value.to_str().expect("ASCII");
        assert_eq!(
            text,
            "attachment; filename=\"a_b___.gguf\"; filename*=UTF-8''a%22b%0D%0A%C3%A9.gguf"
        );
    }
}
