//! Rows of API keys.
//!
//! Owns: table `api_key`.
//! Must not know: secrets; only their digests come here.
//! Invariant: a key that is revoked stays revoked, and its end never moves later.

use time::OffsetDateTime;

use super::Rows;
use super::db::{Row, Session, text};
use super::jobs::LAST;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{ApiKey, KeyId, Scope};

impl Rows {
    pub(super) async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        self.insert_key_row(&mut tx, key).await?;
        tx.commit().await
    }

    async fn insert_key_row(&self, tx: &mut Session, key: &ApiKey) -> Result<(), StoreError> {
        let args = [
            text(key.id),
            self.owner(),
            key.name.as_str().into(),
            text(Scope::words(&key.scopes, " ")),
            key.secret_digest.as_str().into(),
            key.created_at.into(),
            key.expires_at.into(),
        ];
        tx.run(&sql::KEY_INSERT, &args).await?;
        Ok(())
    }

    pub(super) async fn find_any_key(&self, id: KeyId) -> Result<ApiKey, StoreError> {
        let row = self.db.read().await?.one(&sql::KEY_OF_ANY, &[text(id)]).await?;
        key(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn find_key(&self, id: KeyId) -> Result<ApiKey, StoreError> {
        self.load_key(&mut self.db.read().await?, id).await
    }

    async fn load_key(&self, session: &mut Session, id: KeyId) -> Result<ApiKey, StoreError> {
        let row = session.one(&sql::KEY_GET, &[text(id), self.owner()]).await?;
        key(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn page_of_keys(
        &self,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [before.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::KEY_LIST, &args).await?;
        rows.iter().map(key).collect()
    }

    pub(super) async fn end_key(&self, id: KeyId, at: OffsetDateTime) -> Result<ApiKey, StoreError> {
        let mut tx = self.db.write().await?;
        tx.run(&sql::KEY_REVOKE, &[text(id), self.owner(), at.into()])
            .await?;
        let key = self.load_key(&mut tx, id).await?;
        tx.commit().await?;
        Ok(key)
    }

    pub(super) async fn rotate_key(
        &self,
        old: KeyId,
        new: &ApiKey,
        until: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        if self.load_key(&mut tx, old).await?.revoked_at.is_some() {
            return Err(StoreError::Conflict(format!("key {old} is revoked")));
        }
        tx.run(&sql::KEY_END, &[text(old), self.owner(), until.into()])
            .await?;
        self.insert_key_row(&mut tx, new).await?;
        tx.commit().await
    }

    pub(super) async fn note_use(&self, id: KeyId, at: OffsetDateTime) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        tx.run(&sql::KEY_TOUCH, &[text(id), at.into()]).await?;
        tx.commit().await
    }

    pub(super) async fn any_good_key(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let row = self.db.read().await?.one(&sql::KEY_GOOD, &[now.into()]).await?;
        Ok(row.is_some())
    }
}

fn key(row: &Row) -> Result<ApiKey, StoreError> {
    let scopes = row.text("scopes")?;
    let unknown = |word: &str| StoreError::Internal(format!("column scopes holds {word}"));
    let scope = |word: &str| word.parse::<Scope>().map_err(|_e| unknown(word));
    Ok(ApiKey {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        name: row.text("name")?,
        scopes: scopes.split_whitespace().map(scope).collect::<Result<_, _>>()?,
        secret_digest: row.text("secret_digest")?,
        created_at: row.time("created_at")?,
        expires_at: row.maybe_time("expires_at")?,
        last_used_at: row.maybe_time("last_used_at")?,
        revoked_at: row.maybe_time("revoked_at")?,
    })
}
