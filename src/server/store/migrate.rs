//! Migrations: the same steps for both databases.
//!
//! Owns: their list. Released ones never change: a test holds their checksums.
//! Must not know: what the tables are for.
//! Invariant: an older program refuses a newer schema instead of guessing.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

struct Step {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! step {
    ($version:literal, $name:literal) => {
        Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
        }
    };
}

const STEPS: &[Step] = &[
    step!(1, "0001_first"),
    step!(2, "0002_datasets"),
    step!(3, "0003_upload_metadata"),
    step!(4, "0004_tenants"),
    step!(5, "0005_audit"),
    step!(6, "0006_checkpoints"),
    step!(7, "0007_webhooks"),
    step!(8, "0008_drafts"),
    step!(9, "0009_pulls"),
    step!(10, "0010_turns"),
    step!(11, "0011_searches"),
];

/// The version that this program needs.
pub(super) const CURRENT: i64 = STEPS[STEPS.len() - 1].version;

pub(super) fn sqlite() -> Migrator {
    migrator(|step| step.sqlite)
}

pub(super) fn postgres() -> Migrator {
    migrator(|step| step.postgres)
}

fn migrator(text: impl Fn(&Step) -> &'static str) -> Migrator {
    let step = |step: &Step| {
        let sql = text(step).into_sql_str();
        Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(STEPS.iter().map(step).collect())
}
