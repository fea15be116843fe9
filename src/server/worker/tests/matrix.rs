//! Whatever goes wrong at whatever point of an attempt: one result is published, nothing is lost and nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelpress_engine::{Class, Error};
use tokio::sync::Notify;

use super::house::{House, OUTPUT};
use super::script::Act;
use crate::domain::JobState;
use crate::domain::ports::{Blobs as _, Store as _, Stores as _, SystemClock};
use crate::domain::queue::{Queue as _, Silent};
use crate::store::conformance::{Schema, postgres_url};
use crate::store::{Rows, postgres};
use crate::worker::probe::{Mishap, Point, Probe};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Panic,
    Error,
}

/// Makes trouble at one point, once.
#[derive(Debug)]
struct Once {
    point: Point,
    trouble: Trouble,
    done: AtomicBool,
    news: Notify,
}

impl Probe for Once {
    fn reach(&self, point: Point) -> Result<(), Mishap> {
        if point != self.point || self.done.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.news.notify_one();
        match self.trouble {
            Trouble::Panic => panic!("on purpose at {point:?}"),
            Trouble::Error => Err(Mishap),
        }
    }
}

/// What an attempt does; errors inside a stage are the engine's own.
fn acts(point: Point, trouble: Trouble) -> Vec<Act> {
    let full = Error::new(Class::Resources, "disk_full", "no space");
    match (point, trouble) {
        (Point::Stage, Trouble::Error) => vec![Act::Fail(full), Act::KeepAndMake],
        _ => vec![Act::KeepAndMake, Act::KeepAndMake],
    }
}

async fn survives(rows: Option<Rows>, point: Point, trouble: Trouble) {
    let probe = Arc::new(Once {
        point,
        trouble,
        done: AtomicBool::new(false),
        news: Notify::new(),
    });
    let what = format!("{trouble:?} at {point:?}");
    let house = House::watched(rows, probe.clone()).await;
    let id = house.enqueue(&acts(point, trouble)).await;
    probe.news.notified().await;
    if trouble == Trouble::Panic {
        // A panic outside the engine leaves the job to the reaper; the lease of an hour is not waited for.
        house.rows.reap(Silent::Everyone).await.expect("reaps");
        house.wake.notify_waiters();
    }
    let job = house.ended(id).await;
    assert_eq!(job.state, JobState::Succeeded, "{what}: {job:?}");
    assert_eq!(job.artifacts.len(), 1, "{what}: one published artifact");
    let artifact = house.rows.artifact(job.artifacts[0]).await.expect("published");
    for file in &artifact.files {
        let path = house.blobs.path(&file.digest).await.expect("every file is there");
        if file.name == "model.gguf" {
            assert_eq!(
                std::fs::read(path).expect("reads"),
                OUTPUT,
                "{what}: the same bytes"
            );
        }
    }
    let messages = house.messages(id).await;
    let succeeded = messages.iter().filter(|message| *message == "job is succeeded");
    assert_eq!(succeeded.count(), 1, "{what}: one terminal state: {messages:?}");
    // A checkpoint goes with its job: nothing refers to its bytes any more, and the sweep takes them.
    let kept = vec![crate::domain::model::hex(
        &<sha2::Sha256 as sha2::Digest>::digest(b"a tensor"),
    )];
    let orphans = house.rows.unreferenced(&kept).await.expect("answers");
    assert_eq!(orphans, kept, "{what}: nothing refers to a checkpoint");
    house.close().await;
}

async fn on_both(point: Point, trouble: Trouble) {
    survives(None, point, trouble).await;
    let Some(url) = postgres_url(&format!("{trouble:?} at {point:?}")) else {
        return;
    };
    let schema = Schema::create(&url).await;
    let rows = postgres::open(&schema.url, Arc::new(SystemClock)).await;
    survives(Some(rows.expect("opens")), point, trouble).await;
    schema.drop().await;
}

macro_rules! at {
    ($($panic:ident $error:ident $point:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $panic() {
            on_both(Point::$point, Trouble::Panic).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $error() {
            on_both(Point::$point, Trouble::Error).await;
        }
    )*};
}

at! {
    a_panic_when_claimed an_error_when_claimed Claimed
    a_panic_when_restored an_error_when_restored Restored
    a_panic_in_a_stage an_error_in_a_stage Stage
    a_panic_at_a_checkpoint an_error_at_a_checkpoint Checkpoint
    a_panic_when_made an_error_when_made Made
    a_panic_while_publishing an_error_while_publishing Publish
    a_panic_before_the_transaction an_error_before_the_transaction Stored
    a_panic_after_the_transaction an_error_after_the_transaction Finished
}
