//! A schema of its own in the PostgreSQL that tests may use.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A schema, dropped with everything in it at the end.
#[derive(Debug)]
pub(crate) struct Schema {
    admin: String,
    name: String,
    /// A URL whose connections see only this schema.
    pub(crate) url: String,
}

impl Schema {
    /// None where there is no PostgreSQL to test on; the test says so.
    pub(crate) fn create(test: &str) -> Option<Self> {
        let admin = std::env::var("MODELPRESS_TEST_POSTGRES_URL").ok()?;
        let name = format!("test_{test}_{}", std::process::id());
        let mark = if admin.contains('?') { '&' } else { '?' };
        let url = format!("{admin}{mark}options=-c%20search_path%3D{name}");
        run(&admin, format!("DROP SCHEMA IF EXISTS {name} CASCADE"));
        run(&admin, format!("CREATE SCHEMA {name}"));
        Some(Self { admin, name, url })
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        run(&self.admin, format!("DROP SCHEMA {} CASCADE", self.name));
    }
}

fn run(url: &str, sql: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .expect("runs");
    });
}
