//! One suite, run on both databases.
//!
//! Owns: the scenarios and the bed they run on.
//! Must not know: which database it is, but for [`schema`], which compares the two, and [`upgrade`].
//! Invariant: a scenario passes on both or fails; none is skipped on SQLite.
//!
//! PostgreSQL is the one at `MODELPRESS_TEST_POSTGRES_URL`; without it those tests say SKIPPED and pass.

mod bed;
mod datasets;
mod dump;
mod keys;
mod leases;
mod lists;
mod models;
mod oracle;
mod pulls;
mod quotas;
mod results;
mod schema;
mod searches;
mod storms;
mod tenants;
mod turns;
mod upgrade;
mod webhooks;

pub(crate) use bed::{Schema, postgres_url};

macro_rules! suite {
    ($($module:ident { $($case:ident)* })*) => {
        mod on_sqlite {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::bed::on_sqlite(|bed| Box::pin(super::$module::$case(bed))).await;
            })*)*
        }
        mod on_postgres {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::bed::on_postgres(stringify!($case), |bed| Box::pin(super::$module::$case(bed))).await;
            })*)*
        }
    };
}

suite! {
    datasets {
        a_dataset_is_what_was_recorded
        a_dataset_in_use_stays
    }
    dump {
        the_tables_after_each_step
    }
    keys {
        a_repeated_request_finds_the_first_job
        a_key_with_another_request_is_refused
        a_key_runs_out
        a_refused_request_leaves_its_key_free
        one_key_sent_at_once_makes_one_job
        equal_work_is_done_once
    }
    leases {
        a_claim_takes_the_job_and_says_so
        a_late_finish_with_an_old_fence_changes_nothing
        a_worker_that_dies_every_time_ends_the_job
        a_live_lease_is_not_taken_back
        at_start_everyone_is_silent
        a_retry_waits_and_then_runs_again
        a_release_gives_the_attempt_back
        cancel_while_queued_ends_at_once
        cancel_while_running_reaches_the_next_beat
        a_cancelled_job_whose_worker_dies_is_not_run_again
        a_job_that_is_over_cannot_be_cancelled
        a_finish_sent_twice_is_one_finish
        nothing_changes_a_job_that_is_over
        the_order_of_claims
        what_does_not_fit_is_left
    }
    lists {
        pages_are_stable_under_inserts
        filters
        ticks_are_shown_until_the_attempt_ends
        counts_and_readiness
        sums_are_of_one_tenant_and_of_what_is_there
        artifacts_are_found_by_job_and_model
        jobs_that_are_asked_for_at_once
        a_full_queue_turns_jobs_away
    }
    models {
        a_draft_becomes_ready_once
        files_that_changed_are_not_committed
        a_model_in_use_stays
        tensors_by_page
        uploads
    }
    oracle {
        any_sequence_agrees_with_the_pure_machine
    }
    pulls {
        a_pull_is_in_one_pair_of_hands
        a_pull_counts_what_will_arrive
        a_pull_ends_in_a_model_once
        a_failed_pull_keeps_its_reason_only
    }
    quotas {
        a_tenants_queue_has_an_end
        a_tenant_runs_so_many_at_a_time
        a_tenant_never_runs_more_than_it_may
        the_bytes_of_a_tenant
    }
    results {
        a_success_publishes_everything_at_once
        a_missed_gate_fails_and_publishes
        events_have_no_gaps
        announced_blobs_are_not_orphans
        a_checkpoint_is_the_next_attempts_and_goes_with_the_end
        old_jobs_go_with_everything
        drafts_and_keys_of_long_ago_go
    }
    searches {
        a_search_is_recorded_with_its_jobs
        a_search_without_room_leaves_nothing
        equal_work_of_two_searches_is_one_job
        one_key_makes_one_search
        old_searches_go
    }
    storms {
        sixteen_claimers_and_each_job_once
        cancel_and_finish_at_once
    }
    turns {
        a_thousand_jobs_do_not_starve_one
        turns_are_not_saved_up
        priorities_still_win
        a_released_job_is_next
        a_large_job_is_not_passed_over_for_ever
        after_a_lack_of_memory_a_job_has_a_worker_to_itself
        a_claim_among_many_walks_an_index
    }
    tenants {
        nobody_sees_anothers_rows
        keys_end_for_good
        idempotency_keys_are_a_tenants_own
        the_audit_log_is_a_tenants_own_and_forgets
    }
    webhooks {
        every_change_is_told_once
        what_is_not_committed_is_not_told
        a_message_is_in_one_senders_hands
        one_webhook_does_not_hold_up_the_others
        a_message_is_tried_and_tried_again
        a_webhook_that_never_answers_is_disabled
        a_webhook_that_is_gone_is_disabled_at_once
        a_webhook_changes_and_goes
        a_webhook_is_its_tenants_own
        old_messages_go_and_waiting_ones_stay
        a_message_is_small
    }
}
