//! Rows of models: drafts, their files, what the engine found.
//!
//! Owns: tables `model`, `model_file`, `model_summary`, `model_tensor`.
//! Must not know: the words inside a summary.
//! Invariant: a ready model and its files never change, and it stays while a live job uses it.

use std::collections::HashMap;

use super::Rows;
use super::db::{Row, Session, json, text};
use super::jobs::LAST;
use super::statement as sql;
use crate::domain::model::TensorRow;
use crate::domain::ports::{Commit, StoreError};
use crate::domain::{FileRef, Model, ModelId, ModelState};

impl Rows {
    pub(super) async fn add_model(&self, model: &Model) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        self.insert_model_row(&mut tx, model).await?;
        tx.commit().await
    }

    /// Writes a model with its files and what was found in them.
    pub(super) async fn insert_model_row(&self, tx: &mut Session, model: &Model) -> Result<(), StoreError> {
        let args = [
            text(model.id),
            model.name.as_deref().into(),
            json(&model.metadata)?,
            model.state.as_str().into(),
            model.digest.as_deref().into(),
            model.created_at.into(),
            model.committed_at.into(),
            self.owner(),
        ];
        tx.run(&sql::MODEL_INSERT, &args).await?;
        if !model.files.is_empty() {
            tx.run(&sql::MODEL_FILES_INSERT, &[text(model.id), json(&model.files)?])
                .await?;
        }
        if let Some(summary) = &model.summary {
            tx.run(&sql::MODEL_SUMMARY_INSERT, &[text(model.id), json(summary)?])
                .await?;
        }
        Ok(())
    }

    pub(super) async fn find_model(&self, id: ModelId) -> Result<Model, StoreError> {
        self.load_model(&mut self.db.read().await?, id).await
    }

    pub(super) async fn page_of_models(
        &self,
        after: Option<ModelId>,
        limit: u32,
    ) -> Result<Vec<Model>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let mut session = self.db.read().await?;
        let rows = session
            .all(&sql::MODEL_LIST, &[before.into(), limit.into(), self.owner()])
            .await?;
        let ids = rows
            .iter()
            .map(|row| row.text("id"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut files: HashMap<ModelId, Vec<FileRef>> = HashMap::new();
        for row in session.all(&sql::MODEL_FILES_OF, &[json(&ids)?]).await? {
            files
                .entry(row.parsed("model_id")?)
                .or_default()
                .push(file(&row)?);
        }
        rows.iter()
            .map(|row| model(row, files.remove(&row.parsed("id")?).unwrap_or_default()))
            .collect()
    }

    pub(super) async fn put_file(&self, id: ModelId, new: &FileRef) -> Result<Option<FileRef>, StoreError> {
        let mut tx = self.db.write().await?;
        self.draft(&mut tx, id).await?;
        let old = tx
            .one(&sql::MODEL_FILE_GET, &[text(id), new.name.as_str().into()])
            .await?;
        let args = [
            text(id),
            new.name.as_str().into(),
            new.digest.as_str().into(),
            new.bytes.into(),
        ];
        tx.run(&sql::MODEL_FILE_PUT, &args).await?;
        tx.commit().await?;
        old.as_ref().map(file).transpose()
    }

    pub(super) async fn make_ready(&self, id: ModelId, commit: &Commit) -> Result<Model, StoreError> {
        let mut tx = self.db.write().await?;
        self.draft(&mut tx, id).await?;
        let mut inspected = commit.files.clone();
        inspected.sort_by(|a, b| a.name.cmp(&b.name));
        if files_of(&mut tx, id).await? != inspected {
            return Err(StoreError::Conflict(
                "the files changed while they were inspected; commit again".to_owned(),
            ));
        }
        let args = [text(id), commit.digest.as_str().into(), commit.at.into()];
        tx.run(&sql::MODEL_READY, &args).await?;
        tx.run(&sql::PULL_DONE, &[text(id), commit.at.into()]).await?;
        tx.run(&sql::MODEL_SUMMARY_INSERT, &[text(id), json(&commit.summary)?])
            .await?;
        tx.run(&sql::MODEL_TENSORS_INSERT, &[text(id), json(&commit.tensors)?])
            .await?;
        let model = self.load_model(&mut tx, id).await?;
        tx.commit().await?;
        Ok(model)
    }

    pub(super) async fn page_of_tensors(
        &self,
        id: ModelId,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<TensorRow>, StoreError> {
        let args = [text(id), offset.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::MODEL_TENSORS, &args).await?;
        let tensor = |row: &Row| {
            Ok(TensorRow {
                name: row.text("name")?,
                dtype: row.text("dtype")?,
                shape: row.json("shape")?,
                bytes: row.count("bytes")?,
            })
        };
        rows.iter().map(tensor).collect()
    }

    pub(super) async fn remove_model(&self, id: ModelId) -> Result<Vec<FileRef>, StoreError> {
        let mut tx = self.db.write().await?;
        // The lock makes an enqueue wait that is about to use the model.
        tx.one(&sql::MODEL_LOCK, &[text(id), self.owner()])
            .await?
            .ok_or(StoreError::NotFound)?;
        if tx.one(&sql::MODEL_IN_USE, &[text(id)]).await?.is_some() {
            return Err(StoreError::InUse);
        }
        let files = files_of(&mut tx, id).await?;
        tx.run(&sql::PULL_UPLOADS_DROP, &[text(id)]).await?;
        tx.run(&sql::MODEL_DELETE, &[text(id)]).await?;
        tx.commit().await?;
        Ok(files)
    }

    /// Locks a model that must be a draft.
    async fn draft(&self, tx: &mut Session, id: ModelId) -> Result<(), StoreError> {
        let row = tx.one(&sql::MODEL_LOCK, &[text(id), self.owner()]).await?;
        let state = row.ok_or(StoreError::NotFound)?.text("state")?;
        if state == ModelState::Draft.as_str() {
            return Ok(());
        }
        Err(StoreError::Conflict(format!(
            "model {id} is {state} and does not change any more"
        )))
    }

    async fn load_model(&self, session: &mut Session, id: ModelId) -> Result<Model, StoreError> {
        let row = session.one(&sql::MODEL_GET, &[text(id), self.owner()]).await?;
        let row = row.ok_or(StoreError::NotFound)?;
        model(&row, files_of(session, id).await?)
    }
}

/// The files of a model, by name.
pub(super) async fn files_of(session: &mut Session, id: ModelId) -> Result<Vec<FileRef>, StoreError> {
    let rows = session.all(&sql::MODEL_FILES, &[text(id)]).await?;
    rows.iter().map(file).collect()
}

/// A file reference in a row.
pub(super) fn file(row: &Row) -> Result<FileRef, StoreError> {
    Ok(FileRef {
        name: row.text("name")?,
        digest: row.text("digest")?,
        bytes: row.count("bytes")?,
    })
}

fn model(row: &Row, files: Vec<FileRef>) -> Result<Model, StoreError> {
    let ready = row.text("state")? == ModelState::Ready.as_str();
    Ok(Model {
        id: row.parsed("id")?,
        name: row.maybe_text("name")?,
        metadata: row.json("metadata")?,
        state: if ready {
            ModelState::Ready
        } else {
            ModelState::Draft
        },
        files,
        digest: row.maybe_text("digest")?,
        summary: row.maybe_json("summary")?,
        pull: super::pulls::pull(row)?,
        created_at: row.time("created_at")?,
        committed_at: row.maybe_time("committed_at")?,
    })
}
