//! `modelpress migrate`.

use super::serve::block_on;
use super::{ConfigArgs, FAILED, Failure, say};

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    block_on(async {
        crate::app::open_store(&config)
            .await
            .map_err(|error| Failure::new(FAILED, error))?;
        say(format!("{:?} is up to date", config.database));
        Ok(())
    })
}
