//! `POST /v1/webhooks/{id}/test`.

use axum::Json;
use axum::http::StatusCode;

use super::DeliveryOut;
use crate::domain::WebhookId;
use crate::http::auth::{May, WriteWebhooks};
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Test a webhook
///
/// A message of type `webhook.test` is sent soon, whatever types the webhook gets; `deliveries` shows what came of it.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/test", tag = "webhooks", operation_id = "testWebhook",
    security(("key" = ["webhooks:write"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    responses((status = 202, description = "The message, which waits", body = DeliveryOut)),
    extensions(("x-problem-codes" = json!(["not_found", "conflict", "request_timeout"])))
)]
pub async fn test_webhook(
    May(state, ..): May<WriteWebhooks>,
    Id(id): Id<WebhookId>,
) -> Result<(StatusCode, Json<DeliveryOut>), Problem> {
    let written = state.hooks().test_webhook(id).await;
    let delivery = written.map_err(about("webhook", &id))?;
    state.wake.notify_waiters();
    Ok((StatusCode::ACCEPTED, Json(DeliveryOut::from(&delivery))))
}
