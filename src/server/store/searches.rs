//! Rows of searches.
//!
//! Owns: table `search`.
//! Must not know: what a point's recipe says, how a front is found.
//! Invariant: a search and all of its jobs appear in one commit; one key makes one search.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Rows;
use super::db::{Arg, Row, Session, json, text};
use super::jobs::LAST;
use super::statement as sql;
use crate::domain::job::Failure;
use crate::domain::model::hex;
use crate::domain::ports::{Room, Sought, StoreError};
use crate::domain::search::{NewSearch, Point};
use crate::domain::{JobId, NewJob, Search, SearchId};

/// A point as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    recipe: Value,
    job: Option<String>,
    refusal: Option<(String, String)>,
}

impl Rows {
    pub(super) async fn insert_search(&self, new: &NewSearch, room: Room) -> Result<Sought, StoreError> {
        let mut tx = self.db.write().await?;
        let mut search = new.search.clone();
        for (index, job) in &new.jobs {
            let id = match self.finished_work(&mut tx, job).await? {
                Some(done) => done,
                None => self.place(&mut tx, job).await?.0,
            };
            if let Some(point) = search.points.get_mut(*index) {
                point.job = Some(id);
            }
        }
        self.check_room(&mut tx, room).await?;
        let points: Vec<Kept> = search.points.iter().map(kept).collect();
        let (key, fingerprint) = match &new.idempotency {
            Some((key, fingerprint)) => (self.owned(key), text(hex(fingerprint))),
            None => (Arg::Text(None), Arg::Text(None)),
        };
        let args = [
            text(search.id),
            self.owner(),
            text(search.model),
            json(&search.asked)?,
            json(&points)?,
            json(&search.metadata)?,
            key,
            fingerprint,
            search.created_at.into(),
        ];
        if tx.run(&sql::SEARCH_INSERT, &args).await? == 1 {
            tx.commit().await?;
            return Ok(Sought::New(search));
        }
        // Another request has this key: nothing of this one stays.
        drop(tx);
        let Some((key, fingerprint)) = &new.idempotency else {
            return Err(StoreError::Internal(
                "a search without a key was there already".to_owned(),
            ));
        };
        let mut session = self.db.read().await?;
        let row = session.one(&sql::SEARCH_BY_KEY, &[self.owned(key)]).await?;
        let row =
            row.ok_or_else(|| StoreError::Unavailable("the first search vanished; try again".to_owned()))?;
        if row.text("fingerprint")? != hex(fingerprint) {
            return Err(StoreError::KeyMismatch);
        }
        let id = row.parsed("id")?;
        drop(session);
        Ok(Sought::Replayed(self.find_search(id).await?))
    }

    /// A job of the same model that did the same and succeeded: the same recipe on the same bytes by the same version makes the
    /// same again.
    async fn finished_work(&self, tx: &mut Session, job: &NewJob) -> Result<Option<JobId>, StoreError> {
        let Some(key) = &job.dedupe_key else {
            return Ok(None);
        };
        let args = [text(job.model), self.owned(key), self.owner()];
        let row = tx.one(&sql::JOB_DONE_BEFORE, &args).await?;
        row.map(|row| row.parsed("id")).transpose()
    }

    pub(super) async fn find_search(&self, id: SearchId) -> Result<Search, StoreError> {
        let mut session = self.db.read().await?;
        let row = session.one(&sql::SEARCH_GET, &[text(id), self.owner()]).await?;
        search(&row.ok_or(StoreError::NotFound)?)
    }

    pub(super) async fn page_of_searches(
        &self,
        after: Option<SearchId>,
        limit: u32,
    ) -> Result<Vec<Search>, StoreError> {
        let before = after.map_or_else(|| LAST.to_owned(), |id| id.to_string());
        let args = [before.into(), limit.into(), self.owner()];
        let rows = self.db.read().await?.all(&sql::SEARCH_LIST, &args).await?;
        rows.iter().map(search).collect()
    }

    pub(super) async fn end_search(&self, id: SearchId) -> Result<Search, StoreError> {
        let mut tx = self.db.write().await?;
        let args = [text(id), self.owner(), self.clock.now().into()];
        tx.run(&sql::SEARCH_CANCEL, &args).await?;
        tx.commit().await?;
        self.find_search(id).await
    }
}

fn kept(point: &Point) -> Kept {
    Kept {
        name: point.name.clone(),
        recipe: point.recipe.clone(),
        job: point.job.map(|id| id.to_string()),
        refusal: point
            .refusal
            .as_ref()
            .map(|f| (f.code.clone(), f.message.clone())),
    }
}

fn search(row: &Row) -> Result<Search, StoreError> {
    let kept: Vec<Kept> = row.json("points")?;
    let damaged = |_e| StoreError::Internal("a search has a broken identifier".to_owned());
    let point = |kept: Kept| -> Result<Point, StoreError> {
        let job: Option<Result<JobId, _>> = kept.job.map(|id| id.parse());
        Ok(Point {
            name: kept.name,
            recipe: kept.recipe,
            job: job.transpose().map_err(damaged)?,
            refusal: kept.refusal.map(|(code, message)| Failure { code, message }),
        })
    };
    Ok(Search {
        id: row.parsed("id")?,
        model: row.parsed("model_id")?,
        asked: row.json("asked")?,
        points: kept.into_iter().map(point).collect::<Result<_, _>>()?,
        metadata: row.json("metadata")?,
        created_at: row.time("created_at")?,
        cancelled_at: row.maybe_time("cancelled_at")?,
    })
}
