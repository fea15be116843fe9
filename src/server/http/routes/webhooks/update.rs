//! `PATCH /v1/webhooks/{id}`.

use axum::Json;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::{WebhookOut, check_description, check_url, topics};
use crate::domain::WebhookId;
use crate::domain::webhook::Change;
use crate::http::auth::{May, WriteWebhooks};
use crate::http::input::Input;
use crate::http::path::Id;
use crate::http::problem::Problem;
use crate::http::refuse::about;

/// What changes; a field that is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": true}))]
pub struct WebhookPatch {
    /// Where messages go.
    pub url: Option<String>,
    /// What you say of it; null for nothing.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Which types of message it gets; all, if the list is empty.
    pub events: Option<Vec<String>>,
    /// On or off.
    pub enabled: Option<bool>,
}

/// Null is something that was said.
#[expect(
    clippy::option_option,
    reason = "absent, null and a text are three things in a patch"
)]
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Change a webhook
///
/// `{"enabled": false}` ends what waits for it; `{"enabled": true}` lets messages go to it again, also after the server
/// has disabled it. What was not sent meanwhile is not sent later; `replay` sends single messages again.
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "updateWebhook",
    security(("key" = ["webhooks:write"])),
    params(("id" = String, Path, description = "The webhook", example = "whk_0193d0a67c1e7bd08d532f5a9f1d1c11")),
    request_body = WebhookPatch,
    responses((status = 200, description = "The webhook", body = WebhookOut)),
    extensions(("x-problem-codes" = json!(["json_invalid", "body_truncated", "not_found", "too_large",
        "unsupported_media_type", "fields_invalid", "request_timeout"])))
)]
pub async fn update_webhook(
    May(state, ..): May<WriteWebhooks>,
    Id(id): Id<WebhookId>,
    input: Input<WebhookPatch>,
) -> Result<Json<WebhookOut>, Problem> {
    let asked = input.value;
    let description = asked.description.as_ref().and_then(Option::as_deref);
    check_description(description)?;
    let topics = asked.events.as_deref().map(topics).transpose()?;
    if let Some(url) = &asked.url {
        check_url(&state, url).await?;
    }
    let change = Change {
        url: asked.url,
        description: asked.description,
        topics,
        enabled: asked.enabled,
    };
    let changed = state.hooks().change_webhook(id, &change).await;
    let webhook = changed.map_err(about("webhook", &id))?;
    Ok(Json(WebhookOut::new(&webhook, state.clock.now())))
}
