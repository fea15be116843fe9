//! The table of routes: every path, with the layer that bounds it.
//!
//! Owns: the list.
//! Must not know: what a handler does.
//! Invariant: a route of the API is in the OpenAPI document because both come from this table.

pub mod artifacts;
pub mod audit;
pub mod catalog;
pub mod datasets;
pub mod health;
pub mod jobs;
pub mod keys;
pub mod models;
pub mod overview;
pub mod pages;
pub mod plans;
pub mod searches;
pub mod signing_key;
pub mod system;
pub mod uploads;
pub mod webhooks;

use axum::middleware::from_fn;
use tower_http::compression::CompressionLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::AppState;

/// Routes that answer soon: small bodies, a total time limit.
pub fn ordinary() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(models::list::list_models))
        .routes(routes!(models::get::get_model, models::delete::delete_model))
        .routes(routes!(models::tensors::list_tensors))
        .routes(routes!(models::analyze::analyze_model))
        .routes(routes!(datasets::list::list_datasets))
        .routes(routes!(
            datasets::get::get_dataset,
            datasets::delete::delete_dataset
        ))
        .routes(routes!(plans::create_plan))
        .routes(routes!(jobs::create::create_job, jobs::list::list_jobs))
        .routes(routes!(jobs::get::get_job))
        .routes(routes!(jobs::cancel::cancel_job))
        .routes(routes!(jobs::report::get_report))
        .routes(routes!(jobs::report::get_report_html))
        .routes(routes!(jobs::plots::list_plots))
        .routes(routes!(jobs::plots::get_plot))
        .routes(routes!(
            searches::create::create_search,
            searches::list::list_searches
        ))
        .routes(routes!(searches::get::get_search))
        .routes(routes!(searches::cancel::cancel_search))
        .routes(routes!(searches::report::get_search_report_html))
        .routes(routes!(searches::report::get_search_plot))
        .routes(routes!(artifacts::list::list_artifacts))
        .routes(routes!(artifacts::get::get_artifact))
        .routes(routes!(signing_key::get_signing_key))
        .routes(routes!(keys::create::create_key, keys::list::list_keys))
        .routes(routes!(keys::own::get_own_key))
        .routes(routes!(keys::get::get_key, keys::revoke::revoke_key))
        .routes(routes!(keys::rotate::rotate_key))
        .routes(routes!(audit::list_audit_entries))
        .merge(hooks())
        .routes(routes!(catalog::list_formats))
        .routes(routes!(catalog::list_presets))
        .routes(routes!(catalog::list_techniques))
        .routes(routes!(overview::get_overview))
        .routes(routes!(system::get_system))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .merge(document())
}

/// The document is large, and pages read it too.
fn document() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health::openapi))
        .layer(CompressionLayer::new())
}

/// Webhooks.
fn hooks() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(
            webhooks::create::create_webhook,
            webhooks::list::list_webhooks
        ))
        .routes(routes!(
            webhooks::get::get_webhook,
            webhooks::update::update_webhook,
            webhooks::delete::delete_webhook
        ))
        .routes(routes!(webhooks::rotate::rotate_webhook))
        .routes(routes!(webhooks::test::test_webhook))
        .routes(routes!(webhooks::deliveries::list_deliveries))
        .routes(routes!(webhooks::replay::replay_delivery))
}

/// Routes whose time depends on the size of what moves, or that stay open: idle limits instead of a total one.
pub fn streaming() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(models::create::create_model))
        .routes(routes!(datasets::create::create_dataset))
        .routes(routes!(models::files::put_model_file))
        .routes(routes!(models::commit::commit_model))
        .routes(routes!(jobs::events::list_events))
        .routes(routes!(artifacts::files::get_artifact_file))
        .routes(routes!(artifacts::archive::get_artifact_archive))
        .merge(resumable())
}

/// Uploads by offset, in every dialect.
fn resumable() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(
            uploads::create::create_upload,
            uploads::tus::describe_uploads
        ))
        .routes(routes!(
            uploads::get::get_upload,
            uploads::head::head_upload,
            uploads::append::append_upload,
            uploads::delete::delete_upload,
            uploads::instead::override_upload_method
        ))
        .layer(from_fn(uploads::tus::dialect))
}

/// Everything that is API.
pub fn table() -> OpenApiRouter<AppState> {
    ordinary().merge(streaming())
}
