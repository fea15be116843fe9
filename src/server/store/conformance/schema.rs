//! Statements and migrations of the two databases, side by side.

use std::collections::BTreeSet;

use sqlx::{Connection as _, Executor as _, Row as _, SqlSafeStr as _};

use super::bed::{Schema, postgres_url};
use crate::domain::ports::{Clock as _, Store as _, StoreError, SystemClock};
use crate::domain::{Model, ModelId, ModelState};
use crate::store::db::Db;
use crate::store::look::Look;
use crate::store::statement::ALL;
use crate::store::{migrate, postgres, sqlite};

#[tokio::test]
async fn every_statement_prepares_on_sqlite() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("test.db");
    drop(
        sqlite::open(&path, std::sync::Arc::new(SystemClock))
            .await
            .expect("opens"),
    );
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opens");
    for statement in ALL {
        let prepared = connection.prepare(statement.sqlite.into_sql_str()).await;
        assert!(prepared.is_ok(), "{}: {:?}", statement.name, prepared.err());
    }
}

#[tokio::test]
async fn every_statement_prepares_on_postgres() {
    let Some(url) = postgres_url("every_statement_prepares") else {
        return;
    };
    let schema = Schema::create(&url).await;
    drop(
        postgres::open(&schema.url, std::sync::Arc::new(SystemClock))
            .await
            .expect("opens"),
    );
    let mut connection = sqlx::PgConnection::connect(&schema.url).await.expect("connects");
    for statement in ALL {
        let prepared = connection.prepare(statement.postgres.into_sql_str()).await;
        assert!(prepared.is_ok(), "{}: {:?}", statement.name, prepared.err());
    }
    drop(connection);
    schema.drop().await;
}

/// `table.column` and `index of table` names.
type Names = BTreeSet<String>;

async fn sqlite_names() -> Names {
    let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:")
        .await
        .expect("opens");
    migrate::sqlite()
        .run_direct(None, &mut connection, false)
        .await
        .expect("migrates");
    let columns = "SELECT m.name || '.' || c.name AS name FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
    let indexes = "SELECT 'index ' || name || ' of ' || tbl_name AS name FROM sqlite_master
        WHERE type = 'index' AND name NOT LIKE 'sqlite\\_autoindex%' ESCAPE '\\'";
    let triggers =
        "SELECT 'trigger ' || name || ' of ' || tbl_name AS name FROM sqlite_master WHERE type = 'trigger'";
    let mut names = Names::new();
    for query in [columns, indexes, triggers] {
        let rows = sqlx::query(query)
            .fetch_all(&mut connection)
            .await
            .expect("lists");
        names.extend(rows.iter().map(|row| row.get::<String, _>("name")));
    }
    names
}

async fn postgres_names(url: &str) -> Names {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connects");
    let columns = "SELECT table_name || '.' || column_name AS name FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_sqlx%'";
    let indexes = "SELECT 'index ' || indexname || ' of ' || tablename AS name FROM pg_indexes
        WHERE schemaname = current_schema() AND indexname NOT LIKE '%\\_pkey'";
    let triggers = "SELECT DISTINCT 'trigger ' || trigger_name || ' of ' || event_object_table AS name
        FROM information_schema.triggers WHERE trigger_schema = current_schema()";
    let mut names = Names::new();
    for query in [columns, indexes, triggers] {
        let rows = sqlx::query(query)
            .fetch_all(&mut connection)
            .await
            .expect("lists");
        names.extend(rows.iter().map(|row| row.get::<String, _>("name")));
    }
    names
}

#[tokio::test]
async fn both_databases_have_the_same_names() {
    let Some(url) = postgres_url("both_databases_have_the_same_names") else {
        return;
    };
    let schema = Schema::create(&url).await;
    drop(
        postgres::open(&schema.url, std::sync::Arc::new(SystemClock))
            .await
            .expect("opens"),
    );
    let (lite, pg) = (sqlite_names().await, postgres_names(&schema.url).await);
    schema.drop().await;
    assert_eq!(
        lite.symmetric_difference(&pg).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "only on one side"
    );
    assert!(
        lite.contains("job.fence") && lite.contains("index job_ready of job"),
        "{lite:?}"
    );
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("test.db");
    let clock = std::sync::Arc::new(SystemClock);
    let first = sqlite::open(&path, clock.clone()).await.expect("opens");
    let second = sqlite::open(&path, clock.clone()).await;
    let Err(StoreError::Unavailable(why)) = second else {
        panic!("opened twice: {second:?}")
    };
    assert!(why.contains("in use by another modelpress process"), "{why}");
    drop(first);
    sqlite::open(&path, clock).await.expect("free again");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("test.db");
    let clock = std::sync::Arc::new(SystemClock);
    drop(sqlite::open(&path, clock.clone()).await.expect("opens"));
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opens");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'future', 1, x'00', 0)";
    sqlx::query(newer)
        .execute(&mut connection)
        .await
        .expect("inserts");
    drop(connection);
    let refused = sqlite::open(&path, clock).await.expect_err("newer");
    assert!(refused.to_string().contains("9999"), "{refused}");
}

/// SQLite ends a transaction by itself when the disk is full, and the driver does not notice.
#[tokio::test]
async fn what_follows_a_full_disk_works_again() {
    let folder = tempfile::tempdir().expect("temp folder");
    let clock = std::sync::Arc::new(SystemClock);
    let rows = sqlite::open(&folder.path().join("test.db"), clock.clone()).await;
    let rows = rows.expect("opens");
    let Db::Sqlite { writer, .. } = &*rows.db else {
        panic!("not SQLite");
    };
    let model = |name: String| Model {
        id: ModelId::from_uuid(uuid::Uuid::now_v7()),
        name: Some(name),
        metadata: std::collections::BTreeMap::new(),
        state: ModelState::Draft,
        files: Vec::new(),
        digest: None,
        summary: None,
        pull: None,
        created_at: clock.now(),
        committed_at: None,
    };
    let no_growth = sqlx::query("PRAGMA max_page_count = 1").execute(writer).await;
    no_growth.expect("set");
    let full = rows.insert_model(&model("x".repeat(1 << 20))).await;
    assert!(
        matches!(&full, Err(StoreError::NoSpace(why)) if why.contains("full")),
        "{full:?}"
    );
    rows.insert_model(&model("small".into()))
        .await
        .expect("there is room for this");
}

/// Upkeep looks at a database that a server has open, and at one where nothing is.
#[tokio::test]
async fn a_look_sees_what_is_there() {
    async fn look(mut look: Look, version: i64) {
        assert_eq!(look.schema().await.expect("answers"), (version, migrate::CURRENT));
        if version > 0 {
            assert_eq!(look.good_keys(SystemClock.now()).await.expect("counts"), 0);
            assert!(look.blobs().await.expect("lists").is_empty());
        }
        assert!(look.damage().await.expect("answers").is_empty());
        let apart = look.clock_millis().await.expect("answers").map(|now| {
            let here = SystemClock.now().unix_timestamp() * 1000;
            (now - here).abs()
        });
        assert!(apart.is_none_or(|millis| millis < 60_000), "{apart:?}");
    }
    let clock = std::sync::Arc::new(SystemClock);
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("test.db");
    let _rows = sqlite::open(&path, clock.clone()).await.expect("opens");
    look(Look::sqlite(&path).await.expect("connects"), migrate::CURRENT).await;
    let empty = folder.path().join("empty.db");
    std::fs::write(&empty, b"").expect("written");
    look(Look::sqlite(&empty).await.expect("connects"), 0).await;

    let Some(url) = postgres_url("a_look_sees_what_is_there") else {
        return;
    };
    let schema = Schema::create(&url).await;
    look(Look::postgres(&schema.url).await.expect("connects"), 0).await;
    let _rows = postgres::open(&schema.url, clock).await.expect("opens");
    look(
        Look::postgres(&schema.url).await.expect("connects"),
        migrate::CURRENT,
    )
    .await;
    schema.drop().await;
}
