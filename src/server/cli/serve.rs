//! `modelpress serve`.

use super::{ConfigArgs, FAILED, Failure, USAGE};
use crate::app::App;
use crate::config::Config;

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    start_logging(&config)?;
    block_on(async {
        let app = App::start(config)
            .await
            .map_err(|error| Failure::new(FAILED, error))?;
        app.run_until_signal().await;
        Ok(())
    })
}

pub(super) fn start_logging(config: &Config) -> Result<(), Failure> {
    crate::telemetry::start(config.log_format, &config.log_filter).map_err(|error| Failure::new(USAGE, error))
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
