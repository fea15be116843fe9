//! `modelpress worker`.

use super::serve::{block_on, start_logging};
use super::{ConfigArgs, FAILED, Failure};
use crate::app;

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let mut config = args.load()?;
    config.workers.count = config.workers.count.max(1);
    let _until_the_end = start_logging(&config)?;
    block_on(async {
        app::run_workers_until_signal(config)
            .await
            .map_err(|error| Failure::new(FAILED, error))
    })
}
