//! A panic at every point of an attempt: whatever happens, one result is published and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::house::House;
use super::script::Act;
use crate::domain::JobState;
use crate::domain::ports::{Blobs as _, Store as _};
use crate::domain::queue::{Queue as _, Silent};
use crate::worker::probe::{Point, Probe};

/// Panics at one point, once.
#[derive(Debug)]
struct Once {
    point: Point,
    done: AtomicBool,
    news: Notify,
}

impl Probe for Once {
    fn reach(&self, point: Point) {
        if point == self.point && !self.done.swap(true, Ordering::SeqCst) {
            self.news.notify_one();
            panic!("on purpose at {point:?}");
        }
    }
}

async fn survives(point: Point) {
    let probe = Arc::new(Once {
        point,
        done: AtomicBool::new(false),
        news: Notify::new(),
    });
    let house = House::with_probe(1, probe.clone()).await;
    let id = house.enqueue(&[Act::Make]).await;
    probe.news.notified().await;
    // A panic outside the engine leaves the job to the reaper; the lease of an hour is not waited for.
    house.rows.reap(Silent::Everyone).await.expect("reaps");
    house.wake.notify_waiters();
    let job = house.over(id).await;
    assert_eq!(job.state, JobState::Succeeded, "{point:?}: {job:?}");
    assert_eq!(job.artifacts.len(), 1, "{point:?}");
    let artifact = house.rows.artifact(job.artifacts[0]).await.expect("published");
    for file in &artifact.files {
        house.blobs.path(&file.digest).await.expect("every file is there");
    }
    let messages = house.messages(id).await;
    let succeeded = messages.iter().filter(|message| *message == "job is succeeded");
    assert_eq!(succeeded.count(), 1, "{point:?}: {messages:?}");
    house.close().await;
}

macro_rules! at {
    ($($name:ident $point:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives(Point::$point).await;
        }
    )*};
}

at! {
    a_panic_when_claimed Claimed
    a_panic_in_a_stage Stage
    a_panic_when_made Made
    a_panic_while_publishing Publish
    a_panic_before_the_transaction Stored
    a_panic_after_the_transaction Finished
}
