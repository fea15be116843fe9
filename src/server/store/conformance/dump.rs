//! Whole tables as text, after each step of a scenario: the same on both databases.

use std::fmt::Write as _;
use std::time::Duration;

use super::bed::{Bed, HOUR, beat, digest, failure};
use crate::domain::ports::{Store as _, StoreError};
use crate::domain::queue::{End, Queue as _, Silent};
use crate::store::statement::Statement;

/// Runs a statement written for a test.
pub(super) async fn run(bed: &Bed, text: &'static str) -> Result<u64, StoreError> {
    let mut tx = bed.rows.db.write().await?;
    let changed = tx.run(statement(text), &[]).await?;
    tx.commit().await?;
    Ok(changed)
}

fn statement(text: &'static str) -> &'static Statement {
    Box::leak(Box::new(Statement {
        name: "test",
        sqlite: text,
        postgres: text,
    }))
}

const VIEWS: [(&str, &str); 6] = [
    (
        "job",
        "SELECT state, attempt, fence, CASE WHEN lease_until IS NULL THEN 'no lease' ELSE 'lease' END AS lease,
            worker, error_code, event_seq FROM job ORDER BY id",
    ),
    (
        "attempt",
        "SELECT fence, attempt, worker, outcome, error_code, peak_memory_bytes FROM job_attempt ORDER BY job_id, fence",
    ),
    (
        "event",
        "SELECT seq, level, message FROM job_event ORDER BY job_id, seq",
    ),
    (
        "checkpoint",
        "SELECT name, fence, digest, bytes FROM job_checkpoint ORDER BY job_id, name",
    ),
    ("pending", "SELECT fence, digest FROM pending_blob ORDER BY digest"),
    ("artifact", "SELECT format FROM artifact ORDER BY id"),
];

async fn dump(bed: &Bed) -> String {
    let mut session = bed.rows.db.read().await.expect("reads");
    let mut out = String::new();
    for (name, text) in VIEWS {
        for row in session.all(statement(text), &[]).await.expect("reads") {
            let cells: Vec<String> = row.cells().into_iter().map(|(_, cell)| shorten(cell)).collect();
            let _infallible = writeln!(out, "{name}: {}", cells.join(" | "));
        }
    }
    out
}

fn shorten(cell: String) -> String {
    if cell.len() == 64 {
        cell[..4].to_owned()
    } else {
        cell
    }
}

pub(super) async fn the_tables_after_each_step(bed: Bed) {
    let id = bed.enqueue().await;
    assert_eq!(
        dump(&bed).await,
        "job: queued | 0 | 0 | no lease | null | null | 1\n\
         event: 1 | info | job is queued\n"
    );
    let lost = bed.claim(Duration::ZERO).await.expect("one").lease;
    bed.rows.announce(lost, &[digest('b')]).await.expect("its own");
    assert_eq!(
        dump(&bed).await,
        "job: running | 1 | 1 | lease | worker-a | null | 2\n\
         attempt: 1 | 1 | worker-a | null | null | null\n\
         event: 1 | info | job is queued\n\
         event: 2 | info | job is running\n\
         pending: 1 | bbbb\n"
    );
    bed.rows.reap(Silent::Expired).await.expect("reaps");
    let lease = bed.claim(HOUR).await.expect("again").lease;
    bed.rows.beat(lease, &beat(HOUR)).await.expect("its own");
    bed.finish(lease, End::Retry(failure("io"), Duration::ZERO))
        .await
        .expect("its own");
    let lease = bed.claim(HOUR).await.expect("again").lease;
    bed.finish(lease, End::Succeeded(bed.publication(id, 'b')))
        .await
        .expect("its own");
    assert_eq!(
        dump(&bed).await,
        "job: succeeded | 3 | 3 | no lease | null | null | 7\n\
         attempt: 1 | 1 | worker-a | lost | worker_lost | 0\n\
         attempt: 2 | 2 | worker-a | retried | io | 7\n\
         attempt: 3 | 3 | worker-a | succeeded | null | 7\n\
         event: 1 | info | job is queued\n\
         event: 2 | info | job is running\n\
         event: 3 | warning | job is queued\n\
         event: 4 | info | job is running\n\
         event: 5 | warning | job is queued\n\
         event: 6 | info | job is running\n\
         event: 7 | info | job is succeeded\n\
         artifact: gguf\n"
    );
    let refused = bed.rows.cancel_job(id, "late").await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
}
