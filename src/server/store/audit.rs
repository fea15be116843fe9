//! Rows of the audit log.
//!
//! Owns: table `audit`.
//! Must not know: which changes are worth an entry.
//! Invariant: an entry never changes.

use super::Rows;
use super::db::{Arg, Row, text};
use super::jobs::LAST;
use super::statement as sql;
use crate::domain::ports::StoreError;
use crate::domain::{Entry, EntryId};

impl Rows {
    pub(super) async fn write_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let args = [
            text(entry.id),
            self.owner(),
            entry.key.map_or(Arg::Text(None), text),
            entry.action.as_str().into(),
            entry.object.as_deref().into(),
            entry.request_id.as_str().into(),
            entry.client.as_deref().into(),
            entry.at.into(),
        ];
        let mut tx = self.db.write().await?;
        tx.run(&sql::AUDIT_INSERT, &args).await?;
        tx.commit().await
    }

    pub(super) async fn page_of_entries(
        &self,
        after: Option<EntryId>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [before.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::AUDIT_LIST, &args).await?;
        rows.iter().map(entry).collect()
    }
}

fn entry(row: &Row) -> Result<Entry, StoreError> {
    let key = row.maybe_text("key_id")?.map(|key| key.parse()).transpose();
    Ok(Entry {
        id: row.parsed("id")?,
        key: key.map_err(|_e| StoreError::Internal("column key_id holds no key".to_owned()))?,
        action: row.text("action")?,
        object: row.maybe_text("object")?,
        request_id: row.text("request_id")?,
        client: row.maybe_text("client")?,
        at: row.time("created_at")?,
    })
}
