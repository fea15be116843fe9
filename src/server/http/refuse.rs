//! From the errors of other rooms to problems: one conversion each.
//!
//! Owns: which kind of problem an error is.
//! Must not know: handlers.
//! Invariant: an error of ours never shows its text to the client.

use axum::http::header;
use modelpress_engine::Class;

use super::problem::{self, Problem};
use crate::child::{Cause, Death, Objection, Subject, Wrong};
use crate::domain::model::NameError;
use crate::domain::ports::{BlobError, StoreError};

/// A store error about an object the client named.
pub fn about<'a>(what: &'a str, id: &'a impl std::fmt::Display) -> impl FnOnce(StoreError) -> Problem + 'a {
    move |error| match error {
        StoreError::NotFound => Problem::not_found(what, &id.to_string()),
        StoreError::InUse => Problem::new(problem::IN_USE, format!("{what} {id} is used by a job")),
        other => other.into(),
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::new(problem::NOT_FOUND, "the object is not there"),
            StoreError::Conflict(detail) => Self::new(problem::CONFLICT, detail),
            StoreError::InUse => Self::new(problem::IN_USE, "the object is used by a job"),
            StoreError::KeyMismatch => {
                let detail =
                    "this Idempotency-Key was used with another request; make a new key for a new request";
                Self::new(problem::IDEMPOTENCY_MISMATCH, detail)
            }
            StoreError::Full => Self::new(problem::OVERLOADED, "too many jobs are waiting; try again later"),
            StoreError::TenantFull(most) => {
                let detail = format!("{most} jobs of the tenant wait already, which is as many as may");
                Self::new(problem::QUOTA_EXCEEDED, detail)
                    .with_code("queued_jobs_exceeded")
                    .with_header(header::RETRY_AFTER, "30")
            }
            StoreError::NoSpace(cause) => {
                Self::new(problem::DISK_FULL, "the database has no disk space for this").because(cause)
            }
            StoreError::Unavailable(cause) => {
                Self::new(problem::UNAVAILABLE, "the database cannot be reached; try again").because(cause)
            }
            StoreError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        let text = error.to_string();
        match error {
            BlobError::NotFound => Self::new(problem::NOT_FOUND, "the bytes are not there"),
            BlobError::OffsetMismatch { actual } => {
                Self::new(problem::OFFSET_MISMATCH, text).with_offset(actual)
            }
            BlobError::Superseded => Self::new(problem::UPLOAD_SUPERSEDED, text),
            BlobError::TooLarge { max_bytes } => Self::new(
                problem::TOO_LARGE,
                format!("the file is larger than {max_bytes} bytes"),
            ),
            BlobError::Full(cause) => {
                Self::new(problem::DISK_FULL, "the server has no disk space for this").because(cause)
            }
            BlobError::Idle(_) | BlobError::Slow { .. } => Self::new(problem::IDLE_TIMEOUT, text),
            BlobError::Truncated(cause) => {
                Self::new(problem::BODY_TRUNCATED, "the body ended before it was complete").because(cause)
            }
            BlobError::DigestMismatch { .. } => Self::new(problem::DIGEST_MISMATCH, text),
            BlobError::ChecksumMismatch => Self::new(
                problem::CHECKSUM_MISMATCH,
                "the piece does not have its Upload-Checksum and was dropped; send it again",
            ),
            BlobError::SourceChanged(path) => {
                let detail = "a registered file changed on disk; register the model again";
                Self::new(problem::CONFLICT, detail)
                    .with_code("source_changed")
                    .because(path.display())
            }
            BlobError::Unavailable(cause) => Self::new(
                problem::UNAVAILABLE,
                "the file store cannot be reached; try again",
            )
            .because(cause),
            BlobError::Io(cause) => Self::internal(cause),
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        let kind = match error {
            NameError::Invalid { .. } => problem::FILE_NAME_INVALID,
            NameError::Pickle(_) => problem::PICKLE_REFUSED,
        };
        Self::new(kind, error.to_string())
    }
}

/// The engine cannot read the files of a model or a dataset.
pub fn rejected(wrong: &Wrong) -> Problem {
    let kind = kind(wrong.subject);
    match wrong.class {
        Class::BadInput | Class::Unsupported | Class::Numeric => Problem::new(kind, wrong.message.clone())
            .with_code(&wrong.code)
            .with_error("/files", &wrong.code, wrong.message.clone()),
        Class::Resources if wrong.code == "disk_full" => {
            Problem::new(problem::DISK_FULL, "the server has no disk space for this").because(&wrong.message)
        }
        Class::Resources | Class::Cancelled | Class::Internal => Problem::internal(&wrong.message),
    }
}

fn kind(subject: Subject) -> problem::Kind {
    match subject {
        Subject::Dataset => problem::DATASET_REJECTED,
        Subject::Model | Subject::Work => problem::MODEL_REJECTED,
    }
}

/// The process that read the files died of them: they are no files that anything should read again.
pub fn unread(subject: Subject, death: &Death, limit: u64) -> Problem {
    let (code, detail) = match death.cause {
        Cause::Memory => (
            "reading_needs_memory",
            format!(
                "reading the files takes more than {limit} bytes of memory, which no sound model or dataset does"
            ),
        ),
        Cause::Ended => (
            "reading_hangs",
            "reading the files did not come to an end".to_owned(),
        ),
        Cause::Killed | Cause::Crashed => (
            "reading_crashes",
            "the process that read the files died; the server's log has the details".to_owned(),
        ),
    };
    tracing::error!(cause = ?death.cause, signal = death.signal, peak_rss_bytes = death.peak_rss_bytes,
        last_words = death.last_words, "a process that read files for a request died");
    Problem::new(kind(subject), detail.clone())
        .with_code(code)
        .with_error("/files", code, detail)
}

/// The recipe cannot work. The engine points into the recipe; `place` says where that is in the request.
pub fn refused_recipe(refusals: &[Objection], place: RecipePlace) -> Problem {
    let detail = match refusals {
        [one] => one.detail.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.detail, rest.len()),
        [] => "the recipe was refused".to_owned(),
    };
    let problem = Problem::new(problem::RECIPE_REFUSED, detail);
    refusals.iter().fold(problem, |problem, refusal| {
        problem.with_error(
            place.pointer(&refusal.pointer),
            &refusal.code,
            refusal.detail.clone(),
        )
    })
}

/// How a request spells its recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipePlace {
    /// The request's field.
    pub field: &'static str,
    /// The recipe is the name of a preset.
    pub is_name: bool,
    /// The formats stand beside the recipe, not in it.
    pub formats_beside: bool,
}

impl RecipePlace {
    fn pointer(self, in_recipe: &str) -> String {
        if self.formats_beside && in_recipe.starts_with("/formats") {
            in_recipe.to_owned()
        } else if self.is_name {
            self.field.to_owned()
        } else {
            format!("{}{in_recipe}", self.field)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_killed_their_reader_are_refused_as_what_they_were_sent_as() {
        let death = Death {
            cause: Cause::Memory,
            signal: Some(6),
            last_words: String::new(),
            peak_rss_bytes: 0,
        };
        for (subject, title) in [
            (Subject::Model, problem::MODEL_REJECTED.title),
            (Subject::Dataset, problem::DATASET_REJECTED.title),
        ] {
            let problem = unread(subject, &death, 1);
            assert_eq!(problem.code(), "reading_needs_memory");
            assert!(format!("{problem:?}").contains(title), "{problem:?}");
        }
    }
}
