//! `GET /v1/webhooks`.

use axum::extract::OriginalUri;
use axum::response::Response;

use super::WebhookOut;
use crate::domain::WebhookId;
use crate::http::auth::{May, ReadWebhooks};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::problem::Problem;
use crate::http::routes::models::list::PageIn;

/// List webhooks
///
/// Newest first, those that are disabled too.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", operation_id = "listWebhooks",
    security(("key" = ["webhooks:read"])),
    params(PageIn),
    responses((status = 200, description = "A page of webhooks", body = PageOut<WebhookOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "request_timeout"])))
)]
pub async fn list_webhooks(
    May(state, ..): May<ReadWebhooks>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let after: Option<WebhookId> = state.cursors.open_id("webhooks", asked.after.as_deref())?;
    let webhooks = state.hooks().list_webhooks(after, limit + 1).await?;
    let now = state.clock.now();
    let page = PageOut::of(
        &webhooks,
        limit,
        |row| WebhookOut::new(row, now),
        |last| state.cursors.seal("webhooks", &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
