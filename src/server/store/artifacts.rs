//! Rows of results: artifacts, reports, and which blobs any row refers to.
//!
//! Owns: tables `artifact`, `artifact_file`, `job_report`, `pending_blob`.
//! Must not know: the words inside a report.
//! Invariant: a blob that a row refers to, or that an attempt announced, is never called an orphan.

use super::Rows;
use super::db::{Row, Session, json, text};
use super::jobs::LAST;
use super::models::file;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::queue::{Lease, Publication, QueueError};
use crate::domain::{Artifact, ArtifactFilter, ArtifactId, Document, JobId};

impl Rows {
    pub(super) async fn find_artifact(&self, id: ArtifactId) -> Result<Artifact, StoreError> {
        let mut session = self.db.read().await?;
        let row = session.one(&sql::ARTIFACT_GET, &[text(id), self.owner()]).await?;
        let row = row.ok_or(StoreError::NotFound)?;
        let files = session.all(&sql::ARTIFACT_FILES, &[text(id)]).await?;
        artifact(&row, &files)
    }

    pub(super) async fn page_of_artifacts(
        &self,
        filter: &ArtifactFilter,
    ) -> Result<Vec<Artifact>, StoreError> {
        let before = filter.after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [
            before.into(),
            filter.limit.into(),
            self.owner(),
            text(filter.job.map_or_else(String::new, |id| id.to_string())),
            text(filter.model.map_or_else(String::new, |id| id.to_string())),
        ];
        let mut session = self.db.read().await?;
        let mut found = Vec::new();
        for row in &session.all(&sql::ARTIFACT_LIST, &args).await? {
            let files = session
                .all(&sql::ARTIFACT_FILES, &[row.text("id")?.into()])
                .await?;
            found.push(artifact(row, &files)?);
        }
        Ok(found)
    }

    pub(super) async fn find_report(&self, id: JobId) -> Result<Document, StoreError> {
        let args = [text(id), self.owner()];
        let row = self.db.read().await?.one(&sql::REPORT_GET, &args).await?;
        let row = row.ok_or(StoreError::NotFound)?;
        Ok(Document::from_store(row.text("report")?))
    }

    pub(super) async fn count_bytes(&self) -> Result<u64, StoreError> {
        let row = self
            .db
            .read()
            .await?
            .one(&sql::STORED_BYTES, &[self.owner()])
            .await?;
        row.map_or(Ok(0), |row| row.count("bytes"))
    }

    pub(super) async fn orphans(&self, digests: &[String]) -> Result<Vec<String>, StoreError> {
        let mut session = self.db.read().await?;
        let rows = session.all(&sql::UNREFERENCED, &[json(&digests)?]).await?;
        rows.iter().map(|row| row.text("digest")).collect()
    }

    pub(super) async fn hold_blobs(&self, lease: Lease, digests: &[String]) -> Result<(), QueueError> {
        let mut tx = self.db.write().await?;
        super::events::reserve(&mut tx, lease, 0).await?;
        let args = [text(lease.job), lease.fence.into(), json(&digests)?];
        tx.run(&sql::PENDING_INSERT, &args).await?;
        Ok(tx.commit().await?)
    }
}

/// Writes what an attempt publishes.
pub(super) async fn publish(
    tx: &mut Session,
    lease: Lease,
    publication: &Publication,
) -> Result<(), StoreError> {
    for artifact in &publication.artifacts {
        let args = [
            text(artifact.id),
            text(lease.job),
            text(artifact.model),
            artifact.format.as_str().into(),
            artifact.digest.as_str().into(),
            artifact.created_at.into(),
        ];
        tx.run(&sql::ARTIFACT_INSERT, &args).await?;
        tx.run(
            &sql::ARTIFACT_FILES_INSERT,
            &[text(artifact.id), json(&artifact.files)?],
        )
        .await?;
    }
    tx.run(
        &sql::REPORT_INSERT,
        &[text(lease.job), publication.report.as_str().into()],
    )
    .await?;
    Ok(())
}

fn artifact(row: &Row, files: &[Row]) -> Result<Artifact, StoreError> {
    Ok(Artifact {
        id: row.parsed("id")?,
        job: row.parsed("job_id")?,
        model: row.parsed("model_id")?,
        format: row.text("format")?,
        digest: row.text("digest")?,
        files: files.iter().map(file).collect::<Result<_, _>>()?,
        created_at: row.time("created_at")?,
    })
}
