//! `GET /v1/webhooks/{id}`.

use axum::Json;

use super::WebhookOut;
use crate::domain::WebhookId;
use crate::http::auth::{May, ReadWebhooks};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Get a webhook
///
/// Where it leads, what it gets, and whether it still does; never its secret.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "getWebhook",
    security(("key" = ["webhooks:read"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 200, description = "The webhook", body = WebhookOut)),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn get_webhook(
    May(state, ..): May<ReadWebhooks>,
    Id(id): Id<WebhookId>,
) -> Result<Json<WebhookOut>, Problem> {
    let webhook = state.hooks().webhook(id).await.map_err(about("webhook", &id))?;
    Ok(Json(WebhookOut::new(&webhook, state.clock.now())))
}
