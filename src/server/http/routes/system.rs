//! `GET /v1/system`: the installation, for those who run it.
//!
//! Owns: its wire form, who may see it.
//! Must not know: how the configuration is read.
//! Invariant: no secret is shown, and no other tenant's administrator sees the house.

use axum::Json;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::{NodeLoad, Tenant};
use crate::http::auth::{Admin, May};
use crate::http::problem::{self, Problem};

/// A worker that runs jobs now.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeOut {
    /// The worker's name, as in the log.
    pub node: String,
    /// Jobs that it runs.
    pub running: u64,
    /// When the last of their leases runs out unless it is renewed.
    #[serde(with = "time::serde::rfc3339")]
    pub lease_expires_at: OffsetDateTime,
}

impl From<NodeLoad> for NodeOut {
    fn from(load: NodeLoad) -> Self {
        Self {
            node: load.worker,
            running: load.running,
            lease_expires_at: load.lease_until,
        }
    }
}

/// A loop of the process that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoopOut {
    /// What it does.
    #[schema(example = "reap")]
    pub name: &'static str,
    /// When it last did; null where it never ran here.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_tick_at: Option<OffsetDateTime>,
}

/// The installation.
#[derive(Debug, Serialize, ToSchema)]
pub struct SystemOut {
    /// Always `system`.
    #[schema(example = "system")]
    pub object: &'static str,
    /// Version of the process that answers.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// `sqlite` or `postgres`.
    #[schema(example = "sqlite")]
    pub database: &'static str,
    /// The database's schema.
    pub schema_version: i64,
    /// When the process that answers was started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Workers that run jobs now, in all processes.
    pub nodes: Vec<NodeOut>,
    /// The loops of the process that answers.
    pub loops: Vec<LoopOut>,
    /// Its settings, secrets left out, as `modelpress check-config` prints them.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
}

/// See the installation
///
/// Versions, who works, the loops and the settings of the process that answers. Only for administrators of the tenant
/// `default`: it is about the whole house.
#[utoipa::path(
    get, path = "/v1/system", tag = "system", operation_id = "getSystem",
    security(("key" = ["admin"])),
    responses((status = 200, description = "The installation", body = SystemOut)),
    extensions(("x-problem-codes" = json!(["request_timeout"])))
)]
pub async fn get_system(May(state, ..): May<Admin>) -> Result<Json<SystemOut>, Problem> {
    if state.tenant != Tenant::default() {
        return Err(Problem::new(
            problem::INSUFFICIENT_SCOPE,
            "the installation is shown to administrators of the tenant `default` only",
        ));
    }
    let nodes = state
        .stores
        .loads()
        .await?
        .into_iter()
        .map(NodeOut::from)
        .collect();
    let loops = state.metrics.last_ticks().into_iter();
    let about = &state.about;
    Ok(Json(SystemOut {
        object: "system",
        version: env!("CARGO_PKG_VERSION"),
        database: about.database,
        schema_version: about.schema_version,
        started_at: about.started_at,
        nodes,
        loops: loops
            .map(|(name, at)| LoopOut {
                name,
                last_tick_at: at,
            })
            .collect(),
        config: about.settings.clone(),
    }))
}
