//! Databases of earlier versions, brought up to date with what is in them.
//!
//! `tests/migrations` holds a dump for each released migration, with rows in every table; `dump.py` there writes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _,
    SqliteConnection,
};

use super::bed::{Schema, postgres_url};
use crate::domain::model::hex;
use crate::domain::ports::SystemClock;
use crate::store::{migrate, postgres, sqlite};

/// A migration that was released: it never changes, a mistake is mended by a new one.
struct Released {
    version: i64,
    name: &'static str,
    /// Of its texts, SQLite's first.
    digest: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! released {
    ($($version:literal $file:literal $name:literal $digest:literal)*) => {
        &[$(Released {
            version: $version,
            name: $name,
            digest: $digest,
            sqlite: include_str!(concat!("../../../../tests/migrations/sqlite/", $file, ".sql")),
            postgres: include_str!(concat!("../../../../tests/migrations/postgres/", $file, ".sql")),
        }),*]
    };
}

#[rustfmt::skip]
const RELEASED: &[Released] = released! {
    1 "0001" "0001_first" "a3c8e2caf0b386e5d798a246f3d53f369f4cc861b16f6279cc39b3e3797e2d5f"
    2 "0002" "0002_datasets" "9e6737befce322d7b3c830a1888de73739fe2c224adda380d95a1ad663a8a491"
    3 "0003" "0003_upload_metadata" "0cd1976c1d6ee8c07be10b501f6450fd95bd52a4cab02195544b170c6780158e"
    4 "0004" "0004_tenants" "1a908670624a1434a81733e5beeef896591986cab79a20bc3aba0236c71c95b6"
    5 "0005" "0005_audit" "9593eeffb455ebc8de65daa7336b95c565eb9fb7e7985ac1b6ebe7bce7c2dcec"
    6 "0006" "0006_checkpoints" "012808335f121c876808423aef95d8372943a2fd4b3da1a8c0779a3c9034f301"
    7 "0007" "0007_webhooks" "3e3b551406c5b323aa84451aa386fc50889c6dd8b73cf3795e1337040c95d9c7"
    8 "0008" "0008_drafts" "6c0f2f38c2589e25d92b8c06679beca2f1df84f3880447e1d7abbf5df2d4c286"
    9 "0009" "0009_pulls" "65ad56224a78f0966319df5a843ae4efe484c912d74429803a55e0f344ab2844"
    10 "0010" "0010_turns" "445cbd1988a154ecc56e23c1bb4988ab0468651385d5e9b140294875687dfd1c"
    11 "0011" "0011_searches" "cba7ac630c3c5fe4c57a0751074acaef71ae8421e71bc4566005967e9b258e14"
};

#[test]
fn released_migrations_do_not_change() {
    for released in RELEASED {
        let text: String = [migrate::sqlite(), migrate::postgres()]
            .iter()
            .flat_map(|migrator| migrator.iter())
            .filter(|migration| migration.description == released.name)
            .map(|migration| migration.sql.as_str().to_owned())
            .collect();
        assert_eq!(
            hex(&Sha256::digest(text)),
            released.digest,
            "{} was released and then changed",
            released.name
        );
    }
}

/// Every table's rows, each as columns and values.
type Tables = BTreeMap<String, Vec<Map<String, Value>>>;

fn parsed(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("an object")
}

async fn lite(connection: &mut SqliteConnection) -> Tables {
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'
        AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
    let mut tables = Tables::new();
    for row in connection.fetch_all(names).await.expect("lists") {
        let table: String = row.get(0);
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let columns = connection.fetch_all(AssertSqlSafe(columns)).await.expect("lists");
        let pairs: Vec<String> = columns
            .iter()
            .map(|row| format!("'{0}', {0}", row.get::<String, _>(0)))
            .collect();
        let rows = format!("SELECT json_object({}) FROM {table}", pairs.join(", "));
        let rows = connection.fetch_all(AssertSqlSafe(rows)).await.expect("reads");
        tables.insert(table, rows.iter().map(|row| parsed(row.get(0))).collect());
    }
    tables
}

async fn pg(connection: &mut PgConnection) -> Tables {
    let names = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()
        AND table_name NOT LIKE '\\_sqlx%'";
    let mut tables = Tables::new();
    for row in connection.fetch_all(names).await.expect("lists") {
        let table: String = row.get(0);
        let rows = format!("SELECT to_jsonb(t)::text FROM {table} t");
        let rows = connection.fetch_all(AssertSqlSafe(rows)).await.expect("reads");
        tables.insert(table, rows.iter().map(|row| parsed(row.get(0))).collect());
    }
    tables
}

/// The same value, or what migration 4 made of a key that had no tenant.
fn is_kept(old: &Value, new: Option<&Value>) -> bool {
    let of_tenant = |old: &str, new: &str| new.strip_prefix("default:") == Some(old);
    match (old, new) {
        (Value::String(old), Some(Value::String(new))) => old == new || of_tenant(old, new),
        (Value::Number(old), Some(Value::Number(new))) => old.as_f64() == new.as_f64(),
        (old, new) => Some(old) == new,
    }
}

fn assert_kept(version: i64, before: &Tables, after: &Tables) {
    for (table, rows) in before {
        assert!(!rows.is_empty(), "the dump of {version} has no row in {table}");
        let now = &after[table];
        assert_eq!(now.len(), rows.len(), "{table} of {version}");
        for row in rows {
            let same =
                |new: &&Map<String, Value>| row.iter().all(|(column, old)| is_kept(old, new.get(column)));
            assert!(
                now.iter().any(|new| same(&new)),
                "{table} of {version} lost {row:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_sqlite_file_of_every_version_is_brought_up_to_date() {
    for released in RELEASED {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("old.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        // A dump fills tables in the order of their names.
        let mut old = options.foreign_keys(false).connect().await.expect("opens");
        old.execute(sqlx::raw_sql(released.sqlite)).await.expect("a dump");
        let before = lite(&mut old).await;
        let clock = Arc::new(SystemClock);
        drop(
            sqlite::open(&path, clock.clone())
                .await
                .expect("brought up to date"),
        );
        let after = lite(&mut old).await;
        assert_kept(released.version, &before, &after);
        let broken = old.fetch_all("PRAGMA foreign_key_check").await.expect("answers");
        assert!(broken.is_empty(), "{}", released.version);
        drop(sqlite::open(&path, clock).await.expect("opens again"));
        assert_eq!(lite(&mut old).await, after, "nothing happens a second time");
    }
}

#[tokio::test]
async fn a_postgres_schema_of_every_version_is_brought_up_to_date_by_two_at_once() {
    let Some(url) = postgres_url("a_postgres_schema_of_every_version_is_brought_up_to_date") else {
        return;
    };
    for released in RELEASED {
        let schema = Schema::create(&url).await;
        let mut old = PgConnection::connect(&schema.url).await.expect("connects");
        old.execute(sqlx::raw_sql(released.postgres))
            .await
            .expect("a dump");
        let before = pg(&mut old).await;
        let clock = Arc::new(SystemClock);
        let open = || postgres::open(&schema.url, clock.clone());
        let (one, other) = tokio::join!(open(), open());
        drop((one.expect("brought up to date"), other.expect("as well")));
        let after = pg(&mut old).await;
        assert_kept(released.version, &before, &after);
        drop(open().await.expect("opens again"));
        assert_eq!(pg(&mut old).await, after, "nothing happens a second time");
        drop(old);
        schema.drop().await;
    }
}

#[tokio::test]
async fn many_processes_make_an_empty_schema_at_once() {
    let Some(url) = postgres_url("many_processes_make_an_empty_schema_at_once") else {
        return;
    };
    let schema = Schema::create(&url).await;
    let open = || postgres::open(&schema.url, Arc::new(SystemClock));
    let opened = futures_util::future::join_all((0..8).map(|_| open())).await;
    for rows in opened {
        rows.expect("opens");
    }
    schema.drop().await;
}
