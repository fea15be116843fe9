//! `GET /v1/webhooks/{id}/deliveries`.

use axum::extract::OriginalUri;
use axum::response::Response;

use super::DeliveryOut;
use crate::domain::{DeliveryId, WebhookId};
use crate::http::auth::{May, ReadWebhooks};
use crate::http::input::Params;
use crate::http::page::{self, PageOut};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;
use crate::http::routes::models::list::PageIn;

/// List what was sent to a webhook
///
/// Newest first, with every try: status, duration, the first bytes of the answer, why it does not count. Kept
/// `keep_deliveries_days` after its end.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "listDeliveries",
    security(("key" = ["webhooks:read"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11"), PageIn),
    responses((status = 200, description = "A page of messages", body = PageOut<DeliveryOut>,
               headers(("Link" = Option<String>, description = "The next page, as `rel=\"next\"`")))),
    extensions(("x-problem-codes" = json!(["query_invalid", "cursor_invalid", "cursor_mismatch", "not_found",
        "request_timeout"])))
)]
pub async fn list_deliveries(
    May(state, ..): May<ReadWebhooks>,
    Id(id): Id<WebhookId>,
    OriginalUri(uri): OriginalUri,
    Params(asked): Params<PageIn>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let filter = format!("deliveries|{id}");
    let after: Option<DeliveryId> = state.cursors.open_id(&filter, asked.after.as_deref())?;
    let found = state.hooks().list_deliveries(id, after, limit + 1).await;
    let deliveries = found.map_err(about("webhook", &id))?;
    let page = PageOut::of(
        &deliveries,
        limit,
        |row| DeliveryOut::from(row),
        |last| state.cursors.seal(&filter, &last.id.to_string()),
    );
    Ok(page::render(&uri, &page))
}
