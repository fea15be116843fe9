//! Messages to webhooks: with the change they tell of or not at all, in one sender's hands, tried and given up.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::bed::{Bed, HOUR, failure};
use super::dump::run;
use crate::domain::ports::{Room, Store as _, StoreError, Stores as _};
use crate::domain::queue::{End, NewEvent, Queue as _, Retention, Silent};
use crate::domain::webhook::{Change, DeliveryState, Due, Next, Secret, Topic, Try};
use crate::domain::{Clock as _, Delivery, Hooks as _, JobState, Outbox as _, Tenant, Webhook, WebhookId};

const MANY: u32 = 100;
const TTL: Duration = HOUR;

fn other() -> Tenant {
    "other".parse().expect("a name")
}

fn webhook(bed: &Bed, topics: &[Topic]) -> Webhook {
    Webhook {
        id: WebhookId::from_uuid(Uuid::now_v7()),
        url: "https://example.com/hook".into(),
        description: Some("pipeline".into()),
        topics: topics.to_vec(),
        secret: Secret::of([1; 32]),
        old_secret: None,
        disabled: None,
        last_success_at: None,
        created_at: bed.clock.now(),
        updated_at: bed.clock.now(),
    }
}

async fn hooked(bed: &Bed, topics: &[Topic]) -> WebhookId {
    let webhook = webhook(bed, topics);
    bed.rows.insert_webhook(&webhook, MANY).await.expect("inserts");
    webhook.id
}

/// What was written to a webhook, oldest first.
async fn written(bed: &Bed, id: WebhookId) -> Vec<Delivery> {
    let mut list = bed.rows.list_deliveries(id, None, MANY).await.expect("lists");
    list.reverse();
    list
}

async fn topics(bed: &Bed, id: WebhookId) -> Vec<&'static str> {
    written(bed, id)
        .await
        .iter()
        .map(|message| message.topic.as_str())
        .collect()
}

async fn due(bed: &Bed) -> Due {
    bed.rows
        .claim_delivery(TTL)
        .await
        .expect("claims")
        .expect("one is due")
}

async fn nothing_due(bed: &Bed) {
    let found = bed.rows.claim_delivery(TTL).await.expect("claims");
    assert!(found.is_none(), "{found:?}");
}

fn tried(bed: &Bed, due: &Due, status: u16) -> Try {
    Try {
        number: due.number,
        at: bed.clock.now(),
        duration: Duration::from_millis(12),
        status: Some(status),
        response: Some("hello".into()),
        error: None,
    }
}

async fn settle(bed: &Bed, due: &Due, next: Next) -> bool {
    let done = tried(bed, due, 500);
    bed.rows
        .settle_delivery(due.ticket, &done, next)
        .await
        .expect("settles")
}

/// Every change of a job's state is told of, to each webhook of its tenant that wants to hear of it, and to nobody else.
pub(super) async fn every_change_is_told_once(bed: Bed) {
    let all = hooked(&bed, &[]).await;
    let ends = [Topic::Job(JobState::Succeeded), Topic::Job(JobState::Failed)];
    let some = hooked(&bed, &ends).await;
    let foreign = webhook(&bed, &[]);
    let theirs = bed.rows.hooks_of(&other());
    theirs.insert_webhook(&foreign, MANY).await.expect("inserts");

    let lease = bed.claimed(HOUR).await;
    let message = NewEvent {
        kind: "message",
        level: "info",
        message: "is no change".into(),
        data: Value::Null,
    };
    bed.rows.record(lease, &[message]).await.expect("records");
    bed.finish(lease, End::Retry(failure("io"), Duration::ZERO))
        .await
        .expect("its own");
    let lease = bed.claim(HOUR).await.expect("again").lease;
    bed.finish(lease, End::Succeeded(bed.publication(lease.job, 'b')))
        .await
        .expect("its own");
    let expected = [
        "job.queued",
        "job.running",
        "job.queued",
        "job.running",
        "job.succeeded",
    ];
    assert_eq!(topics(&bed, all).await, expected);
    assert_eq!(topics(&bed, some).await, ["job.succeeded"]);
    let foreign = theirs
        .list_deliveries(foreign.id, None, MANY)
        .await
        .expect("lists");
    assert!(foreign.is_empty(), "{foreign:?}");

    let last = &written(&bed, some).await[0];
    let body: Value = serde_json::from_str(&last.body).expect("JSON");
    let id = lease.job.to_string();
    assert_eq!(body["type"], "job.succeeded");
    assert_eq!(
        (&body["data"]["id"], &body["data"]["status"]),
        (&id.into(), &"succeeded".into())
    );
    assert_eq!(body["data"]["model"], bed.model.to_string());
    assert_eq!((last.state, last.tries.len()), (DeliveryState::Pending, 0));
}

/// Queued and cancelled, reaped and failed are told of too; what comes to nothing is not.
pub(super) async fn what_is_not_committed_is_not_told(bed: Bed) {
    let hook = hooked(&bed, &[]).await;
    let refused = bed.rows.enqueue(&bed.new_job(), Room::of(0)).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert!(topics(&bed, hook).await.is_empty());

    let id = bed.enqueue().await;
    bed.rows.cancel_job(id, "changed my mind").await.expect("cancels");
    let again = bed.rows.cancel_job(id, "twice").await;
    assert!(again.is_ok(), "{again:?}");
    assert_eq!(topics(&bed, hook).await, ["job.queued", "job.cancelled"]);

    let lost = bed.claimed(Duration::ZERO).await;
    bed.rows.reap(Silent::Expired).await.expect("reaps");
    let late = bed.finish(lost, End::Failed(failure("late"))).await;
    assert!(late.is_err(), "{late:?}");
    let told = topics(&bed, hook).await;
    assert_eq!(told[2..], ["job.queued", "job.running", "job.queued"]);

    // Where the message cannot be written, neither is the change.
    run(&bed, "ALTER TABLE webhook_try RENAME TO webhook_try_away")
        .await
        .expect("alters");
    run(
        &bed,
        "ALTER TABLE webhook_delivery RENAME TO webhook_delivery_away",
    )
    .await
    .expect("alters");
    let before = bed.events(id).await.len();
    let job = bed.new_job();
    assert!(bed.send(&job).await.is_err());
    assert!(matches!(bed.rows.job(job.id).await, Err(StoreError::NotFound)));
    assert!(bed.rows.claim(&super::bed::node(HOUR)).await.is_err());
    assert_eq!(bed.state(lost.job).await, JobState::Queued);
    assert_eq!(bed.events(id).await.len(), before);
}

pub(super) async fn a_message_is_in_one_senders_hands(bed: Bed) {
    const HOOKS: usize = 10;
    for _ in 0..HOOKS {
        hooked(&bed, &[]).await;
    }
    for _ in 0..6 {
        bed.enqueue().await;
    }
    let senders = (0..16).map(|_| {
        let bed = bed.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(due) = bed.rows.claim_delivery(TTL).await.expect("claims") {
                assert!(settle(&bed, &due, Next::Done).await);
                mine.push(due.ticket.delivery);
            }
            mine
        })
    });
    let mut seen = HashSet::new();
    for sender in futures_util::future::join_all(senders).await {
        for delivery in sender.expect("no panic") {
            assert!(seen.insert(delivery), "{delivery} was claimed twice");
        }
    }
    // Some may have been left while four of their webhook were on their way.
    while let Some(due) = bed.rows.claim_delivery(TTL).await.expect("claims") {
        assert!(seen.insert(due.ticket.delivery));
        assert!(settle(&bed, &due, Next::Done).await);
    }
    assert_eq!(seen.len(), HOOKS * 6);
}

/// A webhook that hangs holds four places and no more.
pub(super) async fn one_webhook_does_not_hold_up_the_others(bed: Bed) {
    let slow = hooked(&bed, &[]).await;
    for _ in 0..6 {
        bed.rows.test_webhook(slow).await.expect("writes");
    }
    for _ in 0..4 {
        assert_eq!(due(&bed).await.ticket.webhook, slow);
    }
    let quick = hooked(&bed, &[]).await;
    bed.rows.test_webhook(quick).await.expect("writes");
    assert_eq!(due(&bed).await.ticket.webhook, quick);
    nothing_due(&bed).await;
}

pub(super) async fn a_message_is_tried_and_tried_again(bed: Bed) {
    let hook = hooked(&bed, &[]).await;
    bed.rows.test_webhook(hook).await.expect("writes");
    let first = due(&bed).await;
    assert_eq!((first.step, first.number, first.secrets.len()), (1, 1, 1));
    assert_eq!(first.tenant, Tenant::default());
    nothing_due(&bed).await;
    assert!(settle(&bed, &first, Next::Again(HOUR)).await);
    assert!(!settle(&bed, &first, Next::Done).await, "said once");
    nothing_due(&bed).await;
    let waits = &written(&bed, hook).await[0];
    assert_eq!(waits.state, DeliveryState::Pending);
    assert!(waits.due_at.is_some() && waits.finished_at.is_none());
    assert_eq!(waits.tries[0].status, Some(500));
    assert_eq!(waits.tries[0].response.as_deref(), Some("hello"));

    // A sender that died: its claim runs out, and its ticket with the next one.
    bed.rows
        .replay_delivery(hook, first.ticket.delivery)
        .await
        .expect("replays");
    let dead = bed
        .rows
        .claim_delivery(Duration::ZERO)
        .await
        .expect("claims")
        .expect("one");
    assert_eq!(
        (dead.step, dead.number),
        (1, 2),
        "a replay begins the schedule again"
    );
    let second = due(&bed).await;
    assert_eq!((second.step, second.number), (2, 3));
    assert_eq!(second.ticket.delivery, first.ticket.delivery);
    assert_eq!(second.body, first.body);
    assert!(!settle(&bed, &dead, Next::Done).await);
    assert!(settle(&bed, &second, Next::Done).await);
    let done = &written(&bed, hook).await[0];
    assert_eq!(
        (done.state, done.finished_at),
        (DeliveryState::Succeeded, Some(bed.clock.now()))
    );
    assert_eq!(
        done.tries.iter().map(|one| one.number).collect::<Vec<_>>(),
        [1, 3]
    );
    let hook = bed.rows.webhook(hook).await.expect("is there");
    assert_eq!(hook.last_success_at, Some(bed.clock.now()));
}

/// Given up, a message ends; if nothing got through meanwhile, the webhook is disabled, with all that waits, and the
/// audit log says so.
pub(super) async fn a_webhook_that_never_answers_is_disabled(bed: Bed) {
    let hook = hooked(&bed, &[]).await;
    for _ in 0..3 {
        bed.rows.test_webhook(hook).await.expect("writes");
    }
    bed.clock.advance(HOUR);
    let (first, second) = (due(&bed).await, due(&bed).await);
    assert!(settle(&bed, &first, Next::Done).await);
    assert!(settle(&bed, &second, Next::GiveUp).await);
    let seen = bed.rows.webhook(hook).await.expect("is there");
    assert!(seen.disabled.is_none(), "something got through: {seen:?}");

    bed.clock.advance(HOUR);
    for _ in 0..2 {
        bed.rows.test_webhook(hook).await.expect("writes");
    }
    let old = due(&bed).await;
    assert!(settle(&bed, &old, Next::GiveUp).await);
    let seen = bed.rows.webhook(hook).await.expect("is there");
    assert!(
        seen.disabled.is_none(),
        "it is older than what got through: {seen:?}"
    );
    let new = due(&bed).await;
    assert!(settle(&bed, &new, Next::GiveUp).await);
    let seen = bed.rows.webhook(hook).await.expect("is there");
    let (at, why) = seen.disabled.expect("disabled");
    assert!(
        at == bed.clock.now() && why.contains("nothing got through"),
        "{why}"
    );
    nothing_due(&bed).await;
    let states: Vec<DeliveryState> = written(&bed, hook)
        .await
        .iter()
        .map(|message| message.state)
        .collect();
    assert!(!states.contains(&DeliveryState::Pending), "{states:?}");
    let entry = &bed.rows.list_entries(None, 10).await.expect("lists")[0];
    assert_eq!(entry.object, Some(hook.to_string()));
    assert!(
        entry.action.starts_with("webhook.disabled: ") && entry.key.is_none(),
        "{entry:?}"
    );

    bed.enqueue().await;
    assert_eq!(written(&bed, hook).await.len(), 5, "nothing is written for it");
    let refused = bed.rows.replay_delivery(hook, new.ticket.delivery).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert!(matches!(
        bed.rows.test_webhook(hook).await,
        Err(StoreError::Conflict(_))
    ));
    let on = Change {
        enabled: Some(true),
        ..Change::default()
    };
    let seen = bed.rows.change_webhook(hook, &on).await.expect("changes");
    assert_eq!(seen.disabled, None);
    bed.rows
        .replay_delivery(hook, new.ticket.delivery)
        .await
        .expect("replays");
    assert_eq!(due(&bed).await.ticket.delivery, new.ticket.delivery);
}

pub(super) async fn a_webhook_that_is_gone_is_disabled_at_once(bed: Bed) {
    let hook = hooked(&bed, &[]).await;
    bed.rows.test_webhook(hook).await.expect("writes");
    bed.rows.test_webhook(hook).await.expect("writes");
    let (one, two) = (due(&bed).await, due(&bed).await);
    assert!(settle(&bed, &one, Next::Gone).await);
    let seen = bed.rows.webhook(hook).await.expect("is there");
    assert!(seen.disabled.is_some_and(|(_, why)| why.contains("410")));
    assert!(!settle(&bed, &two, Next::Done).await, "it ended with its webhook");
    assert_eq!(bed.rows.list_entries(None, 10).await.expect("lists").len(), 1);
}

pub(super) async fn a_webhook_changes_and_goes(bed: Bed) {
    let hook = webhook(&bed, &[Topic::Test]);
    bed.rows.insert_webhook(&hook, 1).await.expect("inserts");
    assert_eq!(bed.rows.webhook(hook.id).await.expect("is there"), hook);
    let full = bed.rows.insert_webhook(&webhook(&bed, &[]), 1).await;
    assert!(matches!(full, Err(StoreError::Conflict(_))), "{full:?}");

    bed.clock.advance(HOUR);
    let change = Change {
        url: Some("https://example.com/other".into()),
        description: Some(None),
        topics: Some(vec![Topic::Job(JobState::Failed), Topic::Test]),
        enabled: None,
    };
    let changed = bed.rows.change_webhook(hook.id, &change).await.expect("changes");
    assert_eq!(changed.url, "https://example.com/other");
    assert_eq!((changed.description, changed.topics.len()), (None, 2));
    assert_eq!(
        (changed.created_at, changed.updated_at),
        (hook.created_at, bed.clock.now())
    );
    let same = bed
        .rows
        .change_webhook(hook.id, &Change::default())
        .await
        .expect("changes");
    assert_eq!(same.url, "https://example.com/other");

    let new = Secret::of([2; 32]);
    let until = bed.clock.now() + HOUR;
    let rotated = bed
        .rows
        .rotate_webhook(hook.id, &new, until)
        .await
        .expect("rotates");
    assert_eq!(rotated.secret, new);
    assert_eq!(rotated.old_secret, Some((hook.secret.clone(), until)));
    bed.rows.test_webhook(hook.id).await.expect("writes");
    let both = due(&bed).await;
    assert_eq!(both.secrets, [new.clone(), hook.secret.clone()]);
    bed.clock.advance(HOUR);
    bed.rows
        .replay_delivery(hook.id, both.ticket.delivery)
        .await
        .expect("replays");
    let one = due(&bed).await;
    assert_eq!(one.secrets, [new], "the overlap is over");

    let off = Change {
        enabled: Some(false),
        ..Change::default()
    };
    let seen = bed.rows.change_webhook(hook.id, &off).await.expect("changes");
    assert!(seen.disabled.is_some_and(|(_, why)| why == "turned off"));
    assert!(!settle(&bed, &one, Next::Done).await);
    bed.rows.delete_webhook(hook.id).await.expect("deletes");
    assert!(matches!(
        bed.rows.webhook(hook.id).await,
        Err(StoreError::NotFound)
    ));
    assert!(matches!(
        bed.rows.delete_webhook(hook.id).await,
        Err(StoreError::NotFound)
    ));
    assert!(!settle(&bed, &one, Next::Done).await);
}

pub(super) async fn a_webhook_is_its_tenants_own(bed: Bed) {
    let mine = hooked(&bed, &[]).await;
    let message = bed.rows.test_webhook(mine).await.expect("writes").id;
    let theirs = bed.rows.hooks_of(&other());
    macro_rules! not_found {
        ($($call:expr),*) => {$(
            let found = $call.await;
            assert!(matches!(found, Err(StoreError::NotFound)), "{found:?}");
        )*};
    }
    not_found!(
        theirs.webhook(mine),
        theirs.change_webhook(mine, &Change::default()),
        theirs.rotate_webhook(mine, &Secret::of([9; 32]), bed.clock.now()),
        theirs.delete_webhook(mine),
        theirs.test_webhook(mine),
        theirs.list_deliveries(mine, None, 10),
        theirs.replay_delivery(mine, message)
    );
    let own = webhook(&bed, &[]);
    theirs
        .insert_webhook(&own, 1)
        .await
        .expect("another's do not count");
    not_found!(theirs.replay_delivery(own.id, message));
    let listed = theirs.list_webhooks(None, 10).await.expect("lists");
    assert_eq!(listed.iter().map(|hook| hook.id).collect::<Vec<_>>(), [own.id]);
    assert_eq!(
        bed.rows
            .list_webhooks(Some(own.id), 10)
            .await
            .expect("lists")
            .len(),
        1
    );
    assert_eq!(written(&bed, mine).await.len(), 1);
}

pub(super) async fn old_messages_go_and_waiting_ones_stay(bed: Bed) {
    let hook = hooked(&bed, &[]).await;
    for _ in 0..2 {
        bed.rows.test_webhook(hook).await.expect("writes");
    }
    let done = due(&bed).await;
    assert!(settle(&bed, &done, Next::Done).await);
    bed.clock.advance(HOUR);
    let keep = |age| Retention {
        deliveries: age,
        ..Retention::default()
    };
    for (age, left) in [(None, 2), (Some(2 * HOUR), 2), (Some(HOUR / 2), 1)] {
        bed.rows.prune(keep(age)).await.expect("prunes");
        assert_eq!(written(&bed, hook).await.len(), left, "{age:?}");
    }
}

/// A message is small whatever a job's error says.
pub(super) async fn a_message_is_small(bed: Bed) {
    let hook = hooked(&bed, &[Topic::Job(JobState::Failed)]).await;
    let lease = bed.claimed(HOUR).await;
    let mut long = failure("internal");
    long.message = "ü".repeat(50_000);
    bed.finish(lease, End::Failed(long)).await.expect("its own");
    let message = &written(&bed, hook).await[0];
    assert!(message.body.len() < 20_000, "{} bytes", message.body.len());
    let body: Value = serde_json::from_str(&message.body).expect("JSON");
    assert_eq!(body["data"]["error"]["code"], "internal");
}
