//! `GET /v1/signing-key`: whose signature artifacts carry.
//!
//! Owns: its wire form.
//! Must not know: how signatures are made.
//! Invariant: the public half only.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::state::AppState;

/// The key that artifacts are signed with.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKeyOut {
    /// Always `signing_key`.
    #[schema(example = "signing_key")]
    pub object: &'static str,
    /// Always `ssh-ed25519`.
    #[schema(example = "ssh-ed25519")]
    pub algorithm: &'static str,
    /// The public key, a line of OpenSSH's `allowed_signers` without its first word.
    #[schema(
        example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c modelpress"
    )]
    pub public_key: String,
    /// Its fingerprint, as `ssh-keygen -l` shows it.
    #[schema(example = "SHA256:6q5f0Vt2Jb3J0mWcEXSd7l0CqLCUQp0dYzAqUu8YVfE")]
    pub fingerprint: String,
    /// What signatures are for (`ssh-keygen -Y verify -n`).
    #[schema(example = "modelpress")]
    pub namespace: &'static str,
}

/// See the key that artifacts are signed with
///
/// Each artifact holds `modelpress.json`, which has the digest of every other file, and `modelpress.json.sig`, its
/// signature in OpenSSH's form: `modelpress verify FOLDER --key KEY`, or `ssh-keygen -Y verify`, checks both. Nobody needs
/// a key of the API to read this one.
#[utoipa::path(
    get, path = "/v1/signing-key", tag = "artifacts", operation_id = "getSigningKey",
    responses((status = 200, description = "The key", body = SigningKeyOut))
)]
pub async fn get_signing_key(State(state): State<AppState>) -> Json<SigningKeyOut> {
    Json(SigningKeyOut {
        object: "signing_key",
        algorithm: "ssh-ed25519",
        public_key: state.signer.public_key(),
        fingerprint: state.signer.fingerprint(),
        namespace: crate::signing::NAMESPACE,
    })
}
