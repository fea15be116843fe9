//! `modelpress backup` and `modelpress restore`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;

use super::serve::block_on;
use super::{ConfigArgs, FAILED, Failure, USAGE, complain, say};
use crate::domain::ports::{Clock as _, SystemClock};
use crate::upkeep::{Done, UpkeepError, backup, restore};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Folder to back up into: a new one, or an earlier backup, to which only what is new is copied
    #[arg(value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn back_up(args: BackupArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    block_on(async {
        let told = Told::new();
        let done = backup::backup(&config, &args.out, SystemClock.now(), &|so_far, all| {
            told.tell(so_far, all);
        })
        .await;
        let done = done.map_err(failure)?;
        say(format!(
            "{} is backed up in {}: {}",
            config.data_dir.display(),
            args.out.display(),
            line(&done)
        ));
        note(&done);
        Ok(())
    })
}

pub(super) fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    block_on(async {
        let told = Told::new();
        let restored = restore::restore(&config, &args.from, &|so_far, all| {
            told.tell(so_far, all);
        })
        .await;
        let (manifest, done) = restored.map_err(failure)?;
        // Brings the schema up to date, and shows that the database can be opened.
        let opened = crate::app::open_stores(&config).await;
        opened.map_err(|error| Failure::new(FAILED, error))?;
        say(format!(
            "{} is as it was at {}: {}",
            config.data_dir.display(),
            manifest.created_at,
            line(&done)
        ));
        note(&done);
        Ok(())
    })
}

fn failure(error: UpkeepError) -> Failure {
    let code = if matches!(error, UpkeepError::Refused(_)) {
        USAGE
    } else {
        FAILED
    };
    Failure::new(code, error)
}

fn line(done: &Done) -> String {
    format!(
        "{} blobs of {} bytes, {} bytes copied",
        done.blobs, done.bytes, done.copied
    )
}

fn note(done: &Done) {
    if done.outside > 0 {
        complain(&format!(
            "{} blobs are files of this machine that source_path registered; back those up where they lie",
            done.outside
        ));
    }
}

/// Says now and then how far it is.
struct Told(Mutex<Instant>);

impl Told {
    const PAUSE: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn tell(&self, so_far: u64, all: u64) {
        let Ok(mut last) = self.0.lock() else { return };
        if last.elapsed() >= Self::PAUSE {
            *last = Instant::now();
            complain(&format!("{so_far} of {all} bytes"));
        }
    }
}
