//! Whose job comes next.

use std::sync::Arc;

use uuid::Uuid;

use super::bed::{Bed, HOUR, ending, failure, node};
use crate::domain::ports::{Room, Store, Stores as _};
use crate::domain::queue::{End, Ending, Node, Queue as _};
use crate::domain::{JobId, Model, ModelId, NewJob, Tenant};
use crate::store::db::Row;
use crate::store::statement::Statement;

/// A tenant with a model of its own.
struct Other {
    rows: Arc<dyn Store>,
    model: ModelId,
}

impl Other {
    async fn new(bed: &Bed, name: &str) -> Self {
        let rows = bed.rows.of(&name.parse::<Tenant>().expect("a name"));
        let model = Model {
            id: ModelId::from_uuid(Uuid::now_v7()),
            ..bed.rows.model(bed.model).await.expect("is there")
        };
        rows.insert_model(&model).await.expect("inserts");
        Self {
            rows,
            model: model.id,
        }
    }

    async fn enqueue(&self, bed: &Bed, priority: i16) -> JobId {
        let job = NewJob {
            model: self.model,
            priority,
            ..bed.new_job()
        };
        self.rows.enqueue(&job, Room::of(10_000)).await.expect("enqueues");
        job.id
    }
}

async fn next(bed: &Bed) -> JobId {
    bed.claim(HOUR).await.expect("there is one").lease.job
}

/// A tenant with a thousand waiting jobs does not keep another one waiting, whoever came first.
pub(super) async fn a_thousand_jobs_do_not_starve_one(bed: Bed) {
    let mut mine = Vec::new();
    for _ in 0..1000 {
        mine.push(bed.enqueue().await);
    }
    for first in &mine[..10] {
        assert_eq!(next(&bed).await, *first, "in order, as long as nobody else asks");
    }
    let (one, two) = (Other::new(&bed, "one").await, Other::new(&bed, "two").await);
    let ones = [one.enqueue(&bed, 0).await, one.enqueue(&bed, 0).await];
    let twos = two.enqueue(&bed, 0).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(next(&bed).await);
    }
    // Theirs at once and then in turn: one of each.
    assert_eq!(order, [ones[0], twos, mine[10], ones[1], mine[11], mine[12]]);
}

/// A tenant that comes back does not get the turns that it did not use.
pub(super) async fn turns_are_not_saved_up(bed: Bed) {
    let other = Other::new(&bed, "other").await;
    let early = other.enqueue(&bed, 0).await;
    let mut mine = Vec::new();
    for _ in 0..30 {
        mine.push(bed.enqueue().await);
    }
    let mut order = Vec::new();
    for _ in 0..21 {
        order.push(next(&bed).await);
    }
    assert!(order[..2].contains(&early) && order[..2].contains(&mine[0]));
    let late = [
        other.enqueue(&bed, 0).await,
        other.enqueue(&bed, 0).await,
        other.enqueue(&bed, 0).await,
    ];
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(next(&bed).await);
    }
    assert_eq!(order, [late[0], mine[20], late[1], mine[21], late[2], mine[22]]);
}

/// Turns count within a priority.
pub(super) async fn priorities_still_win(bed: Bed) {
    let other = Other::new(&bed, "other").await;
    let mine = [bed.enqueue().await, bed.enqueue().await];
    let urgent = [
        other.enqueue(&bed, 7).await,
        other.enqueue(&bed, 7).await,
        other.enqueue(&bed, 7).await,
    ];
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(next(&bed).await);
    }
    assert_eq!(order[..3], urgent);
    assert_eq!(order[3..], mine);
}

/// A job that goes back to the queue keeps its turn.
pub(super) async fn a_released_job_is_next(bed: Bed) {
    let (first, second) = (bed.enqueue().await, bed.enqueue().await);
    let lease = bed.claim(HOUR).await.expect("the first").lease;
    bed.finish(lease, End::Released).await.expect("its own");
    assert_eq!((next(&bed).await, next(&bed).await), (first, second));
}

/// What does not fit beside what runs lets others go first, for a while; then nothing that is behind it goes.
pub(super) async fn a_large_job_is_not_passed_over_for_ever(bed: Bed) {
    let large = NewJob {
        need_memory_bytes: 900,
        ..bed.new_job()
    };
    bed.send(&large).await.expect("enqueues");
    let (small, behind) = (bed.enqueue().await, bed.enqueue().await);
    let busy = |patience| Node {
        memory_bytes: 500,
        patience,
        ..node(HOUR)
    };
    let claim = |node: Node| {
        let bed = bed.clone();
        async move {
            bed.rows
                .claim(&node)
                .await
                .expect("claims")
                .map(|claim| claim.lease.job)
        }
    };
    assert_eq!(claim(busy(HOUR)).await, Some(small));
    assert_eq!(
        claim(busy(std::time::Duration::ZERO)).await,
        None,
        "room is made for it"
    );
    let tiny = Node {
        memory_bytes: 500,
        most_memory_bytes: 500,
        ..busy(std::time::Duration::ZERO)
    };
    assert_eq!(
        claim(tiny).await,
        Some(behind),
        "where it never fits nothing waits for it"
    );
    assert_eq!(claim(node(HOUR)).await, Some(large.id));
}

static MANY: Statement = Statement {
    name: "many",
    sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO job (id, model_id, state, priority, run_after, attempt, max_attempts, fence, need_memory_bytes,
            techniques, stage_index, stages, bytes_done, bytes_total, bytes_per_second, peak_memory_bytes, event_seq,
            metadata, created_at, tenant, turn)
        SELECT 'job_' || i, $1, 'queued', i % 3, 0, 0, 3, 0, 1, '[]', 0, 0, 0, 0, 0, 0, 1, '{}', 0, 't' || i % 100, i / 100 FROM n",
    postgres: "INSERT INTO job (id, model_id, state, priority, run_after, attempt, max_attempts, fence, need_memory_bytes,
            techniques, stage_index, stages, bytes_done, bytes_total, bytes_per_second, peak_memory_bytes, event_seq,
            metadata, created_at, tenant, turn)
        SELECT 'job_' || i, $1, 'queued', i % 3, 0, 0, 3, 0, 1, '[]', 0, 0, 0, 0, 0, 0, 1, '{}', 0, 't' || i % 100, i / 100
        FROM generate_series(1, 20000) AS i",
};
static PLAN: Statement = Statement {
    name: "plan",
    sqlite: concat!("EXPLAIN QUERY PLAN ", include_str!("../sqlite/job_claim.sql")),
    postgres: concat!("EXPLAIN ", include_str!("../postgres/job_claim.sql")),
};
static ANALYZE: Statement = Statement {
    name: "analyze",
    sqlite: "ANALYZE job",
    postgres: "ANALYZE job",
};

/// With twenty thousand jobs of a hundred tenants a claim still walks one index, in order, and sorts nothing; also while
/// the database's statistics are from before those jobs came.
pub(super) async fn a_claim_among_many_walks_an_index(bed: Bed) {
    let mut tx = bed.rows.db.write().await.expect("begins");
    tx.run(&MANY, &[bed.model.to_string().into()])
        .await
        .expect("inserts");
    tx.commit().await.expect("commits");
    walks_the_index(&bed).await;
    let mut tx = bed.rows.db.write().await.expect("begins");
    tx.run(&ANALYZE, &[]).await.expect("analyzes");
    tx.commit().await.expect("commits");
    walks_the_index(&bed).await;
}

async fn walks_the_index(bed: &Bed) {
    let args = [
        "worker".into(),
        1000_i64.into(),
        1000_i64.into(),
        "[]".into(),
        0_i64.into(),
        u64::MAX.into(),
        1000_i64.into(),
        1000_i64.into(),
    ];
    let mut session = bed.rows.db.read().await.expect("connects");
    let rows = session.all(&PLAN, &args).await.expect("explains");
    let lines: Vec<String> = rows.iter().flat_map(Row::cells).map(|(_, cell)| cell).collect();
    let plan = lines.join("\n");
    assert!(plan.contains("job_ready"), "{plan}");
    for slow in ["TEMP B-TREE", "Sort", "Seq Scan on job"] {
        assert!(!plan.contains(slow), "{slow}: {plan}");
    }
}

pub(super) async fn after_a_lack_of_memory_a_job_has_a_worker_to_itself(bed: Bed) {
    let job = bed.enqueue().await;
    let lease = bed.claim(HOUR).await.expect("a job").lease;
    let ending = Ending {
        next_memory_bytes: Some(1000),
        ..ending(End::Retry(failure("out_of_memory"), std::time::Duration::ZERO))
    };
    bed.rows.finish(lease, &ending).await.expect("retried");
    let busy = Node {
        memory_bytes: 999,
        ..node(HOUR)
    };
    assert!(bed.rows.claim(&busy).await.expect("claims").is_none());
    let again = bed
        .rows
        .claim(&node(HOUR))
        .await
        .expect("claims")
        .expect("its turn");
    assert_eq!((again.lease.job, again.need_memory_bytes), (job, 1000));
    let told = bed.events(job).await;
    let told = told.iter().find(|event| event.data["memory_bytes"] == 1000);
    assert_eq!(
        told.expect("told").message,
        "the next attempt has a worker's memory to itself"
    );
}
