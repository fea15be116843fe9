//! `modelpress serve`.

use super::{ConfigArgs, FAILED, Failure, USAGE};
use crate::app::App;
use crate::config::Config;
use crate::telemetry::{self, Running};

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let _until_the_end = start_logging(&config)?;
    block_on(async {
        let app = App::start(config)
            .await
            .map_err(|error| Failure::new(FAILED, error))?;
        app.run_until_signal().await;
        Ok(())
    })
}

pub(super) fn start_logging(config: &Config) -> Result<Running, Failure> {
    telemetry::start(config.log_format, &config.log_filter, &config.traces)
        .map_err(|error| Failure::new(USAGE, error))
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
