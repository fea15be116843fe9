//! The database against the pure machine: random sequences, the same answers.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::bed::{Bed, HOUR, beat, failure};
use crate::domain::JobId;
use crate::domain::lease::{Slot, Verdict};
use crate::domain::ports::Store as _;
use crate::domain::queue::{End, Lease, Queue as _, Silent};

const SEQUENCES: u32 = 40;
const HOUR_MS: i64 = 3_600_000;

/// One call. Time stands still for the machine: a lease or a wait is over at once or lasts an hour.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim { long: bool },
    Beat { stale: bool, long: bool },
    Finish { stale: bool, verdict: Verdict },
    Reap,
    Cancel,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        Just(Verdict::Succeeded),
        Just(Verdict::Failed),
        Just(Verdict::Retry(0)),
        Just(Verdict::Retry(HOUR_MS as u64)),
        Just(Verdict::Cancelled),
        Just(Verdict::Released),
    ];
    let stale = prop::bool::weighted(0.2);
    prop_oneof![
        4 => any::<bool>().prop_map(|long| Step::Claim { long }),
        2 => (stale, any::<bool>()).prop_map(|(stale, long)| Step::Beat { stale, long }),
        3 => (stale, verdict).prop_map(|(stale, verdict)| Step::Finish { stale, verdict }),
        2 => Just(Step::Reap),
        1 => Just(Step::Cancel),
    ]
}

fn ttl(long: bool) -> (Duration, i64) {
    if long {
        (HOUR, HOUR_MS)
    } else {
        (Duration::ZERO, 0)
    }
}

fn end(bed: &Bed, job: JobId, verdict: Verdict) -> End {
    match verdict {
        Verdict::Succeeded => End::Succeeded(bed.publication(job, 'b')),
        Verdict::Failed => End::Failed(failure("x")),
        Verdict::Retry(wait) => End::Retry(failure("x"), Duration::from_millis(wait)),
        Verdict::Cancelled => End::Cancelled,
        Verdict::Released => End::Released,
    }
}

/// Runs a step on both; the machine's answer is whether it allowed it.
async fn both(bed: &Bed, slot: &mut Slot, job: JobId, step: Step) {
    let fence = |stale: bool, slot: &Slot| slot.fence.saturating_sub(u64::from(stale));
    let lease = |fence| Lease { job, fence };
    let (allowed, done) = match step {
        Step::Claim { long } => {
            let (real, pure) = ttl(long);
            (slot.claim(0, pure), bed.claim(real).await.is_some())
        }
        Step::Beat { stale, long } => {
            let (real, pure) = ttl(long);
            let fence = fence(stale, slot);
            let done = bed.rows.beat(lease(fence), &beat(real)).await.is_ok();
            (slot.beat(fence, 0, pure), done)
        }
        Step::Finish { stale, verdict } => {
            let fence = fence(stale, slot);
            // The store answers a repeated success; the machine has no such courtesy.
            if slot.state == crate::domain::JobState::Succeeded && verdict == Verdict::Succeeded {
                return;
            }
            let done = bed.finish(lease(fence), end(bed, job, verdict)).await.is_ok();
            (slot.finish(fence, verdict, 0), done)
        }
        Step::Reap => {
            let reaped = bed.rows.reap(Silent::Expired).await.expect("reaps");
            (slot.reap(0, 0), !reaped.is_empty())
        }
        Step::Cancel => {
            let done = bed.rows.cancel_job(job, "a test").await.is_ok();
            (slot.cancel(), done)
        }
    };
    assert_eq!(done, allowed.is_some(), "{step:?} on {slot:?}");
    *slot = allowed.unwrap_or(*slot);
    let row = bed.job(job).await;
    assert_eq!(
        (row.state, row.attempt, row.cancel_requested_at.is_some()),
        (slot.state, slot.attempt, slot.cancel_requested),
        "after {step:?}"
    );
}

pub(super) async fn any_sequence_agrees_with_the_pure_machine(bed: Bed) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let sequences = prop::collection::vec(step(), 1..25);
    for _ in 0..SEQUENCES {
        let steps = sequences.new_tree(&mut runner).expect("generates").current();
        let job = bed.enqueue().await;
        let mut slot = Slot::new(3, 0);
        for step in &steps {
            both(&bed, &mut slot, job, *step).await;
        }
        let seqs: Vec<u64> = bed.events(job).await.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{steps:?}");
        // Out of the way of the next one.
        if bed
            .rows
            .cancel_job(job, "next")
            .await
            .is_ok_and(|job| !job.state.is_terminal())
        {
            let lease = Lease {
                job,
                fence: slot.fence,
            };
            bed.finish(lease, End::Cancelled).await.expect("its own");
        }
    }
}
