-- Times are milliseconds since 1970 (UTC); JSON is TEXT, so that it comes back as it was sent.
-- Names and identifiers compare by bytes ("C"), so that their order is the same everywhere.
-- migrations/sqlite has the same tables, columns and indexes; a test compares them.

CREATE TABLE model (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C",
    metadata TEXT NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('draft', 'ready')),
    digest TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    committed_at BIGINT,
    CONSTRAINT model_ready_is_complete CHECK ((state = 'ready') = (digest IS NOT NULL AND committed_at IS NOT NULL))
);

CREATE TABLE model_file (
    model_id TEXT COLLATE "C" NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (model_id, name)
);
CREATE INDEX model_file_digest ON model_file (digest);

-- What the engine found; apart, so that the model's own row stays small.
CREATE TABLE model_summary (
    model_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES model (id) ON DELETE CASCADE,
    summary TEXT NOT NULL
);

CREATE TABLE model_tensor (
    model_id TEXT COLLATE "C" NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (model_id, position)
);

CREATE TABLE upload (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    length BIGINT,
    digest TEXT COLLATE "C",
    bytes BIGINT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT upload_complete_has_digest CHECK ((digest IS NULL) = (bytes IS NULL))
);
CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL;
CREATE INDEX upload_expiry ON upload (expires_at);

-- The hot row: changed at claim, beat and end. Large JSON lives in job_body and job_report.
-- run_after and lease_until are by the database's clock, the other times by the server's.
-- model_id is history: a model may go when its jobs are over.
CREATE TABLE job (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    model_id TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    priority BIGINT NOT NULL CHECK (priority BETWEEN -100 AND 100),
    run_after BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL CHECK (max_attempts >= 1),
    fence BIGINT NOT NULL,
    lease_until BIGINT,
    worker TEXT,
    need_memory_bytes BIGINT NOT NULL,
    techniques TEXT NOT NULL,
    dedupe_key TEXT COLLATE "C",
    cancel_requested_at BIGINT,
    cancel_reason TEXT,
    error_code TEXT,
    error_message TEXT,
    stage TEXT,
    stage_index BIGINT NOT NULL,
    stages BIGINT NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT NOT NULL,
    bytes_per_second DOUBLE PRECISION NOT NULL,
    peak_memory_bytes BIGINT NOT NULL,
    event_seq BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    traceparent TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    CONSTRAINT job_attempt_within_cap CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT job_running_has_lease CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT job_running_has_worker CHECK ((state = 'running') = (worker IS NOT NULL)),
    CONSTRAINT job_over_has_end CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT job_failed_has_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX job_ready ON job (priority DESC, run_after, id) WHERE state = 'queued';
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE UNIQUE INDEX job_live_dedupe ON job (dedupe_key) WHERE state IN ('queued', 'running');
CREATE INDEX job_by_state ON job (state, id);
CREATE INDEX job_by_model ON job (model_id, id);
CREATE INDEX job_over ON job (state, finished_at) WHERE finished_at IS NOT NULL;

CREATE FUNCTION job_over_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job is over';
END
$$;
CREATE TRIGGER job_over_is_immutable BEFORE UPDATE ON job
FOR EACH ROW WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION job_over_is_immutable();

CREATE TABLE job_body (
    job_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    recipe TEXT NOT NULL,
    plan TEXT NOT NULL
);

-- One row a claim. The fence names it: a released attempt gives its number back, its fence never.
CREATE TABLE job_attempt (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    fence BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    worker TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    outcome TEXT CHECK (outcome IN ('succeeded', 'failed', 'retried', 'cancelled', 'released', 'lost')),
    error_code TEXT,
    error_message TEXT,
    need_memory_bytes BIGINT NOT NULL,
    peak_memory_bytes BIGINT,
    PRIMARY KEY (job_id, fence),
    CONSTRAINT job_attempt_ended_has_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE TABLE job_event (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('state', 'message', 'metrics')),
    level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

CREATE TABLE job_report (
    job_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    report TEXT NOT NULL
);

CREATE TABLE artifact (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    model_id TEXT COLLATE "C" NOT NULL,
    format TEXT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX artifact_by_job ON artifact (job_id);

CREATE TABLE artifact_file (
    artifact_id TEXT COLLATE "C" NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (artifact_id, name)
);
CREATE INDEX artifact_file_digest ON artifact_file (digest);

-- Blobs that a running attempt is about to publish: the sweep leaves them alone.
CREATE TABLE pending_blob (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    fence BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (job_id, fence, digest)
);
CREATE INDEX pending_blob_digest ON pending_blob (digest);

-- Written in the transaction of the job it made; deferred, because the key is taken before the job is made.
CREATE TABLE idempotency (
    idempotency_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    expires_at BIGINT NOT NULL
);
CREATE INDEX idempotency_by_job ON idempotency (job_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
