//! The composition root: builds store, blobs, workers and router, and takes them down in order.
//!
//! Owns: which concrete types are used; the order of starting and draining.
//! Must not know: what any of them does inside.
//! Invariant: at the end of `run` no request, worker or loop of this process is left.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::{LocalBlobs, sweep};
use crate::config::{Config, Database};
use crate::domain::ports::{Store, StoreError, SystemClock};
use crate::http::listen::{self, Door};
use crate::http::page::Cursors;
use crate::http::state::{AppState, Parts};
use crate::store::Rows;
use crate::telemetry::Metrics;
use crate::{http, store};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address is taken or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The data folder cannot be used.
    #[error("data folder {0}: {1}")]
    DataDir(String, io::Error),
    /// The database cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Two metrics have one name.
    #[error("metrics: {0}")]
    Metrics(#[from] crate::telemetry::metrics::MetricsError),
}

/// A server that listens.
#[derive(Debug)]
pub struct App {
    state: AppState,
    config: Config,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

impl App {
    /// Opens everything and binds the addresses; requests wait in the socket until [`App::run`].
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let store = open_store(&config).await?;
        Self::start_with(config, Arc::new(store)).await
    }

    /// The same over a store that is open already.
    pub async fn start_with(config: Config, store: Arc<dyn Store>) -> Result<Self, AppError> {
        let state = state(&config, store)?;
        let listener = bind(config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self {
            state,
            config,
            listener,
            metrics_listener,
        })
    }

    /// The address it really listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process.
    pub async fn run_until_signal(self) {
        self.run(async {
            signal().await;
            tokio::spawn(async {
                signal().await;
                tracing::warn!("second signal: ending at once");
                std::process::exit(130);
            });
        })
        .await;
    }

    /// Serves until `stop`, then drains: not ready, no new requests, running ones finish, loops end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            state,
            config,
            listener,
            metrics_listener,
        } = self;
        let tasks = TaskTracker::new();
        let loops = CancellationToken::new();
        tasks.spawn(sweep::run(sweeper(&state), loops.clone()));
        let door = Door {
            connections: config.limits.connections,
            header: config.limits.header,
            grace: config.drain,
            open: state.metrics.http_connections.clone(),
        };
        if let Some(listener) = metrics_listener {
            // Until the very end: monitoring should see the drain.
            let router = http::metrics_router(state.clone());
            tasks.spawn(listen::serve(listener, router, door.clone(), loops.clone()));
        }
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, database = ?config.database, data_dir = %config.data_dir.display(), "serving");
        }
        let server = listen::serve(listener, http::router(state.clone()), door, state.drain.clone());
        let drain = async {
            stop.await;
            tracing::info!(grace_seconds = config.drain.as_secs(), "draining");
            state.drain.cancel();
        };
        tokio::join!(server, drain);
        loops.cancel();
        tasks.close();
        tasks.wait().await;
        tracing::info!("stopped");
    }
}

/// Opens the database and brings its schema up to date.
pub async fn open_store(config: &Config) -> Result<Rows, AppError> {
    let clock = Arc::new(SystemClock);
    let rows = match &config.database {
        Database::Sqlite(path) => store::sqlite::open(path, clock).await,
        Database::Postgres(url) => store::postgres::open(url, clock).await,
    };
    Ok(rows?)
}

fn state(config: &Config, store: Arc<dyn Store>) -> Result<AppState, AppError> {
    let data_dir = |error| AppError::DataDir(config.data_dir.display().to_string(), error);
    fs::create_dir_all(&config.data_dir).map_err(data_dir)?;
    let blobs = Arc::new(LocalBlobs::open(&config.blob_dir()).map_err(data_dir)?);
    let secret = match &config.cursor_secret {
        Some(secret) => secret.clone().into_bytes(),
        None => kept_secret(&config.data_dir.join("cursor.key")).map_err(data_dir)?,
    };
    Ok(AppState::new(Parts {
        store,
        blobs: blobs.clone(),
        uploads: blobs,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new()?),
        limits: config.limits.clone(),
        allowed_model_paths: config.allowed_model_paths.clone(),
        cursors: Cursors::new(&secret),
        streams: Arc::new(Semaphore::new(config.limits.streams)),
        wake: Arc::new(Notify::new()),
        drain: CancellationToken::new(),
        readiness: http::routes::health::Readiness::default(),
        metrics_elsewhere: config.metrics_listen.is_some(),
    }))
}

/// A secret that this installation made for itself.
fn kept_secret(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match fs::read(path) {
        Ok(secret) if secret.len() >= 32 => Ok(secret),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            let secret: [u8; 32] = rand::random();
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&secret)?;
            Ok(secret.to_vec())
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| AppError::Listen(address, error))
}

fn sweeper(state: &AppState) -> sweep::Sweeper {
    sweep::Sweeper {
        store: state.store.clone(),
        blobs: state.blobs.clone(),
        uploads: state.uploads.clone(),
        clock: state.clock.clone(),
        upload_age: state.limits.upload_age,
        metrics: state.metrics.clone(),
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be received");
            std::future::pending::<()>().await;
        }
    }
}
