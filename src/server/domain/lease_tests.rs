//! Exhaustive search over the lease machine: two workers, one job, a user, a clock that jumps.

use std::collections::HashSet;

use super::*;

const TTL: i64 = 2;

/// One worker's view: the fence it believes in, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    slot: Slot,
    held: [Option<u64>; 2],
    now: i64,
    /// Publications so far, and the fence of the last one.
    published: u8,
    terminal_writes: u8,
}

/// Every step that can happen in a world. Workers may be slow: they keep a fence after losing it.
fn steps(world: World) -> Vec<World> {
    let mut next = Vec::new();
    for worker in 0..2 {
        match world.held[worker] {
            None => {
                if let Some(slot) = world.slot.claim(world.now, TTL) {
                    assert!(
                        slot.attempt <= slot.max_attempts,
                        "claimed past the cap: {world:?}"
                    );
                    let mut after = World { slot, ..world };
                    after.held[worker] = Some(slot.fence);
                    next.push(after);
                }
            }
            Some(fence) => next.extend(working(world, worker, fence)),
        }
    }
    if let Some(slot) = world.slot.reap(world.now, 1) {
        next.push(write(world, slot));
    }
    if let Some(slot) = world.slot.cancel() {
        next.push(write(world, slot));
    }
    for jump in [1, TTL] {
        if world.now + jump <= 8 {
            next.push(World {
                now: world.now + jump,
                ..world
            });
        }
    }
    next
}

fn working(world: World, worker: usize, fence: u64) -> Vec<World> {
    let mut next = Vec::new();
    // It dies, or notices that it lost: either way it forgets its fence.
    let mut gone = world;
    gone.held[worker] = None;
    next.push(gone);
    if let Some(slot) = world.slot.beat(fence, world.now, TTL) {
        next.push(World { slot, ..world });
    }
    let verdicts = [
        Verdict::Succeeded,
        Verdict::Failed,
        Verdict::Retry(1),
        Verdict::Cancelled,
        Verdict::Released,
    ];
    for verdict in verdicts {
        let mut after = match world.slot.finish(fence, verdict, world.now) {
            Some(slot) => {
                assert_eq!(fence, world.slot.fence, "an old fence wrote: {world:?}");
                write(world, slot)
            }
            None => world,
        };
        if after.slot != world.slot && verdict == Verdict::Succeeded {
            after.published += 1;
        }
        after.held[worker] = None;
        next.push(after);
    }
    next
}

fn write(world: World, slot: Slot) -> World {
    if world.slot.state.is_terminal() {
        assert_eq!(slot, world.slot, "a terminal job changed: {world:?}");
        return world;
    }
    World {
        slot,
        terminal_writes: world.terminal_writes + u8::from(slot.state.is_terminal()),
        ..world
    }
}

fn check(world: &World) {
    let slot = world.slot;
    assert!(world.published <= 1, "published twice: {world:?}");
    assert!(world.terminal_writes <= 1, "ended twice: {world:?}");
    assert_eq!(
        world.published == 1,
        slot.state == JobState::Succeeded,
        "{world:?}"
    );
    assert_eq!(
        slot.state == JobState::Running,
        slot.lease_until.is_some(),
        "{world:?}"
    );
    assert!(slot.attempt <= slot.max_attempts, "{world:?}");
    let owners = world
        .held
        .iter()
        .filter(|held| **held == Some(slot.fence))
        .count();
    assert!(owners <= 1, "two workers with one fence: {world:?}");
}

fn reachable(max_attempts: u32) -> HashSet<World> {
    let start = World {
        slot: Slot::new(max_attempts, 0),
        held: [None; 2],
        now: 0,
        published: 0,
        terminal_writes: 0,
    };
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        check(&world);
        for next in steps(world) {
            // Releases give attempts back, so fences are what bounds the search.
            if next.slot.fence <= 4 && seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn two_workers_one_job_every_interleaving() {
    let seen = reachable(2);
    for state in JobState::ALL {
        assert!(
            seen.iter().any(|world| world.slot.state == state),
            "{state:?} is never reached"
        );
    }
    let stale = |world: &World| world.held.iter().flatten().any(|fence| *fence < world.slot.fence);
    assert!(
        seen.iter().any(stale),
        "the search never had a worker with an old fence"
    );
}

#[test]
fn a_job_is_never_stuck() {
    // From every world, dead workers and a passing clock lead to a claim or to an end.
    for world in reachable(2) {
        let slot = world.slot;
        let later = slot
            .reap(i64::MAX / 2, 1)
            .or(slot.claim(i64::MAX / 2, TTL))
            .unwrap_or(slot);
        assert!(
            slot.state.is_terminal() || later != slot,
            "nothing can happen to {world:?}"
        );
    }
}

#[test]
fn a_worker_that_dies_every_time_ends_the_job() {
    let mut slot = Slot::new(3, 0);
    let mut states = Vec::new();
    for turn in 0..3 {
        slot = slot.claim(turn * 100, TTL).expect("claimable");
        slot = slot.reap(turn * 100 + TTL, 1).expect("expired");
        states.push(slot.state);
    }
    assert_eq!(states, [JobState::Queued, JobState::Queued, JobState::Failed]);
    assert_eq!(slot.claim(i64::MAX / 2, TTL), None);
}

#[test]
fn backoff_grows_to_a_bound_and_is_jittered() {
    assert_eq!(backoff_ms(1, 0.0), 0);
    assert_eq!(backoff_ms(1, 0.5), 2_500);
    assert_eq!(backoff_ms(2, 0.5), 5_000);
    assert_eq!(backoff_ms(60, 1.0), 600_000);
}
