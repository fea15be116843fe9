//! What a worker would do to a job in the memory store.

use modelpress_server::domain::job::{Failure, Progress};
use modelpress_server::domain::ports::{Clock as _, SystemClock};
use modelpress_server::domain::{Event, JobId, JobState};
use serde_json::json;

use super::memory::Tables;

/// The next state of a job, with its event.
pub(super) fn advance(tables: &mut Tables, id: JobId, state: JobState) {
    let now = SystemClock.now();
    let job = tables.jobs.get_mut(&id).expect("known job");
    job.state = state;
    match state {
        JobState::Running => {
            job.started_at = Some(now);
            job.attempt += 1;
            job.progress = Progress {
                stage: Some("quantize".into()),
                stages: 1,
                bytes_done: 1,
                bytes_total: 4,
                bytes_per_second: 1.0,
                ..Progress::default()
            };
        }
        JobState::Failed => {
            job.failure = Some(Failure {
                code: "worker_lost".into(),
                message: "gone".into(),
            });
        }
        _ => {}
    }
    if state.is_terminal() {
        job.finished_at = Some(now);
    }
    let events = tables.events.entry(id).or_default();
    events.push(Event {
        seq: events.len() as u64 + 1,
        at: now,
        kind: "state".into(),
        level: "info".into(),
        message: format!("job is {}", state.as_str()),
        data: json!({"status": state.as_str()}),
    });
}
