//! Rows of models that are brought from elsewhere.
//!
//! Owns: tables `model_pull` and `model_pull_file`.
//! Must not know: how files are brought.
//! Invariant: an old fence changes nothing; the model's row is locked before those of its pull.

use std::time::Duration;

use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, json, text};
use super::models::files_of;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::pull::{Leftovers, NewPull, PullClaim, PullFile, PullState, PullTicket};
use crate::domain::{Failure, Model, ModelId, Pull};

impl Rows {
    pub(super) async fn add_pull(&self, model: &Model, pull: &NewPull) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        self.insert_model_row(&mut tx, model).await?;
        let args = [
            text(model.id),
            text(&pull.source),
            json(&pull.include)?,
            pull.token.as_deref().into(),
        ];
        tx.run(&sql::PULL_INSERT, &args).await?;
        tx.commit().await
    }

    pub(super) async fn take_pull(&self, ttl: Duration) -> Result<Option<PullClaim>, StoreError> {
        let mut tx = self.db.write().await?;
        let args = [(ttl.as_millis() as i64).into()];
        let Some(row) = tx.one(&sql::PULL_CLAIM, &args).await? else {
            return Ok(None);
        };
        let claim = PullClaim {
            ticket: PullTicket {
                model: row.parsed("model_id")?,
                fence: row.count("fence")?,
            },
            tenant: row.parsed("tenant")?,
            source: row.parsed("source")?,
            include: row.json("include")?,
            token: row.maybe_text("token")?,
            revision: row.maybe_text("revision")?,
            failures: row.small("failures")?,
            bytes_done: row.count("bytes_done")?,
        };
        tx.commit().await?;
        Ok(Some(claim))
    }

    pub(super) async fn keep_pull(
        &self,
        ticket: PullTicket,
        ttl: Duration,
        files_done: u64,
        bytes_done: u64,
    ) -> Result<bool, StoreError> {
        let args = [
            text(ticket.model),
            ticket.fence.into(),
            (ttl.as_millis() as i64).into(),
            files_done.into(),
            bytes_done.into(),
        ];
        let mut tx = self.db.beat().await?;
        let kept = tx.run(&sql::PULL_BEAT, &args).await? == 1;
        tx.commit().await?;
        Ok(kept)
    }

    pub(super) async fn set_pull_plan(
        &self,
        claim: &PullClaim,
        revision: &str,
        files: &[PullFile],
        expires_at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let (now, tenant) = (self.clock.now(), claim.tenant.to_string());
        let mut tx = self.db.write().await?;
        let args = [
            text(claim.ticket.model),
            claim.ticket.fence.into(),
            revision.into(),
            (files.len() as u64).into(),
            files.iter().map(|file| file.bytes).sum::<u64>().into(),
        ];
        if tx.run(&sql::PULL_PLAN, &args).await? == 0 {
            return Ok(false);
        }
        for file in files {
            let args = [
                text(claim.ticket.model),
                file.name.as_str().into(),
                file.origin.as_str().into(),
                file.bytes.into(),
                file.sha256.as_deref().into(),
                text(file.upload),
            ];
            tx.run(&sql::PULL_FILE_INSERT, &args).await?;
            let args = [
                text(file.upload),
                file.bytes.into(),
                None::<&str>.into(),
                None::<&str>.into(),
                None::<i64>.into(),
                now.into(),
                expires_at.into(),
                tenant.as_str().into(),
            ];
            tx.run(&sql::UPLOAD_INSERT, &args).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn files_to_pull(&self, model: ModelId) -> Result<Vec<PullFile>, StoreError> {
        let rows = self
            .db
            .read()
            .await?
            .all(&sql::PULL_FILES, &[text(model)])
            .await?;
        rows.iter().map(file).collect()
    }

    pub(super) async fn give_pull_back(
        &self,
        ticket: PullTicket,
        wait: Duration,
        failures: u32,
        note: Option<&str>,
    ) -> Result<bool, StoreError> {
        let args = [
            text(ticket.model),
            ticket.fence.into(),
            (wait.as_millis() as i64).into(),
            failures.into(),
            note.into(),
        ];
        let mut tx = self.db.write().await?;
        let given = tx.run(&sql::PULL_RELEASE, &args).await? == 1;
        tx.commit().await?;
        Ok(given)
    }

    pub(super) async fn end_pull(
        &self,
        claim: &PullClaim,
        failure: &Failure,
    ) -> Result<Option<Leftovers>, StoreError> {
        let model = claim.ticket.model;
        let mut tx = self.db.write().await?;
        let lock = [text(model), text(&claim.tenant)];
        if tx.one(&sql::MODEL_LOCK, &lock).await?.is_none() {
            return Ok(None);
        }
        let args = [
            text(model),
            claim.ticket.fence.into(),
            failure.code.as_str().into(),
            failure.message.as_str().into(),
            self.clock.now().into(),
        ];
        if tx.run(&sql::PULL_FAIL, &args).await? == 0 {
            tx.abandon().await?;
            return Ok(None);
        }
        let files = files_of(&mut tx, model).await?;
        let uploads = tx.all(&sql::PULL_UPLOAD_IDS, &[text(model)]).await?;
        tx.run(&sql::PULL_UPLOADS_DROP, &[text(model)]).await?;
        tx.run(&sql::MODEL_FILES_DROP, &[text(model)]).await?;
        tx.commit().await?;
        Ok(Some(Leftovers {
            uploads: uploads
                .iter()
                .map(|row| row.parsed("upload_id"))
                .collect::<Result<_, _>>()?,
            digests: files.into_iter().map(|file| file.digest).collect(),
        }))
    }

    pub(super) async fn free_all_pulls(&self) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        tx.run(&sql::PULL_FREE_ALL, &[]).await?;
        tx.commit().await
    }
}

fn file(row: &Row) -> Result<PullFile, StoreError> {
    Ok(PullFile {
        name: row.text("name")?,
        origin: row.text("origin")?,
        bytes: row.count("bytes")?,
        sha256: row.maybe_text("sha256")?,
        upload: row.parsed("upload_id")?,
        done: row.maybe_text("digest")?.is_some(),
    })
}

/// The pull beside a model's row, if there is one.
pub(super) fn pull(row: &Row) -> Result<Option<Pull>, StoreError> {
    let Some(source) = row.maybe_text("pull_source")? else {
        return Ok(None);
    };
    let failure = match row.maybe_text("pull_error_code")? {
        Some(code) => Some(Failure {
            code,
            message: row.maybe_text("pull_error_message")?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(Some(Pull {
        source,
        revision: row.maybe_text("pull_revision")?,
        state: row.parsed::<PullState>("pull_state")?,
        files: row.count("pull_files")?,
        files_done: row.count("pull_files_done")?,
        bytes: row.count("pull_bytes")?,
        bytes_done: row.count("pull_bytes_done")?,
        note: row.maybe_text("pull_note")?,
        failure,
    }))
}
