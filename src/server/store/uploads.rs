//! Rows of uploads.
//!
//! Owns: table `upload`.
//! Must not know: where the bytes are, how far they are.
//! Invariant: an upload has a digest exactly when it has a final size.

use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, text};
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{Upload, UploadId};

impl Rows {
    pub(super) async fn add_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        let (digest, bytes) = match &upload.complete {
            Some((digest, bytes)) => (Some(digest.as_str()), Some(bytes.cast_signed())),
            None => (None, None),
        };
        let args = [
            text(upload.id),
            upload.length.map(u64::cast_signed).into(),
            upload.metadata.as_deref().into(),
            digest.into(),
            bytes.into(),
            upload.created_at.into(),
            upload.expires_at.into(),
            self.owner(),
        ];
        let mut tx = self.db.write().await?;
        tx.run(&sql::UPLOAD_INSERT, &args).await?;
        tx.commit().await
    }

    pub(super) async fn find_upload(&self, id: UploadId) -> Result<Upload, StoreError> {
        let args = [text(id), self.owner()];
        let row = self.db.read().await?.one(&sql::UPLOAD_GET, &args).await?;
        upload(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn set_upload_length(&self, id: UploadId, length: u64) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        let args = [text(id), length.into(), self.owner()];
        match tx.run(&sql::UPLOAD_ANNOUNCE, &args).await? {
            0 => Err(StoreError::Conflict(
                "the upload's length was announced before".to_owned(),
            )),
            _ => tx.commit().await,
        }
    }

    pub(super) async fn end_upload(&self, id: UploadId, digest: &str, bytes: u64) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        let args = [text(id), digest.into(), bytes.into(), self.owner()];
        match tx.run(&sql::UPLOAD_COMPLETE, &args).await? {
            0 => Err(StoreError::NotFound),
            _ => tx.commit().await,
        }
    }

    pub(super) async fn remove_upload(&self, id: UploadId) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        tx.run(&sql::UPLOAD_DELETE, &[text(id), self.owner()]).await?;
        tx.commit().await
    }

    pub(super) async fn remove_any_upload(&self, id: UploadId) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        tx.run(&sql::UPLOAD_DROP, &[text(id)]).await?;
        tx.commit().await
    }

    pub(super) async fn uploads_before(
        &self,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<UploadId>, StoreError> {
        let args = [now.into(), limit.into()];
        let rows = self.db.read().await?.all(&sql::UPLOAD_EXPIRED, &args).await?;
        rows.iter().map(|row| row.parsed("id")).collect()
    }
}

fn upload(row: &Row) -> Result<Upload, StoreError> {
    let complete = match row.maybe_text("digest")? {
        Some(digest) => Some((digest, row.count("bytes")?)),
        None => None,
    };
    Ok(Upload {
        id: row.parsed("id")?,
        length: row.maybe_int("length")?.map(i64::cast_unsigned),
        metadata: row.maybe_text("client_metadata")?,
        complete,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
    })
}
