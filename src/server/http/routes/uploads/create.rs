//! `POST /v1/uploads`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{UploadOut, stand};
use crate::domain::{Upload, UploadId};
use crate::http::input::Input;
use crate::http::problem::{self, Problem};
use crate::http::state::AppState;

/// What is known of a file before its bytes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadIn {
    /// Its size. Without it the last request says `Upload-Complete: ?1`.
    #[schema(example = 269_060_552)]
    pub length: Option<u64>,
}

/// Start an upload
///
/// Then send bytes with `PATCH`; after a broken connection ask with `HEAD` where to go on.
/// Files of one model can be uploaded side by side.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "uploads", operation_id = "createUpload",
    request_body = UploadIn,
    responses((status = 201, description = "An open upload", body = UploadOut,
               headers(("Location" = String, description = "Where to send bytes"), ("Upload-Offset" = u64)))),
    extensions(("x-problem-codes" = json!(["json_invalid", "too_large", "unsupported_media_type", "fields_invalid",
        "body_truncated", "disk_full", "request_timeout"])))
)]
pub async fn create_upload(
    State(state): State<AppState>,
    input: Input<UploadIn>,
) -> Result<Response, Problem> {
    let length = input.value.length;
    let most = state.limits.file_bytes;
    if length.is_some_and(|length| length > most) {
        return Err(Problem::new(
            problem::TOO_LARGE,
            format!("a file has at most {most} bytes"),
        ));
    }
    let now = state.clock.now();
    let id = UploadId::from_uuid(uuid::Uuid::now_v7());
    let expires_at = now + state.limits.upload_age;
    let mut upload = Upload {
        id,
        length,
        complete: None,
        created_at: now,
        expires_at,
    };
    state.uploads.begin(id).await?;
    if let Err(error) = state.store.insert_upload(&upload).await {
        state.uploads.abandon(id).await?;
        return Err(error.into());
    }
    if length == Some(0) {
        upload.complete = Some(super::append::complete(&state, id, None).await?);
    }
    let location = format!("/v1/uploads/{id}");
    let body = Json(UploadOut::new(&upload, 0));
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response();
    stand(&mut response, &upload, 0);
    Ok(response)
}
