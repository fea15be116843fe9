//! Models that the server brings from elsewhere.
//!
//! Owns: what is said about a pull; which sources may be named; opening what was brought.
//! Must not know: how files are brought.
//! Invariant: a token is sealed before it leaves this file.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

use super::create::Token;
use crate::domain::ports::Commit;
use crate::domain::pull::{Inspector, NewPull, NotAModel, Source};
use crate::domain::{Failure, FileRef, Model, Pull};
use crate::http::auth::Caller;
use crate::http::problem::{self, Problem};
use crate::http::state::AppState;

/// Most names of files, and most bytes of one.
const INCLUDE: (usize, usize) = (100, 255);
/// Most bytes of a token.
const MAX_TOKEN_BYTES: usize = 4096;

/// Where a model's files are brought from, and how far that is.
#[derive(Debug, Serialize, ToSchema)]
pub struct PullOut {
    /// The source, as it was asked for.
    #[schema(example = "hf://HuggingFaceTB/SmolLM2-135M@main")]
    pub source: String,
    /// The commit that the revision turned out to be; null until it is known, and where there are none.
    #[schema(example = "12fd25f77366fa6b3b4b768ec3050bf629380bac")]
    pub commit: Option<String>,
    /// `active`, `done` or `failed`.
    #[schema(example = "active")]
    pub status: &'static str,
    /// How many files are brought; 0 until it is known.
    pub files_total: u64,
    /// How many of them are there.
    pub files_done: u64,
    /// Size of all of them; 0 until it is known.
    pub bytes_total: u64,
    /// How much of it is there, to within a few seconds.
    pub bytes_done: u64,
    /// What went wrong and may pass: the server tries again.
    pub waiting_for: Option<String>,
    /// Why it failed.
    pub error: Option<PullErrorOut>,
}

/// Why a pull failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct PullErrorOut {
    /// Stable name.
    #[schema(example = "source_forbidden")]
    pub code: String,
    /// For people: what is wrong and what would help.
    pub message: String,
}

impl From<&Pull> for PullOut {
    fn from(pull: &Pull) -> Self {
        Self {
            source: pull.source.clone(),
            commit: pull.revision.clone().filter(|revision| !revision.is_empty()),
            status: pull.state.as_str(),
            files_total: pull.files,
            files_done: pull.files_done,
            bytes_total: pull.bytes,
            bytes_done: pull.bytes_done,
            waiting_for: pull.note.clone(),
            error: pull.failure.as_ref().map(|failure| PullErrorOut {
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
        }
    }
}

/// Records a model whose files will be brought.
pub(super) async fn begin(
    state: &Caller,
    model: Model,
    source: &str,
    include: Vec<String>,
    token: Option<Token>,
) -> Result<Model, Problem> {
    let wrong = |error| Problem::field("/source", "source_invalid", format!("source {error}"));
    let source: Source = source.parse().map_err(wrong)?;
    allowed(state, &source)?;
    check_include(&include)?;
    let pull = NewPull {
        token: sealed(state, &model, token)?,
        source,
        include,
    };
    state.check_bytes(0).await?;
    state.store.begin_pull(&model, &pull).await?;
    state.wake.notify_waiters();
    tracing::info!(model = %model.id, tenant = %state.tenant, source = %pull.source, "pull asked for");
    Ok(state.store.model(model.id).await?)
}

/// The hub is there for everybody; the rest is for the operator to allow.
fn allowed(state: &Caller, source: &Source) -> Result<(), Problem> {
    if matches!(source, Source::Hub { .. }) || state.pull_allowed.iter().any(|place| place.holds(source)) {
        return match source {
            Source::Web { url } => {
                let refused =
                    |refused| Problem::field("/source", "url_not_allowed", format!("source {refused}"));
                state.outbound.policy().check(url).map(|_| ()).map_err(refused)
            }
            Source::Hub { .. } | Source::Bucket { .. } => Ok(()),
        };
    }
    let detail = format!(
        "{source} is not among what this server's pull_allowed names; ask its operator, or upload the files"
    );
    Err(Problem::new(problem::SOURCE_NOT_ALLOWED, detail))
}

fn check_include(include: &[String]) -> Result<(), Problem> {
    let (most, longest) = INCLUDE;
    if include.len() > most {
        return Err(Problem::field(
            "/include",
            "too_many",
            format!("at most {most} names are taken"),
        ));
    }
    for (i, name) in include.iter().enumerate() {
        if name.is_empty() || name.len() > longest || name.chars().any(char::is_control) {
            let detail = format!("a name has 1 to {longest} bytes and no control characters");
            return Err(Problem::field(format!("/include/{i}"), "invalid_value", detail));
        }
    }
    Ok(())
}

fn sealed(state: &Caller, model: &Model, token: Option<Token>) -> Result<Option<String>, Problem> {
    let Some(Token(token)) = token else {
        return Ok(None);
    };
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let detail = format!("a token has 1 to {MAX_TOKEN_BYTES} visible ASCII characters");
        return Err(Problem::field("/token", "invalid_value", detail));
    }
    let closed = state.seal.close(&model.id.to_string(), &token, rand::random());
    closed
        .map(Some)
        .ok_or_else(|| Problem::internal("a token could not be sealed"))
}

impl Inspector for AppState {
    fn inspect<'a>(&'a self, files: &'a [FileRef]) -> BoxFuture<'a, Result<Commit, NotAModel>> {
        async move {
            super::inspected(self, files).await.map_err(|problem| {
                if problem.status().is_client_error() {
                    NotAModel::Rejected(Failure {
                        code: problem.code().to_owned(),
                        message: problem.detail().to_owned(),
                    })
                } else {
                    NotAModel::NotNow(problem.detail().to_owned())
                }
            })
        }
        .boxed()
    }
}
