//! The table of statements.
//!
//! Owns: each statement's name and its text on either database.
//! Must not know: when one is run.
//! Invariant: every text is constant, and a test prepares every one on both databases.

/// One statement.
#[derive(Debug)]
pub(super) struct Statement {
    /// Its file's name.
    pub(super) name: &'static str,
    /// For SQLite.
    pub(super) sqlite: &'static str,
    /// For PostgreSQL.
    pub(super) postgres: &'static str,
}

macro_rules! statements {
    (shared { $($shared:ident $shared_file:literal)* } twice { $($twice:ident $twice_file:literal)* }) => {
        $(pub(super) static $shared: Statement = Statement {
            name: $shared_file,
            sqlite: include_str!(concat!("sql/", $shared_file, ".sql")),
            postgres: include_str!(concat!("sql/", $shared_file, ".sql")),
        };)*
        $(pub(super) static $twice: Statement = Statement {
            name: $twice_file,
            sqlite: include_str!(concat!("sqlite/", $twice_file, ".sql")),
            postgres: include_str!(concat!("postgres/", $twice_file, ".sql")),
        };)*
        /// All of them.
        #[cfg(test)]
        pub(super) static ALL: &[&Statement] = &[$(&$shared,)* $(&$twice,)*];
    };
}

statements! {
    shared {
        ARTIFACT_FILES "artifact_files"
        ARTIFACT_GET "artifact_get"
        ARTIFACT_INSERT "artifact_insert"
        ARTIFACT_LIST "artifact_list"
        ATTEMPT_END "attempt_end"
        AUDIT_INSERT "audit_insert"
        AUDIT_LIST "audit_list"
        AUDIT_PRUNE "audit_prune"
        CHECKPOINT_CLEAR "checkpoint_clear"
        DATASET_DELETE "dataset_delete"
        DATASET_FILES "dataset_files"
        DATASET_GET "dataset_get"
        DATASET_INSERT "dataset_insert"
        DATASET_IN_USE "dataset_in_use"
        DATASET_LIST "dataset_list"
        DELIVERY_END_ALL "delivery_end_all"
        DELIVERY_GET "delivery_get"
        DELIVERY_LIST "delivery_list"
        DELIVERY_PRUNE "delivery_prune"
        DRAFT_PRUNE "draft_prune"
        EVENT_INSERT "event_insert"
        EVENT_LIST "event_list"
        IDEMPOTENCY_DROP_EXPIRED "idempotency_drop_expired"
        IDEMPOTENCY_GET "idempotency_get"
        IDEMPOTENCY_POINT "idempotency_point"
        IDEMPOTENCY_PRUNE "idempotency_prune"
        IDEMPOTENCY_TAKE "idempotency_take"
        JOB_BODY_INSERT "job_body_insert"
        JOB_BY_DEDUPE "job_by_dedupe"
        JOB_COUNTS "job_counts"
        JOB_DATASET_INSERT "job_dataset_insert"
        JOB_DONE_BEFORE "job_done_before"
        JOB_GET "job_get"
        JOB_LIST "job_list"
        JOB_LIST_MODEL "job_list_model"
        JOB_LIST_MODEL_STATE "job_list_model_state"
        JOB_LIST_STATE "job_list_state"
        JOB_PROGRESS "job_progress"
        JOB_PRUNE "job_prune"
        JOB_RECORD "job_record"
        JOB_WAITING "job_waiting"
        JOB_WAITING_OF "job_waiting_of"
        JOB_WRITE "job_write"
        KEY_END "key_end"
        KEY_GET "key_get"
        KEY_GOOD "key_good"
        KEY_INSERT "key_insert"
        KEY_LIST "key_list"
        KEY_OF_ANY "key_of_any"
        KEY_REVOKE "key_revoke"
        KEY_TOUCH "key_touch"
        MODEL_DELETE "model_delete"
        MODEL_FILES "model_files"
        MODEL_FILES_DROP "model_files_drop"
        MODEL_FILE_GET "model_file_get"
        MODEL_FILE_PUT "model_file_put"
        MODEL_GET "model_get"
        MODEL_INSERT "model_insert"
        MODEL_IN_USE "model_in_use"
        MODEL_LIST "model_list"
        MODEL_READY "model_ready"
        MODEL_SUMMARY_INSERT "model_summary_insert"
        MODEL_TENSORS "model_tensors"
        NODE_LOADS "node_loads"
        OVERVIEW_ARTIFACTS "overview_artifacts"
        OVERVIEW_FAILURES "overview_failures"
        OVERVIEW_JOBS "overview_jobs"
        PENDING_CLEAR "pending_clear"
        PULL_DONE "pull_done"
        PULL_FAIL "pull_fail"
        PULL_FILES "pull_files"
        PULL_FILE_INSERT "pull_file_insert"
        PULL_FREE_ALL "pull_free_all"
        PULL_PLAN "pull_plan"
        PULL_UPLOADS_DROP "pull_uploads_drop"
        PULL_UPLOAD_IDS "pull_upload_ids"
        REPORT_GET "report_get"
        REPORT_INSERT "report_insert"
        SEARCH_BY_KEY "search_by_key"
        SEARCH_CANCEL "search_cancel"
        SEARCH_GET "search_get"
        SEARCH_INSERT "search_insert"
        SEARCH_LIST "search_list"
        SEARCH_PRUNE "search_prune"
        SCHEMA_VERSION "schema_version"
        STORED_BYTES "stored_bytes"
        TRY_INSERT "try_insert"
        UPLOAD_ANNOUNCE "upload_announce"
        UPLOAD_COMPLETE "upload_complete"
        UPLOAD_DELETE "upload_delete"
        UPLOAD_DROP "upload_drop"
        UPLOAD_EXPIRED "upload_expired"
        UPLOAD_GET "upload_get"
        UPLOAD_INSERT "upload_insert"
        WEBHOOK_CHANGE "webhook_change"
        WEBHOOK_COUNT "webhook_count"
        WEBHOOK_DELETE "webhook_delete"
        WEBHOOK_DISABLE "webhook_disable"
        WEBHOOK_GET "webhook_get"
        WEBHOOK_INSERT "webhook_insert"
        WEBHOOK_LIST "webhook_list"
        WEBHOOK_OF_ANY "webhook_of_any"
        WEBHOOK_ROTATE "webhook_rotate"
        WEBHOOK_SUCCESS "webhook_success"
    }
    twice {
        ARTIFACT_FILES_INSERT "artifact_files_insert"
        CHECKPOINT_INSERT "checkpoint_insert"
        DATASET_FILES_INSERT "dataset_files_insert"
        DATASET_FILES_OF "dataset_files_of"
        DATASET_LOCK "dataset_lock"
        DATASET_SHARE "dataset_share"
        DELIVERY_CLAIM "delivery_claim"
        DELIVERY_INSERT "delivery_insert"
        DELIVERY_REPLAY "delivery_replay"
        DELIVERY_SETTLE "delivery_settle"
        JOB_BEAT "job_beat"
        JOB_CLAIM "job_claim"
        JOB_CLAIMED "job_claimed"
        JOB_CLAIM_TURN "job_claim_turn"
        JOB_INSERT "job_insert"
        JOB_LOCK "job_lock"
        JOB_SILENT "job_silent"
        JOBS_GET "jobs_get"
        JOBS_LIVE "jobs_live"
        MODEL_FILES_INSERT "model_files_insert"
        MODEL_FILES_OF "model_files_of"
        MODEL_LOCK "model_lock"
        MODEL_SHARE "model_share"
        MODEL_TENSORS_INSERT "model_tensors_insert"
        PENDING_INSERT "pending_insert"
        PULL_BEAT "pull_beat"
        PULL_CLAIM "pull_claim"
        PULL_INSERT "pull_insert"
        PULL_RELEASE "pull_release"
        TRIES_OF "tries_of"
        UNREFERENCED "unreferenced"
        WEBHOOK_LOCK "webhook_lock"
        WEBHOOK_TOLD "webhook_told"
    }
}
