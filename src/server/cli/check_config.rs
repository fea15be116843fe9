//! `modelpress check-config`.

use super::{ConfigArgs, FAILED, Failure, say};
use crate::config::Settings;

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let text = toml::to_string(&Settings::of(&config)).map_err(|error| Failure::new(FAILED, error))?;
    say(text.trim_end());
    Ok(())
}
