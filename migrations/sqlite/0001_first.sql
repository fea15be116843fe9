-- Times are milliseconds since 1970 (UTC); JSON is TEXT, so that it comes back as it was sent.
-- migrations/postgres has the same tables, columns and indexes; a test compares them.

CREATE TABLE model (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    metadata TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'ready')),
    digest TEXT,
    created_at INTEGER NOT NULL,
    committed_at INTEGER,
    CONSTRAINT model_ready_is_complete CHECK ((state = 'ready') = (digest IS NOT NULL AND committed_at IS NOT NULL))
) STRICT;

CREATE TABLE model_file (
    model_id TEXT NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (model_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX model_file_digest ON model_file (digest);

-- What the engine found; apart, so that the model's own row stays small.
CREATE TABLE model_summary (
    model_id TEXT NOT NULL PRIMARY KEY REFERENCES model (id) ON DELETE CASCADE,
    summary TEXT NOT NULL
) STRICT;

CREATE TABLE model_tensor (
    model_id TEXT NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (model_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload (
    id TEXT NOT NULL PRIMARY KEY,
    length INTEGER,
    digest TEXT,
    bytes INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    CONSTRAINT upload_complete_has_digest CHECK ((digest IS NULL) = (bytes IS NULL))
) STRICT;
CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL;
CREATE INDEX upload_expiry ON upload (expires_at);

-- The hot row: changed at claim, beat and end. Large JSON lives in job_body and job_report.
-- run_after and lease_until are by the database's clock, the other times by the server's.
-- model_id is history: a model may go when its jobs are over.
CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    priority INTEGER NOT NULL CHECK (priority BETWEEN -100 AND 100),
    run_after INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
    fence INTEGER NOT NULL,
    lease_until INTEGER,
    worker TEXT,
    need_memory_bytes INTEGER NOT NULL,
    techniques TEXT NOT NULL,
    dedupe_key TEXT,
    cancel_requested_at INTEGER,
    cancel_reason TEXT,
    error_code TEXT,
    error_message TEXT,
    stage TEXT,
    stage_index INTEGER NOT NULL,
    stages INTEGER NOT NULL,
    bytes_done INTEGER NOT NULL,
    bytes_total INTEGER NOT NULL,
    bytes_per_second REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    traceparent TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    CONSTRAINT job_attempt_within_cap CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT job_running_has_lease CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT job_running_has_worker CHECK ((state = 'running') = (worker IS NOT NULL)),
    CONSTRAINT job_over_has_end CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT job_failed_has_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
) STRICT;
CREATE INDEX job_ready ON job (priority DESC, run_after, id) WHERE state = 'queued';
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE UNIQUE INDEX job_live_dedupe ON job (dedupe_key) WHERE state IN ('queued', 'running');
CREATE INDEX job_by_state ON job (state, id);
CREATE INDEX job_by_model ON job (model_id, id);
CREATE INDEX job_over ON job (state, finished_at) WHERE finished_at IS NOT NULL;

CREATE TRIGGER job_over_is_immutable BEFORE UPDATE ON job
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'job is over');
END;

CREATE TABLE job_body (
    job_id TEXT NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    recipe TEXT NOT NULL,
    plan TEXT NOT NULL
) STRICT;

-- One row a claim. The fence names it: a released attempt gives its number back, its fence never.
CREATE TABLE job_attempt (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome TEXT CHECK (outcome IN ('succeeded', 'failed', 'retried', 'cancelled', 'released', 'lost')),
    error_code TEXT,
    error_message TEXT,
    need_memory_bytes INTEGER NOT NULL,
    peak_memory_bytes INTEGER,
    PRIMARY KEY (job_id, fence),
    CONSTRAINT job_attempt_ended_has_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE job_event (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('state', 'message', 'metrics')),
    level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_report (
    job_id TEXT NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    report TEXT NOT NULL
) STRICT;

CREATE TABLE artifact (
    id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    model_id TEXT NOT NULL,
    format TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX artifact_by_job ON artifact (job_id);

CREATE TABLE artifact_file (
    artifact_id TEXT NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (artifact_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_file_digest ON artifact_file (digest);

-- Blobs that a running attempt is about to publish: the sweep leaves them alone.
CREATE TABLE pending_blob (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (job_id, fence, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_blob_digest ON pending_blob (digest);

-- Written in the transaction of the job it made; deferred, because the key is taken before the job is made.
CREATE TABLE idempotency (
    idempotency_key TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_by_job ON idempotency (job_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
