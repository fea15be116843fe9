//! Several processes on one PostgreSQL: what one does, the others hear of.

use std::sync::Arc;

use super::house::House;
use super::script::Act;
use crate::domain::JobState;
use crate::domain::ports::{Store as _, SystemClock};
use crate::store::conformance::{Schema, postgres_url};
use crate::store::{Rows, postgres};

async fn open(schema: &Schema) -> Rows {
    postgres::open(&schema.url, Arc::new(SystemClock))
        .await
        .expect("opens")
}

/// The worker looks once an hour by itself, and beats every twenty minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_hears_of_jobs_and_cancels_of_other_processes() {
    let Some(url) = postgres_url("an_idle_worker_hears_of_jobs_and_cancels_of_other_processes") else {
        return;
    };
    let schema = Schema::create(&url).await;
    let house = House::beside_others(open(&schema).await).await;
    let other = open(&schema).await;
    for _ in 0..3 {
        let job = house.new_job(&[Act::Make], Vec::new());
        house.send(&other, &job).await;
        assert_eq!(house.ended(job.id).await.state, JobState::Succeeded);
    }

    let long = house.new_job(&[Act::UntilStopped], Vec::new());
    house.send(&other, &long).await;
    house.script.begun(long.id).await;
    other.cancel_job(long.id, "a test").await.expect("cancels");
    assert_eq!(house.ended(long.id).await.state, JobState::Cancelled);

    // Every connection that listens breaks, and what is said meanwhile is found even so.
    let listening = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    schema.run(listening).await;
    let job = house.new_job(&[Act::Make], Vec::new());
    house.send(&other, &job).await;
    assert_eq!(house.ended(job.id).await.state, JobState::Succeeded);
    house.close().await;
    drop(other);
    schema.drop().await;
}
