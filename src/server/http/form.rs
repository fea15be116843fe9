//! All files of a model or dataset in one `multipart/form-data` body.
//!
//! Owns: the form's fields.
//! Must not know: what becomes of the files.
//! Invariant: every blob that the form brought is in the caller's list of what to take back.

use std::collections::BTreeMap;
use std::io;

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::auth::Caller;
use super::engine::check_metadata;
use super::input;
use super::problem::{self, Problem, shorten};
use super::sets::{check_name, check_new_file};
use super::undo::Undo;
use crate::domain::FileRef;
use crate::domain::ports::{BlobError, Body};

const MAX_TEXT_BYTES: usize = 16 << 10;

/// What a form says.
#[derive(Debug, Default)]
pub struct Form {
    /// The field `name`.
    pub name: Option<String>,
    /// The field `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// The file parts, stored.
    pub files: Vec<FileRef>,
}

/// Reads the form and stores its files. What was stored is in `undo`, whatever it comes to.
pub async fn read(state: &Caller, request: Request, undo: &mut Undo) -> Result<Form, Problem> {
    let form = Multipart::from_request(request, &state.app)
        .await
        .map_err(|error| Problem::new(problem::BAD_REQUEST, error.body_text()))?;
    fill(state, form, undo).await
}

async fn fill(state: &Caller, mut form: Multipart, undo: &mut Undo) -> Result<Form, Problem> {
    let mut read = Form::default();
    while let Some(field) = next(state, &mut form).await? {
        match (
            field.name().unwrap_or_default(),
            field.file_name().map(str::to_owned),
        ) {
            (_, Some(file_name)) => file(state, field, file_name, &mut read, undo).await?,
            ("name", None) => {
                let name = text(state, field).await?;
                check_name(Some(&name))?;
                read.name = Some(name);
            }
            ("metadata", None) => {
                let pairs = input::parse(text(state, field).await?.as_bytes());
                read.metadata = pairs.map_err(|problem| problem.below("/metadata"))?;
                check_metadata(&read.metadata)?;
            }
            (other, None) => {
                let detail = format!(
                    "the form has file parts, `name` and `metadata`, not {:?}",
                    shorten(other)
                );
                return Err(Problem::field(
                    format!("/{}", shorten(other)),
                    "unknown_field",
                    detail,
                ));
            }
        }
    }
    if read.files.is_empty() {
        return Err(Problem::field(
            "/file",
            "missing_files",
            "the form holds no file part",
        ));
    }
    Ok(read)
}

async fn file(
    state: &Caller,
    field: Field<'_>,
    name: String,
    read: &mut Form,
    undo: &mut Undo,
) -> Result<(), Problem> {
    check_new_file(state, &read.files, &name)?;
    let bounds = state.bounds(u64::MAX, None).await?;
    let (pump, body) = bridge(field);
    let (sent, stored) = tokio::join!(pump, state.blobs.put(body, bounds, None));
    let stored = match (sent, stored) {
        (Err(problem), Err(BlobError::Truncated(_))) => return Err(problem),
        (_, stored) => stored?,
    };
    state.metrics.uploads_received_bytes.inc_by(stored.bytes);
    read.files.push(FileRef {
        name,
        digest: stored.digest.clone(),
        bytes: stored.bytes,
    });
    undo.add(stored);
    Ok(())
}

/// A field lives no longer than its form, a body must: chunks go through a channel that holds a few.
/// The end is said explicitly, so that a dropped sender is never taken for a complete file.
fn bridge(mut field: Field<'_>) -> (impl Future<Output = Result<(), Problem>>, Body) {
    let (sender, receiver) = mpsc::channel::<Option<io::Result<Bytes>>>(4);
    let pump = async move {
        loop {
            let (item, end) = match field.chunk().await {
                Ok(Some(chunk)) => (Some(Ok(chunk)), None),
                Ok(None) => (None, Some(Ok(()))),
                Err(error) => (
                    Some(Err(io::Error::other(error.body_text()))),
                    Some(Err(broken(&error))),
                ),
            };
            if sender.send(item).await.is_err() {
                // The store stopped reading; it knows why.
                return Ok(());
            }
            if let Some(end) = end {
                return end;
            }
        }
    };
    let body = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(Ok(chunk))) => Some((Ok(chunk), Some(receiver))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
        }
    });
    (pump, body.boxed())
}

async fn next<'a>(state: &Caller, form: &'a mut Multipart) -> Result<Option<Field<'a>>, Problem> {
    match tokio::time::timeout(state.limits.idle, form.next_field()).await {
        Ok(field) => field.map_err(|error| broken(&error)),
        Err(_elapsed) => Err(Problem::new(problem::IDLE_TIMEOUT, "the form fell silent")),
    }
}

async fn text(state: &Caller, field: Field<'_>) -> Result<String, Problem> {
    let read = tokio::time::timeout(state.limits.idle, whole(field));
    let slow = |_elapsed| Problem::new(problem::IDLE_TIMEOUT, "a text part did not arrive in time");
    read.await.map_err(slow)?
}

async fn whole(mut field: Field<'_>) -> Result<String, Problem> {
    let mut raw = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if raw.len() + chunk.len() > MAX_TEXT_BYTES {
            return Err(Problem::new(
                problem::TOO_LARGE,
                format!("a text part has at most {MAX_TEXT_BYTES} bytes"),
            ));
        }
        raw.extend_from_slice(&chunk);
    }
    String::from_utf8(raw).map_err(|_e| Problem::new(problem::BAD_REQUEST, "a text part is not UTF-8"))
}

fn broken(error: &MultipartError) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(problem::TOO_LARGE, error.body_text());
    }
    let text = error.body_text();
    // Multer tells the two apart in words only.
    let kind = if text.contains("incomplete") || text.contains("read stream") {
        problem::BODY_TRUNCATED
    } else {
        problem::BAD_REQUEST
    };
    Problem::new(kind, text)
}
