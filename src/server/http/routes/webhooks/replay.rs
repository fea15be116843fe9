//! `POST /v1/webhooks/{id}/deliveries/{delivery}/replay`.

use axum::Json;
use axum::http::StatusCode;

use super::DeliveryOut;
use crate::domain::WebhookId;
use crate::http::auth::{May, WriteWebhooks};
use crate::http::path::{DeliveryOf, Id};
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// Send a message again
///
/// The same message under the same `webhook-id`, whatever became of it, from the start of the schedule.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/deliveries/{delivery}/replay", tag = "webhooks", operation_id = "replayDelivery",
    security(("key" = ["webhooks:write"])),
    params(
        ("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11"),
        ("delivery" = String, Path, description = "The message", example = "msg_0193d0a67c1e7bd08d532f5a9f1d1c11"),
    ),
    responses((status = 202, description = "The message, which waits", body = DeliveryOut)),
    extensions(("x-problem-codes" = json!(["not_found", "conflict", "request_timeout"])))
)]
pub async fn replay_delivery(
    May(state, ..): May<WriteWebhooks>,
    Id(id): Id<WebhookId>,
    DeliveryOf(delivery): DeliveryOf,
) -> Result<(StatusCode, Json<DeliveryOut>), Problem> {
    let again = state.hooks().replay_delivery(id, delivery).await;
    let delivery = again.map_err(about("message", &delivery))?;
    state.wake.notify_waiters();
    Ok((StatusCode::ACCEPTED, Json(DeliveryOut::from(&delivery))))
}
