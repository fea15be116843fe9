//! `modelpress keys`: make and end keys where the database is.

use std::sync::Arc;

use clap::{Args, Subcommand};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::serve::block_on;
use super::{ConfigArgs, FAILED, Failure, USAGE, complain, say};
use crate::domain::key::{Asked, issue};
use crate::domain::model::is_name;
use crate::domain::ports::{Clock as _, StoreError, Stores, SystemClock};
use crate::domain::{ApiKey, KeyId, Scope, Tenant};

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key and print it; it is shown this once
    Create(CreateArgs),
    /// List keys, newest first
    List(ListArgs),
    /// Revoke a key at once
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What you call it
    #[arg(long, value_parser = name)]
    name: String,
    /// Whose things it opens
    #[arg(long, default_value_t)]
    tenant: Tenant,
    /// What it may do: admin, or read and write of a noun, as in jobs:write
    #[arg(long, value_delimiter = ',', value_name = "SCOPE", default_value = "admin", value_parser = scope)]
    scopes: Vec<Scope>,
    /// Days after which it runs out [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    expires_days: Option<u16>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Whose keys
    #[arg(long, default_value_t)]
    tenant: Tenant,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The key's id, as in `modelpress keys list`
    id: KeyId,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: KeysArgs) -> Result<(), Failure> {
    match args.verb {
        Verb::Create(args) => create(args),
        Verb::List(args) => list(args),
        Verb::Revoke(args) => revoke(args),
    }
}

fn create(args: CreateArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let now = SystemClock.now();
    let asked = Asked {
        tenant: args.tenant,
        name: args.name,
        scopes: args.scopes,
        expires_at: args
            .expires_days
            .map(|days| now + Duration::days(i64::from(days))),
    };
    let (key, token) = issue(asked, uuid::Uuid::now_v7(), rand::random(), now);
    block_on(async {
        let rows = open(&config).await?;
        rows.of(&key.tenant).insert_key(&key).await.map_err(failed)?;
        complain(&format!("{} opens what {} has", key.id, key.tenant));
        say(token);
        Ok(())
    })
}

fn list(args: ListArgs) -> Result<(), Failure> {
    const PAGE: u32 = 100;
    let config = args.config.load()?;
    block_on(async {
        let store = open(&config).await?.of(&args.tenant);
        let mut after = None;
        loop {
            let keys = store.list_keys(after, PAGE).await.map_err(failed)?;
            for key in &keys {
                say(line(key));
            }
            match keys.last() {
                Some(last) if keys.len() == PAGE as usize => after = Some(last.id),
                _ => return Ok(()),
            }
        }
    })
}

fn revoke(args: RevokeArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    block_on(async {
        let rows = open(&config).await?;
        let missing = |error| match error {
            StoreError::NotFound => Failure::new(USAGE, format!("no key has the id {}", args.id)),
            other => failed(other),
        };
        let key = rows.key_of_any(args.id).await.map_err(missing)?;
        let store = rows.of(&key.tenant);
        let key = store
            .revoke_key(args.id, SystemClock.now())
            .await
            .map_err(failed)?;
        say(line(&key));
        Ok(())
    })
}

async fn open(config: &crate::config::Config) -> Result<Arc<dyn Stores>, Failure> {
    let opened = crate::app::open_stores(config).await;
    opened.map_err(|error| {
        let hint = "; while a server runs on SQLite, keys are made through its API (POST /v1/keys)";
        let hint = if error.to_string().contains("in use by another") {
            hint
        } else {
            ""
        };
        Failure::new(FAILED, format!("{error}{hint}"))
    })
}

fn failed(error: StoreError) -> Failure {
    Failure::new(FAILED, error)
}

/// A key on one line, its columns separated by tabs.
fn line(key: &ApiKey) -> String {
    let at = |time: Option<OffsetDateTime>| time.and_then(|time| time.format(&Rfc3339).ok());
    let end = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => format!("revoked {}", at(key.revoked_at).unwrap_or_default()),
        (None, Some(_)) => format!("until {}", at(key.expires_at).unwrap_or_default()),
        (None, None) => "for ever".to_owned(),
    };
    let used = at(key.last_used_at).map_or_else(|| "never used".to_owned(), |time| format!("used {time}"));
    format!(
        "{}\t{}\t{}\t{end}\t{used}",
        key.id,
        key.name,
        Scope::words(&key.scopes, ",")
    )
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse()
        .map_err(|_e| format!("there are {}", Scope::words(Scope::ALL, ", ")))
}

fn name(text: &str) -> Result<String, String> {
    if !is_name(text) {
        return Err("a name has 1 to 200 bytes and no control characters".to_owned());
    }
    Ok(text.to_owned())
}
