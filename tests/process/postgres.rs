//! A schema of its own in the PostgreSQL that tests may use.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::runtime::Runtime;

/// A schema, dropped with this.
pub(crate) struct Schema {
    runtime: Runtime,
    admin: String,
    name: String,
    pub(crate) url: String,
}

impl Schema {
    /// Nothing where no PostgreSQL is given, and says so.
    #[expect(
        clippy::print_stdout,
        reason = "who reads the test's output should know what it did not do"
    )]
    pub(crate) fn create(test: &str) -> Option<Self> {
        let Ok(admin) = std::env::var("MODELPRESS_TEST_POSTGRES_URL") else {
            println!("SKIPPED on PostgreSQL: {test} (set MODELPRESS_TEST_POSTGRES_URL to run it)");
            return None;
        };
        let name = format!("test_{}_{}", std::process::id(), test);
        let mark = if admin.contains('?') { '&' } else { '?' };
        let schema = Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            url: format!("{admin}{mark}options=-c%20search_path%3D{name}"),
            admin,
            name,
        };
        schema.run(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    fn run(&self, sql: &str) {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.admin)
                .await
                .expect("PostgreSQL answers");
            let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
                .execute(&mut connection)
                .await;
            done.expect("the statement runs");
        });
    }

    /// The number that a query answers.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url)
                .await
                .expect("PostgreSQL answers");
            let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
                .fetch_one(&mut connection)
                .await;
            row.expect("one row").get(0)
        })
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.name));
    }
}
