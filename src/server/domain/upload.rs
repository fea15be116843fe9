//! Uploads: bytes on their way in, by offset.
//!
//! Owns: what is recorded of an upload besides its bytes.
//! Must not know: the folder that holds the bytes.
//! Invariant: a complete upload has a digest.

use time::OffsetDateTime;

use super::UploadId;

/// An upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The size announced, if any.
    pub length: Option<u64>,
    /// What the client said of the file, as it said it (tus `Upload-Metadata`).
    pub metadata: Option<String>,
    /// Digest (hexadecimal SHA-256) and size, once complete.
    pub complete: Option<(String, u64)>,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// When it is deleted unless a model has taken it.
    pub expires_at: OffsetDateTime,
}
