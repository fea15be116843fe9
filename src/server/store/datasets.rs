//! Rows of datasets, and which jobs read them.
//!
//! Owns: tables `dataset`, `dataset_file`, `job_dataset`.
//! Must not know: the words inside a summary.
//! Invariant: a dataset never changes, and it stays while a live job reads it.

use std::collections::HashMap;

use super::Rows;
use super::db::{Row, Session, json, text};
use super::jobs::LAST;
use super::models::file;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{Dataset, DatasetId, FileRef};

impl Rows {
    pub(super) async fn add_dataset(&self, dataset: &Dataset) -> Result<(), StoreError> {
        let args = [
            text(dataset.id),
            dataset.name.as_deref().into(),
            json(&dataset.metadata)?,
            dataset.digest.as_str().into(),
            json(&dataset.summary)?,
            dataset.created_at.into(),
            self.owner(),
        ];
        let mut tx = self.db.write().await?;
        tx.run(&sql::DATASET_INSERT, &args).await?;
        let files = [text(dataset.id), json(&dataset.files)?];
        tx.run(&sql::DATASET_FILES_INSERT, &files).await?;
        tx.commit().await
    }

    pub(super) async fn find_dataset(&self, id: DatasetId) -> Result<Dataset, StoreError> {
        let mut session = self.db.read().await?;
        let row = session.one(&sql::DATASET_GET, &[text(id), self.owner()]).await?;
        let row = row.ok_or(StoreError::NotFound)?;
        dataset(&row, files_of(&mut session, id).await?)
    }

    pub(super) async fn page_of_datasets(
        &self,
        after: Option<DatasetId>,
        limit: u32,
    ) -> Result<Vec<Dataset>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let mut session = self.db.read().await?;
        let args = [before.into(), limit.into(), self.owner()];
        let rows = session.all(&sql::DATASET_LIST, &args).await?;
        let ids: Vec<String> = rows.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
        let mut files: HashMap<DatasetId, Vec<FileRef>> = HashMap::new();
        for row in session.all(&sql::DATASET_FILES_OF, &[json(&ids)?]).await? {
            let id = row.parsed("dataset_id")?;
            files.entry(id).or_default().push(file(&row)?);
        }
        rows.iter()
            .map(|row| dataset(row, files.remove(&row.parsed("id")?).unwrap_or_default()))
            .collect()
    }

    pub(super) async fn remove_dataset(&self, id: DatasetId) -> Result<Vec<FileRef>, StoreError> {
        let mut tx = self.db.write().await?;
        // The lock makes an enqueue wait that is about to use it.
        tx.one(&sql::DATASET_LOCK, &[text(id), self.owner()])
            .await?
            .ok_or(StoreError::NotFound)?;
        if tx.one(&sql::DATASET_IN_USE, &[text(id)]).await?.is_some() {
            return Err(StoreError::InUse);
        }
        let files = files_of(&mut tx, id).await?;
        tx.run(&sql::DATASET_DELETE, &[text(id)]).await?;
        tx.commit().await?;
        Ok(files)
    }

    /// Holds datasets against deletion until the end of the transaction.
    pub(super) async fn hold_datasets(&self, tx: &mut Session, ids: &[DatasetId]) -> Result<(), StoreError> {
        for id in ids {
            let held = tx.one(&sql::DATASET_SHARE, &[text(id), self.owner()]).await?;
            if held.is_none() {
                return Err(StoreError::Conflict(format!(
                    "dataset {id} was deleted a moment ago"
                )));
            }
        }
        Ok(())
    }
}

async fn files_of(session: &mut Session, id: DatasetId) -> Result<Vec<FileRef>, StoreError> {
    let rows = session.all(&sql::DATASET_FILES, &[text(id)]).await?;
    rows.iter().map(file).collect()
}

fn dataset(row: &Row, files: Vec<FileRef>) -> Result<Dataset, StoreError> {
    Ok(Dataset {
        id: row.parsed("id")?,
        name: row.maybe_text("name")?,
        metadata: row.json("metadata")?,
        files,
        digest: row.text("digest")?,
        summary: row.json("summary")?,
        created_at: row.time("created_at")?,
    })
}
