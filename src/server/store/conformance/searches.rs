//! Searches: recorded with all of their jobs or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::bed::{Bed, HOUR, failure};
use crate::domain::job::Failure;
use crate::domain::ports::{Room, Sought, Store as _, StoreError, Stores as _};
use crate::domain::queue::{End, Queue as _, Retention};
use crate::domain::search::{NewSearch, Point};
use crate::domain::{Clock as _, JobState, NewJob, Search, SearchId};

const ROOM: Room = Room {
    all: 100,
    tenant: None,
};

/// Two recipes that are jobs, and one in between that was refused.
fn new_search(bed: &Bed) -> NewSearch {
    let point = |name: &str, refusal: Option<Failure>| Point {
        name: name.into(),
        recipe: json!({"preset": name, "z": 1, "a": 2}),
        job: None,
        refusal,
    };
    let refused = Failure {
        code: "group_size_does_not_divide".into(),
        message: "576 is no multiple of 128".into(),
    };
    NewSearch {
        search: Search {
            id: SearchId::from_uuid(Uuid::now_v7()),
            model: bed.model,
            asked: json!({"recipes": ["a", "b", "c"]}),
            points: vec![point("a", None), point("b", Some(refused)), point("c", None)],
            metadata: BTreeMap::from([("team".into(), "blue".into())]),
            created_at: bed.clock.now(),
            cancelled_at: None,
        },
        jobs: vec![(0, bed.new_job()), (2, bed.new_job())],
        idempotency: None,
    }
}

fn made(sought: Sought) -> Search {
    match sought {
        Sought::New(search) | Sought::Replayed(search) => search,
    }
}

pub(super) async fn a_search_is_recorded_with_its_jobs(bed: Bed) {
    let new = new_search(&bed);
    let search = made(bed.rows.add_search(&new, ROOM).await.expect("adds"));
    let jobs: Vec<_> = search.points.iter().map(|point| point.job).collect();
    assert_eq!(jobs, [Some(new.jobs[0].1.id), None, Some(new.jobs[1].1.id)]);
    for job in jobs.into_iter().flatten() {
        assert_eq!(bed.state(job).await, JobState::Queued);
    }
    let read = bed.rows.search(search.id).await.expect("known");
    assert_eq!(format!("{read:?}"), format!("{search:?}"));
    let second = made(bed.rows.add_search(&new_search(&bed), ROOM).await.expect("adds"));
    let listed = bed.rows.list_searches(None, 10).await.expect("lists");
    assert_eq!(
        listed.iter().map(|s| s.id).collect::<Vec<_>>(),
        [second.id, search.id]
    );
    let next = bed.rows.list_searches(Some(second.id), 10).await.expect("lists");
    assert_eq!(next.iter().map(|s| s.id).collect::<Vec<_>>(), [search.id]);

    let ended = bed.rows.cancel_search(search.id).await.expect("known");
    assert!(ended.cancelled_at.is_some());
    let again = bed.rows.cancel_search(search.id).await.expect("known");
    assert_eq!(again.cancelled_at, ended.cancelled_at);

    let other = bed.rows.of(&"other".parse().expect("a name"));
    assert!(matches!(other.search(search.id).await, Err(StoreError::NotFound)));
    assert!(other.list_searches(None, 10).await.expect("lists").is_empty());
    assert!(matches!(
        other.cancel_search(search.id).await,
        Err(StoreError::NotFound)
    ));
}

pub(super) async fn a_search_without_room_leaves_nothing(bed: Bed) {
    let room = Room { all: 1, tenant: None };
    let new = new_search(&bed);
    let full = bed.rows.add_search(&new, room).await;
    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    assert!(bed.rows.search(new.search.id).await.is_err());
    for (_, job) in &new.jobs {
        assert!(bed.rows.job(job.id).await.is_err(), "nothing is left of it");
    }
}

pub(super) async fn equal_work_of_two_searches_is_one_job(bed: Bed) {
    let with_key = |key: &str| {
        let mut new = new_search(&bed);
        for (at, job) in &mut new.jobs {
            *job = NewJob {
                dedupe_key: Some(format!("{key}-{at}")),
                ..job.clone()
            };
        }
        new
    };
    let first = made(bed.rows.add_search(&with_key("same"), ROOM).await.expect("adds"));
    let second = made(bed.rows.add_search(&with_key("same"), ROOM).await.expect("adds"));
    let jobs = |search: &Search| search.points.iter().map(|point| point.job).collect::<Vec<_>>();
    assert_eq!(jobs(&first), jobs(&second));
    let third = made(bed.rows.add_search(&with_key("other"), ROOM).await.expect("adds"));
    assert_ne!(jobs(&first), jobs(&third));
    // What succeeded is taken as it is; what failed is tried again.
    let claims = [
        bed.claim(HOUR).await.expect("waits"),
        bed.claim(HOUR).await.expect("waits"),
    ];
    let done = bed.publication(claims[0].lease.job, 'b');
    bed.finish(claims[0].lease, End::Succeeded(done))
        .await
        .expect("its own");
    let failed = End::Failed(failure("numeric"));
    bed.finish(claims[1].lease, failed).await.expect("its own");
    let fourth = made(bed.rows.add_search(&with_key("same"), ROOM).await.expect("adds"));
    assert_eq!(fourth.points[0].job, first.points[0].job);
    assert_ne!(fourth.points[2].job, first.points[2].job);
}

pub(super) async fn one_key_makes_one_search(bed: Bed) {
    let with_key = |print: u8| NewSearch {
        idempotency: Some(("once".into(), [print; 32])),
        ..new_search(&bed)
    };
    let first = bed.rows.add_search(&with_key(1), ROOM).await.expect("adds");
    assert!(matches!(first, Sought::New(_)));
    let (first, repeat) = (made(first), with_key(1));
    let again = bed.rows.add_search(&repeat, ROOM).await.expect("answers");
    assert!(matches!(again, Sought::Replayed(_)));
    assert_eq!(made(again).id, first.id);
    for (_, job) in &repeat.jobs {
        assert!(
            bed.rows.job(job.id).await.is_err(),
            "no job of the second request is left"
        );
    }
    let other = bed.rows.add_search(&with_key(2), ROOM).await;
    assert!(matches!(other, Err(StoreError::KeyMismatch)), "{other:?}");
}

pub(super) async fn old_searches_go(bed: Bed) {
    let search = made(bed.rows.add_search(&new_search(&bed), ROOM).await.expect("adds"));
    let kept = |hours: u64| Retention {
        succeeded: Some(Duration::from_hours(1)),
        unsuccessful: Some(Duration::from_hours(hours)),
        audit: None,
        deliveries: None,
        drafts: None,
    };
    bed.clock.advance(Duration::from_hours(5));
    assert_eq!(bed.rows.prune(kept(6)).await.expect("prunes").searches, 0);
    assert_eq!(bed.rows.prune(kept(4)).await.expect("prunes").searches, 1);
    assert!(bed.rows.search(search.id).await.is_err());
}
