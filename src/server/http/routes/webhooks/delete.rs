//! `DELETE /v1/webhooks/{id}`.

use axum::http::StatusCode;

use crate::domain::WebhookId;
use crate::http::auth::{May, WriteWebhooks};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Delete a webhook
///
/// With what was sent to it and what still waits.
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "deleteWebhook",
    security(("key" = ["webhooks:write"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 204, description = "It is gone")),
    extensions(("x-problem-codes" = json!(["not_found", "request_timeout"])))
)]
pub async fn delete_webhook(
    May(state, ..): May<WriteWebhooks>,
    Id(id): Id<WebhookId>,
) -> Result<StatusCode, Problem> {
    let deleted = state.hooks().delete_webhook(id).await;
    deleted.map_err(about("webhook", &id))?;
    tracing::info!(webhook = %id, tenant = %state.tenant, "webhook deleted");
    Ok(StatusCode::NO_CONTENT)
}
