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
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::{LocalBlobs, S3Blobs, sweep};
use crate::config::{Config, Database, Settings};
use crate::deliver::Sender;
use crate::domain::ports::{BlobError, Blobs, Clock as _, StoreError, Stores, SystemClock, Uploads};
use crate::domain::queue::Queue;
use crate::domain::sealed::Seal;
use crate::domain::{Outbox, Pulls};
use crate::http::auth::Gate;
use crate::http::listen::{self, Door};
use crate::http::page::Cursors;
use crate::http::rates::Rates;
use crate::http::state::{About, AppState, Parts};
use crate::outbound::{Outbound, Policy};
use crate::pull::{Bounds, Puller, Sources};
use crate::queue::reap::Neighbours;
use crate::queue::wake::POLL;
use crate::signing::{Signer, SigningError};
use crate::store::Rows;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Folder;
use crate::worker::{Kit, Pool, PoolError};
use crate::{http, store, worker};

/// How long a pull that does not end keeps at least what has arrived.
const PULLED: Duration = Duration::from_hours(24 * 30);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address is taken or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The data folder cannot be used.
    #[error("data folder {0}: {1}")]
    DataDir(String, io::Error),
    /// The object store cannot be used.
    #[error("blob_url: {0}")]
    Bucket(BlobError),
    /// The database cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The workers cannot work.
    #[error("workers: {0}")]
    Workers(#[from] PoolError),
    /// What models shall run on cannot be used.
    #[error("worker_device: {0}")]
    Device(String),
    /// There is no way out.
    #[error("outbound client: {0}")]
    Outbound(#[from] crate::outbound::Failed),
    /// Everybody would be a stranger.
    #[error(
        "the API on {0} asks for keys and there is none that is good; make one with `modelpress keys create --name \
         admin` and the same settings, or set auth = \"off\" if nobody else can reach the address"
    )]
    NoKey(SocketAddr),
    /// Artifacts cannot be signed.
    #[error("signing_key: {0}")]
    Signing(#[from] SigningError),
    /// Two metrics have one name.
    #[error("metrics: {0}")]
    Metrics(#[from] crate::telemetry::metrics::MetricsError),
}

/// A server that listens.
#[derive(Debug)]
pub struct App {
    state: AppState,
    config: Config,
    /// None over a store that only answers requests.
    workers: Option<Pool>,
    /// Likewise.
    sender: Option<Sender>,
    /// Likewise.
    puller: Option<Puller>,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

impl App {
    /// Opens everything and binds the addresses; requests wait in the socket until [`App::run`].
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let rows = Arc::new(open_store(&config).await?);
        let mut app = Self::bind(config, rows.clone(), Some(rows.clone())).await?;
        if matches!(app.config.database, Database::Sqlite(_)) {
            // Nobody else has the file open: what a former process was bringing is free.
            rows.free_pulls().await?;
        }
        app.sender = Some(sender(&app.state, rows.clone()));
        app.puller = Some(puller(&app.state, &app.config, rows));
        Ok(app)
    }

    /// The same over a store that is open already, without workers.
    pub async fn start_with(config: Config, stores: Arc<dyn Stores>) -> Result<Self, AppError> {
        Self::bind(config, stores, None).await
    }

    async fn bind(
        config: Config,
        stores: Arc<dyn Stores>,
        queue: Option<Arc<dyn Queue>>,
    ) -> Result<Self, AppError> {
        choose_tls();
        let state = state(&config, stores)?;
        ask_for_a_key(&state, &config).await?;
        let listener = bind(config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self {
            workers: queue.map(|queue| hire(&state, &config, queue)).transpose()?,
            sender: None,
            puller: None,
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
        self.run(first_signal()).await;
    }

    /// Serves until `stop`, then drains: not ready, no new requests, running ones finish, workers give their jobs
    /// back, loops end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            state,
            config,
            workers,
            sender,
            puller,
            listener,
            metrics_listener,
        } = self;
        let tasks = TaskTracker::new();
        let loops = CancellationToken::new();
        tasks.spawn(sweep::run(sweeper(&state), loops.clone()));
        if let Some(sender) = sender {
            tasks.spawn(sender.run(loops.clone()));
        }
        if let Some(puller) = puller {
            tasks.spawn(puller.run(loops.clone()));
        }
        let door = door(&state, &config);
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
            if let Some(workers) = workers {
                workers.release(config.drain).await;
            }
        };
        tokio::join!(server, drain);
        loops.cancel();
        tasks.close();
        tasks.wait().await;
        tracing::info!("stopped");
    }
}

/// Says once, for the whole process, whose cryptography TLS uses. Clients of other servers need it.
pub fn choose_tls() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("TLS was chosen before");
    }
}

/// Runs workers without the API until SIGTERM or SIGINT, then gives their jobs back.
pub async fn run_workers_until_signal(config: Config) -> Result<(), AppError> {
    let rows = Arc::new(open_store(&config).await?);
    let state = state(&config, rows.clone())?;
    let (tasks, loops) = (TaskTracker::new(), CancellationToken::new());
    if let Some(address) = config.metrics_listen {
        let router = http::metrics_router(state.clone());
        tasks.spawn(listen::serve(
            bind(address).await?,
            router,
            door(&state, &config),
            loops.clone(),
        ));
    }
    tasks.spawn(sender(&state, rows.clone()).run(loops.clone()));
    let workers = hire(&state, &config, rows)?;
    tracing::info!(workers = config.workers.count, database = ?config.database, "working");
    first_signal().await;
    tracing::info!(grace_seconds = config.drain.as_secs(), "draining");
    state.drain.cancel();
    workers.release(config.drain).await;
    loops.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(())
}

/// Starts the workers that the configuration asks for, and the loops that look after the queue.
fn hire(state: &AppState, config: &Config, queue: Arc<dyn Queue>) -> Result<Pool, AppError> {
    // Without workers nothing is computed here, and what they compute on may be elsewhere.
    let device = if config.workers.count == 0 {
        "cpu"
    } else {
        &config.workers.device
    };
    let engine = worker::engine::Children::of(config.children.clone(), device, config.workers.memory_bytes)
        .map_err(AppError::Device)?;
    Ok(Pool::start(Kit {
        queue,
        blobs: state.blobs.clone(),
        clock: state.clock.clone(),
        metrics: state.metrics.clone(),
        engine: Arc::new(engine),
        signer: state.signer.clone(),
        wake: state.wake.clone(),
        news: state.news.clone(),
        probe: worker::probe::from_env(),
        chance: rand::random,
        settings: worker::Settings {
            workers: config.workers.count,
            threads: config.workers.threads,
            memory_bytes: config.workers.memory_bytes,
            poll: POLL,
            most_of_tenant: config.limits.tenant.running_jobs,
            ttl: config.workers.lease,
            checkpoint: config.workers.checkpoint,
            decode_command: config.workers.decode_command.clone(),
            scratch: config.scratch_dir(),
            neighbours: match config.database {
                Database::Sqlite(_) => Neighbours::None,
                Database::Postgres(_) => Neighbours::Some,
            },
            retention: config.retention,
        },
    })?)
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

/// The same for a command that changes rows and serves nothing.
pub async fn open_stores(config: &Config) -> Result<Arc<dyn Stores>, AppError> {
    Ok(Arc::new(open_store(config).await?))
}

/// One store of files, for whole blobs and for uploads.
type Faces = (Arc<dyn Blobs>, Arc<dyn Uploads>);

/// Opens the store of files: a folder or a bucket.
fn open_blobs(config: &Config) -> Result<Faces, AppError> {
    let Some(bucket) = &config.bucket else {
        let data_dir = |error| AppError::DataDir(config.data_dir.display().to_string(), error);
        let folder = Arc::new(LocalBlobs::open(&config.blob_dir()).map_err(data_dir)?);
        return Ok((folder.clone(), folder));
    };
    let (cache, reserve) = (config.cache_dir(), config.limits.reserve_bytes);
    let bucket = S3Blobs::open(bucket, &cache, config.blob_cache_bytes, reserve);
    let bucket = Arc::new(bucket.map_err(AppError::Bucket)?);
    Ok((bucket.clone(), bucket))
}

fn state(config: &Config, stores: Arc<dyn Stores>) -> Result<AppState, AppError> {
    let data_dir = |error| AppError::DataDir(config.data_dir.display().to_string(), error);
    fs::create_dir_all(&config.data_dir).map_err(data_dir)?;
    let (blobs, uploads) = open_blobs(config)?;
    let secret = match &config.cursor_secret {
        Some(secret) => secret.clone().into_bytes(),
        None => kept_secret(&config.data_dir.join("cursor.key")).map_err(data_dir)?,
    };
    let metrics = Metrics::new()?;
    metrics.watch(Folder {
        path: config.data_dir.clone(),
        reserve_bytes: config.limits.reserve_bytes,
        backup_stamp: config.backup_stamp(),
    });
    Ok(AppState::new(Parts {
        stores,
        gate: Gate::new(config.keys_required),
        rates: Rates::new(config.limits.key),
        blobs,
        children: config.children.clone(),
        uploads,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(metrics),
        limits: config.limits.clone(),
        allowed_model_paths: config.allowed_model_paths.clone(),
        pull_allowed: config.pulls.allowed.clone(),
        seal: Seal::new(&secret),
        outbound: Outbound::new(Policy::new(config.outbound_allowed.clone()))?,
        signer: Arc::new(Signer::open_or_make(&config.signing_key(), rand::random())?),
        cursors: Cursors::new(&secret),
        streams: Arc::new(Semaphore::new(config.limits.streams)),
        wake: Arc::new(Notify::new()),
        news: Arc::new(Notify::new()),
        drain: CancellationToken::new(),
        known: http::routes::searches::known::Known::default(),
        readiness: http::readiness::Readiness::default(),
        about: about(config),
        metrics_elsewhere: config.metrics_listen.is_some(),
    }))
}

fn about(config: &Config) -> About {
    About {
        started_at: SystemClock.now(),
        database: match config.database {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgres",
        },
        schema_version: store::schema_version(),
        data_dir: config.data_dir.clone(),
        worker_memory_bytes: (config.workers.count > 0).then_some(config.workers.memory_bytes),
        // Settings are plain data.
        settings: serde_json::to_value(Settings::of(config)).unwrap_or_default(),
    }
}

/// A server that nobody can use is a mistake, better told now.
async fn ask_for_a_key(state: &AppState, config: &Config) -> Result<(), AppError> {
    let now = state.clock.now();
    if config.keys_required && !state.stores.has_good_key(now).await? {
        return Err(AppError::NoKey(config.listen));
    }
    if !config.keys_required && !config.listen.ip().is_loopback() {
        tracing::warn!(address = %config.listen, "anybody who reaches this address may do everything: auth is off");
    }
    Ok(())
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

fn door(state: &AppState, config: &Config) -> Door {
    Door {
        connections: config.limits.connections,
        header: config.limits.header,
        grace: config.drain,
        open: state.metrics.http_connections.clone(),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| AppError::Listen(address, error))
}

fn sweeper(state: &AppState) -> sweep::Sweeper {
    sweep::Sweeper {
        stores: state.stores.clone(),
        blobs: state.blobs.clone(),
        uploads: state.uploads.clone(),
        clock: state.clock.clone(),
        upload_age: state.limits.upload_age,
        metrics: state.metrics.clone(),
    }
}

/// Brings models from elsewhere, in every process that serves.
fn puller(state: &AppState, config: &Config, pulls: Arc<dyn Pulls>) -> Puller {
    let limits = &config.limits;
    Puller {
        pulls,
        stores: state.stores.clone(),
        blobs: state.blobs.clone(),
        uploads: state.uploads.clone(),
        inspector: Arc::new(state.clone()),
        outbound: state.outbound.clone(),
        sources: Arc::new(Sources {
            hub: config.pulls.hub.clone(),
            hub_token: config.pulls.hub_token.clone(),
            allowed: config.pulls.allowed.clone(),
        }),
        seal: state.seal.clone(),
        clock: state.clock.clone(),
        metrics: state.metrics.clone(),
        wake: state.wake.clone(),
        bounds: Bounds {
            connections: config.pulls.connections,
            idle: limits.idle,
            least_bytes_per_second: limits.upload_bytes_per_second,
            reserve_bytes: limits.reserve_bytes,
            file_bytes: limits.file_bytes,
            model_files: limits.model_files,
            tenant_bytes: limits.tenant.bytes,
            keep: limits.upload_age.max(PULLED),
        },
    }
}

/// Sends what webhooks are told, in every process: what one takes, no other does.
fn sender(state: &AppState, outbox: Arc<dyn Outbox>) -> Sender {
    Sender {
        outbox,
        outbound: state.outbound.clone(),
        clock: state.clock.clone(),
        metrics: state.metrics.clone(),
        wake: state.wake.clone(),
        chance: rand::random,
    }
}

/// Waits for SIGTERM or SIGINT; from then on another one ends the process.
async fn first_signal() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(130);
    });
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
