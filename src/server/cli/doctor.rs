//! `modelpress doctor`.

use super::serve::block_on;
use super::{ConfigArgs, FAILED, Failure, say};
use crate::domain::ports::{Clock as _, SystemClock};
use crate::upkeep::doctor::{Finding, Grade, examine};

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let findings = block_on(async { Ok(examine(&config, SystemClock.now()).await) })?;
    for finding in &findings {
        show(finding);
    }
    match findings
        .iter()
        .filter(|finding| finding.grade == Grade::Broken)
        .count()
    {
        0 => Ok(()),
        broken => Err(Failure::new(
            FAILED,
            format!("{broken} of {} are broken", findings.len()),
        )),
    }
}

fn show(finding: &Finding) {
    let word = match finding.grade {
        Grade::Fine => "ok",
        Grade::Warning => "warning",
        Grade::Broken => "broken",
    };
    say(format!("{word:<8} {:<12} {}", finding.subject, finding.detail));
    if !finding.fix.is_empty() {
        say(format!("{:<21} fix: {}", "", finding.fix));
    }
}
