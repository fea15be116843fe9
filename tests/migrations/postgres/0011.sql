CREATE FUNCTION job_over_is_immutable() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'job is over';
END
$$;
CREATE TABLE _sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE api_key (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    scopes text NOT NULL COLLATE pg_catalog."C",
    secret_digest text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    expires_at bigint,
    last_used_at bigint,
    revoked_at bigint
);
CREATE TABLE artifact (
    id text NOT NULL COLLATE pg_catalog."C",
    job_id text NOT NULL COLLATE pg_catalog."C",
    model_id text NOT NULL COLLATE pg_catalog."C",
    format text NOT NULL,
    digest text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL
);
CREATE TABLE artifact_file (
    artifact_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    CONSTRAINT artifact_file_bytes_check CHECK ((bytes >= 0))
);
CREATE TABLE audit (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    key_id text COLLATE pg_catalog."C",
    action text NOT NULL COLLATE pg_catalog."C",
    object text COLLATE pg_catalog."C",
    request_id text NOT NULL COLLATE pg_catalog."C",
    client text COLLATE pg_catalog."C",
    created_at bigint NOT NULL
);
CREATE TABLE dataset (
    id text NOT NULL COLLATE pg_catalog."C",
    name text COLLATE pg_catalog."C",
    metadata text NOT NULL,
    digest text NOT NULL COLLATE pg_catalog."C",
    summary text NOT NULL,
    created_at bigint NOT NULL,
    tenant text DEFAULT 'default'::text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE dataset_file (
    dataset_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    CONSTRAINT dataset_file_bytes_check CHECK ((bytes >= 0))
);
CREATE TABLE idempotency (
    idempotency_key text NOT NULL COLLATE pg_catalog."C",
    fingerprint text NOT NULL,
    job_id text NOT NULL COLLATE pg_catalog."C",
    expires_at bigint NOT NULL
);
CREATE TABLE job (
    id text NOT NULL COLLATE pg_catalog."C",
    model_id text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    priority bigint NOT NULL,
    run_after bigint NOT NULL,
    attempt bigint NOT NULL,
    max_attempts bigint NOT NULL,
    fence bigint NOT NULL,
    lease_until bigint,
    worker text,
    need_memory_bytes bigint NOT NULL,
    techniques text NOT NULL,
    dedupe_key text COLLATE pg_catalog."C",
    cancel_requested_at bigint,
    cancel_reason text,
    error_code text,
    error_message text,
    stage text,
    stage_index bigint NOT NULL,
    stages bigint NOT NULL,
    bytes_done bigint NOT NULL,
    bytes_total bigint NOT NULL,
    bytes_per_second double precision NOT NULL,
    peak_memory_bytes bigint NOT NULL,
    event_seq bigint NOT NULL,
    metadata text NOT NULL,
    traceparent text,
    created_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    tenant text DEFAULT 'default'::text NOT NULL COLLATE pg_catalog."C",
    turn bigint DEFAULT 0 NOT NULL,
    CONSTRAINT job_attempt_within_cap CHECK (((attempt >= 0) AND (attempt <= max_attempts))),
    CONSTRAINT job_failed_has_error CHECK (((state = 'failed'::text) = (error_code IS NOT NULL))),
    CONSTRAINT job_max_attempts_check CHECK ((max_attempts >= 1)),
    CONSTRAINT job_over_has_end CHECK (((state = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT job_priority_check CHECK (((priority >= '-100'::integer) AND (priority <= 100))),
    CONSTRAINT job_running_has_lease CHECK (((state = 'running'::text) = (lease_until IS NOT NULL))),
    CONSTRAINT job_running_has_worker CHECK (((state = 'running'::text) = (worker IS NOT NULL))),
    CONSTRAINT job_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])))
)
WITH (fillfactor='80');
CREATE TABLE job_attempt (
    job_id text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    attempt bigint NOT NULL,
    worker text NOT NULL,
    started_at bigint NOT NULL,
    ended_at bigint,
    outcome text,
    error_code text,
    error_message text,
    need_memory_bytes bigint NOT NULL,
    peak_memory_bytes bigint,
    CONSTRAINT job_attempt_ended_has_outcome CHECK (((ended_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT job_attempt_outcome_check CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'retried'::text, 'cancelled'::text, 'released'::text, 'lost'::text])))
);
CREATE TABLE job_body (
    job_id text NOT NULL COLLATE pg_catalog."C",
    recipe text NOT NULL,
    plan text NOT NULL
);
CREATE TABLE job_checkpoint (
    job_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    digest text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    CONSTRAINT job_checkpoint_bytes_check CHECK ((bytes >= 0))
);
CREATE TABLE job_dataset (
    job_id text NOT NULL COLLATE pg_catalog."C",
    dataset_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE job_event (
    job_id text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    kind text NOT NULL,
    level text NOT NULL,
    message text NOT NULL,
    data text NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT job_event_kind_check CHECK ((kind = ANY (ARRAY['state'::text, 'message'::text, 'metrics'::text]))),
    CONSTRAINT job_event_level_check CHECK ((level = ANY (ARRAY['info'::text, 'warning'::text, 'error'::text])))
);
CREATE TABLE job_report (
    job_id text NOT NULL COLLATE pg_catalog."C",
    report text NOT NULL
);
CREATE TABLE model (
    id text NOT NULL COLLATE pg_catalog."C",
    name text COLLATE pg_catalog."C",
    metadata text NOT NULL,
    state text NOT NULL COLLATE pg_catalog."C",
    digest text COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    committed_at bigint,
    tenant text DEFAULT 'default'::text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT model_ready_is_complete CHECK (((state = 'ready'::text) = ((digest IS NOT NULL) AND (committed_at IS NOT NULL)))),
    CONSTRAINT model_state_check CHECK ((state = ANY (ARRAY['draft'::text, 'ready'::text])))
);
CREATE TABLE model_file (
    model_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    CONSTRAINT model_file_bytes_check CHECK ((bytes >= 0))
);
CREATE TABLE model_pull (
    model_id text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    include text NOT NULL COLLATE pg_catalog."C",
    token text COLLATE pg_catalog."C",
    revision text COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    failures bigint NOT NULL,
    due_at bigint NOT NULL,
    lease_until bigint,
    files bigint NOT NULL,
    files_done bigint NOT NULL,
    bytes bigint NOT NULL,
    bytes_done bigint NOT NULL,
    note text COLLATE pg_catalog."C",
    error_code text COLLATE pg_catalog."C",
    error_message text COLLATE pg_catalog."C",
    finished_at bigint,
    CONSTRAINT model_pull_failed_has_error CHECK (((state = 'failed'::text) = (error_code IS NOT NULL))),
    CONSTRAINT model_pull_over_has_end CHECK (((state = 'active'::text) = (finished_at IS NULL))),
    CONSTRAINT model_pull_state_check CHECK ((state = ANY (ARRAY['active'::text, 'done'::text, 'failed'::text])))
);
CREATE TABLE model_pull_file (
    model_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    origin text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    sha256 text COLLATE pg_catalog."C",
    upload_id text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT model_pull_file_bytes_check CHECK ((bytes >= 0))
);
CREATE TABLE model_summary (
    model_id text NOT NULL COLLATE pg_catalog."C",
    summary text NOT NULL
);
CREATE TABLE model_tensor (
    model_id text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    dtype text NOT NULL,
    shape text NOT NULL,
    bytes bigint NOT NULL
);
CREATE TABLE pending_blob (
    job_id text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    digest text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE search (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    model_id text NOT NULL COLLATE pg_catalog."C",
    asked text NOT NULL,
    points text NOT NULL,
    metadata text NOT NULL,
    idempotency_key text COLLATE pg_catalog."C",
    fingerprint text COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    cancelled_at bigint,
    CONSTRAINT search_key_has_fingerprint CHECK (((idempotency_key IS NULL) = (fingerprint IS NULL)))
);
CREATE TABLE upload (
    id text NOT NULL COLLATE pg_catalog."C",
    length bigint,
    digest text COLLATE pg_catalog."C",
    bytes bigint,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    client_metadata text,
    tenant text DEFAULT 'default'::text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT upload_complete_has_digest CHECK (((digest IS NULL) = (bytes IS NULL)))
);
CREATE TABLE webhook (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    url text NOT NULL COLLATE pg_catalog."C",
    description text COLLATE pg_catalog."C",
    topics text NOT NULL COLLATE pg_catalog."C",
    secret text NOT NULL COLLATE pg_catalog."C",
    old_secret text COLLATE pg_catalog."C",
    old_secret_until bigint,
    disabled_at bigint,
    disabled_reason text COLLATE pg_catalog."C",
    last_success_at bigint,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT webhook_disabled_has_reason CHECK (((disabled_at IS NULL) = (disabled_reason IS NULL))),
    CONSTRAINT webhook_old_secret_ends CHECK (((old_secret IS NULL) = (old_secret_until IS NULL)))
);
CREATE TABLE webhook_delivery (
    id text NOT NULL COLLATE pg_catalog."C",
    webhook_id text NOT NULL COLLATE pg_catalog."C",
    topic text NOT NULL COLLATE pg_catalog."C",
    body text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    tries bigint NOT NULL,
    tries_before bigint NOT NULL,
    begun_at bigint NOT NULL,
    due_at bigint NOT NULL,
    lease_until bigint,
    created_at bigint NOT NULL,
    finished_at bigint,
    CONSTRAINT webhook_delivery_over_has_end CHECK (((state = 'pending'::text) = (finished_at IS NULL))),
    CONSTRAINT webhook_delivery_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'succeeded'::text, 'failed'::text])))
);
CREATE TABLE webhook_try (
    delivery_id text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL,
    started_at bigint NOT NULL,
    duration_ms bigint NOT NULL,
    status bigint,
    response text COLLATE pg_catalog."C",
    error text COLLATE pg_catalog."C"
);
INSERT INTO _sqlx_migrations VALUES (1, '0001_first', '2026-01-01 00:00:00+00', true, '\xda15323e93b06dc47104398fde8ac300999e911e19e9a99be8d87c10bd38465f06db6f09ca475c8c061dc2929221dd5b', 0);
INSERT INTO _sqlx_migrations VALUES (2, '0002_datasets', '2026-01-01 00:00:00+00', true, '\x728ffb6b0429edf6e1e49da2bfaa53bea242b6b94eb1432c660978d315b3498f9753610dd62ad422f092f9a56456d15d', 0);
INSERT INTO _sqlx_migrations VALUES (3, '0003_upload_metadata', '2026-01-01 00:00:00+00', true, '\x807a16ef26197ae212992e02ca3807e9c9e8742b4f941168991cac7387fb2b808e3a3016280f43b409dfd4fb3aa8f8ed', 0);
INSERT INTO _sqlx_migrations VALUES (4, '0004_tenants', '2026-01-01 00:00:00+00', true, '\xdd314bbb546c723314f04d8b3347a560a400b0c051a8bca0e64df1f1c2dc12ead80de9a195ee5a7dd8a56301ee3f9b1d', 0);
INSERT INTO _sqlx_migrations VALUES (5, '0005_audit', '2026-01-01 00:00:00+00', true, '\xa78a7aa6dfd6b99abd6be9f09ccea7867a38c45067be8155fad03ec7c9ef912047818c61469783fbea038c95da020b75', 0);
INSERT INTO _sqlx_migrations VALUES (6, '0006_checkpoints', '2026-01-01 00:00:00+00', true, '\xfbab2a83f92fca54b0e0be3e4ca401d6af13c80d9638f4d83e2614f0efb3c09421dc279f4b85daa26d0bb34929d863fa', 0);
INSERT INTO _sqlx_migrations VALUES (7, '0007_webhooks', '2026-01-01 00:00:00+00', true, '\xfd7dc34b46bdf2c398ddb477502f86c21c5094439b341a500759aeb2a88ca80fb0787a09da77707f1a4c5147815c395c', 0);
INSERT INTO _sqlx_migrations VALUES (8, '0008_drafts', '2026-01-01 00:00:00+00', true, '\x9742cc5ded35813e7008e8e25ee9aa44cb8d2eca1404911c4673471dc74ad60a709bcf0ef7a641eaa271f059357535d3', 0);
INSERT INTO _sqlx_migrations VALUES (9, '0009_pulls', '2026-01-01 00:00:00+00', true, '\xdab08bc556e7c3e2d32a4bd4bed4494255165e69c749bda974f03f5a834d5c38fb40634f06d18b5f2d5bfd4cacc77bd0', 0);
INSERT INTO _sqlx_migrations VALUES (10, '0010_turns', '2026-01-01 00:00:00+00', true, '\x99a12352bb8c373d3ad81db0fe9de2bbafe858ac19e36e2aec60f011f8bcb40b9b61e545c0f3f494d50cae75392f80f0', 0);
INSERT INTO _sqlx_migrations VALUES (11, '0011_searches', '2026-01-01 00:00:00+00', true, '\x22216f37ff1791c49e768ba22f661014f43056df52469c75182baf7608fb57a15238370916382a521f6ed7154385de69', 0);
INSERT INTO api_key VALUES ('key_01939a6b2b3c7d0e8f0000000000000b', 'team-a', 'ci', 'models:write jobs:write', 'd4', 1750000000000, NULL, NULL, NULL);
INSERT INTO artifact VALUES ('art_01939a6b2b3c7d0e8f00000000000009', 'job_01939a6b2b3c7d0e8f00000000000007', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'gguf', 'd2', 1750000009000);
INSERT INTO artifact_file VALUES ('art_01939a6b2b3c7d0e8f00000000000009', 'model.gguf', 'ad', 5);
INSERT INTO audit VALUES ('aud_01939a6b2b3c7d0e8f0000000000000d', 'team-a', 'key_01939a6b2b3c7d0e8f0000000000000b', 'createModel', 'mdl_01939a6b2b3c7d0e8f0000000000000c', 'r1', '127.0.0.1', 1750000000000);
INSERT INTO dataset VALUES ('ds_01939a6b2b3c7d0e8f0000000000000a', 'tickets', '{}', 'd3', '{"kind":"txt"}', 1750000000000, 'default');
INSERT INTO dataset_file VALUES ('ds_01939a6b2b3c7d0e8f0000000000000a', 'a.txt', 'af', 3);
INSERT INTO idempotency VALUES ('default:once', 'f1', 'job_01939a6b2b3c7d0e8f00000000000005', 4000000000000);
INSERT INTO job VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'running', 0, 0, 1, 3, 1, 1750000100000, 'worker-a', 100, '["ggml"]', NULL, 1750000003000, 'changed my mind', NULL, NULL, 'compress', 0, 2, 5, 10, 1.5, 7, 2, '{}', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 1750000002000, 1750000002500, NULL, 'default', 0);
INSERT INTO job VALUES ('job_01939a6b2b3c7d0e8f00000000000007', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'succeeded', 0, 0, 1, 3, 1, NULL, NULL, 100, '["ggml"]', 'same', NULL, NULL, NULL, NULL, 'verify', 1, 2, 10, 10, 2.5, 9, 3, '{"a":"b"}', NULL, 1750000002000, 1750000002500, 1750000009000, 'default', 0);
INSERT INTO job VALUES ('job_01939a6b2b3c7d0e8f00000000000008', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'failed', 0, 0, 1, 3, 1, NULL, NULL, 100, '[]', NULL, NULL, NULL, 'io', 'the disk failed', NULL, 0, 0, 0, 0, 0, 0, 1, '{}', NULL, 1750000002000, 1750000002500, 1750000009000, 'default', 0);
INSERT INTO job VALUES ('job_01939a6b2b3c7d0e8f00000000000005', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'queued', 5, 0, 0, 3, 0, NULL, NULL, 100, '["rtn"]', 'default:same', NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 1, '{}', NULL, 1750000002000, NULL, NULL, 'default', 0);
INSERT INTO job_attempt VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 1, 1, 'worker-a', 1750000002500, NULL, NULL, NULL, NULL, 100, NULL);
INSERT INTO job_attempt VALUES ('job_01939a6b2b3c7d0e8f00000000000007', 1, 1, 'worker-a', 1750000002500, 1750000009000, 'succeeded', NULL, NULL, 100, 9);
INSERT INTO job_attempt VALUES ('job_01939a6b2b3c7d0e8f00000000000008', 1, 1, 'worker-a', 1750000002500, 1750000009000, 'failed', 'io', 'the disk failed', 100, 9);
INSERT INTO job_body VALUES ('job_01939a6b2b3c7d0e8f00000000000005', '"W8A16"', '{"z":1,"a":2}');
INSERT INTO job_body VALUES ('job_01939a6b2b3c7d0e8f00000000000006', '"Q4_K_M"', '{"version":1}');
INSERT INTO job_body VALUES ('job_01939a6b2b3c7d0e8f00000000000007', '"Q4_K_M"', '{"version":1}');
INSERT INTO job_body VALUES ('job_01939a6b2b3c7d0e8f00000000000008', '"Q4_K_M"', '{"version":1}');
INSERT INTO job_checkpoint VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 'block-0', 1, 'ba', 7);
INSERT INTO job_dataset VALUES ('job_01939a6b2b3c7d0e8f00000000000005', 'ds_01939a6b2b3c7d0e8f0000000000000a');
INSERT INTO job_event VALUES ('job_01939a6b2b3c7d0e8f00000000000005', 1, 'state', 'info', 'job is queued', '{}', 1750000002000);
INSERT INTO job_event VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 1, 'state', 'info', 'job is queued', '{}', 1750000002000);
INSERT INTO job_event VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 2, 'state', 'info', 'job is running', '{"attempt":1}', 1750000002500);
INSERT INTO job_event VALUES ('job_01939a6b2b3c7d0e8f00000000000007', 1, 'message', 'warning', 'a line', '{}', 1750000002500);
INSERT INTO job_report VALUES ('job_01939a6b2b3c7d0e8f00000000000007', '{"z":1,"ratio":3.5}');
INSERT INTO model VALUES ('mdl_01939a6b2b3c7d0e8f00000000000001', 'tiny', '{"team":"blue"}', 'ready', 'd1', 1750000000000, 1750000001000, 'default');
INSERT INTO model VALUES ('mdl_01939a6b2b3c7d0e8f00000000000002', NULL, '{}', 'draft', NULL, 1750000000000, NULL, 'default');
INSERT INTO model VALUES ('mdl_01939a6b2b3c7d0e8f0000000000000c', 'theirs', '{}', 'draft', NULL, 1750000000000, NULL, 'team-a');
INSERT INTO model_file VALUES ('mdl_01939a6b2b3c7d0e8f00000000000001', 'model.safetensors', 'aa', 10);
INSERT INTO model_file VALUES ('mdl_01939a6b2b3c7d0e8f00000000000002', 'config.json', 'ab', 2);
INSERT INTO model_pull VALUES ('mdl_01939a6b2b3c7d0e8f00000000000002', '{"hub":"a/b"}', '[]', NULL, 'main', 'active', 1, 0, 1750000009000, NULL, 1, 0, 10, 4, NULL, NULL, NULL, NULL);
INSERT INTO model_pull_file VALUES ('mdl_01939a6b2b3c7d0e8f00000000000002', 'config.json', 'https://example.com/config.json', 10, NULL, 'upl_01939a6b2b3c7d0e8f00000000000004');
INSERT INTO model_summary VALUES ('mdl_01939a6b2b3c7d0e8f00000000000001', '{"format":"safetensors"}');
INSERT INTO model_tensor VALUES ('mdl_01939a6b2b3c7d0e8f00000000000001', 0, 'a.weight', 'F32', '[2,4]', 32);
INSERT INTO pending_blob VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 1, 'ae');
INSERT INTO search VALUES ('srch_01939a6b2b3c7d0e8f00000000000001', 'default', 'mdl_01939a6b2b3c7d0e8f00000000000001', '{"recipes":["Q8_0"]}', '[{"name":"Q8_0","recipe":{"preset":"Q8_0"},"job":"job_01939a6b2b3c7d0e8f00000000000001","refusal":null}]', '{}', 'default:once', 'ab', 1750000009000, NULL);
INSERT INTO upload VALUES ('upl_01939a6b2b3c7d0e8f00000000000003', 10, 'ac', 10, 1750000000000, 4000000000000, NULL, 'default');
INSERT INTO upload VALUES ('upl_01939a6b2b3c7d0e8f00000000000004', NULL, NULL, NULL, 1750000000000, 4000000000000, 'filename YS5iaW4=', 'default');
INSERT INTO webhook VALUES ('wh_01939a6b2b3c7d0e8f0000000000000e', 'default', 'https://example.com/hook', NULL, 'job.succeeded', 'whsec_MQ==', 'whsec_Mg==', 1750000009000, NULL, NULL, 1750000009000, 1750000000000, 1750000000000);
INSERT INTO webhook_delivery VALUES ('msg_01939a6b2b3c7d0e8f0000000000000f', 'wh_01939a6b2b3c7d0e8f0000000000000e', 'job.succeeded', '{}', 'succeeded', 1, 1, 0, 1750000009000, 1750000009000, NULL, 1750000009000, 1750000009500);
INSERT INTO webhook_delivery VALUES ('msg_01939a6b2b3c7d0e8f00000000000010', 'wh_01939a6b2b3c7d0e8f0000000000000e', 'job.failed', '{}', 'pending', 2, 1, 0, 1750000009000, 1750000019000, NULL, 1750000009000, NULL);
INSERT INTO webhook_try VALUES ('msg_01939a6b2b3c7d0e8f0000000000000f', 1, 1750000009000, 12, 200, 'ok', NULL);
INSERT INTO webhook_try VALUES ('msg_01939a6b2b3c7d0e8f00000000000010', 1, 1750000009000, 30, NULL, NULL, 'timeout');
ALTER TABLE ONLY _sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);
ALTER TABLE ONLY artifact_file
    ADD CONSTRAINT artifact_file_pkey PRIMARY KEY (artifact_id, name);
ALTER TABLE ONLY artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY dataset_file
    ADD CONSTRAINT dataset_file_pkey PRIMARY KEY (dataset_id, name);
ALTER TABLE ONLY dataset
    ADD CONSTRAINT dataset_pkey PRIMARY KEY (id);
ALTER TABLE ONLY idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (idempotency_key);
ALTER TABLE ONLY job_attempt
    ADD CONSTRAINT job_attempt_pkey PRIMARY KEY (job_id, fence);
ALTER TABLE ONLY job_body
    ADD CONSTRAINT job_body_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY job_checkpoint
    ADD CONSTRAINT job_checkpoint_pkey PRIMARY KEY (job_id, name);
ALTER TABLE ONLY job_dataset
    ADD CONSTRAINT job_dataset_pkey PRIMARY KEY (job_id, dataset_id);
ALTER TABLE ONLY job_event
    ADD CONSTRAINT job_event_pkey PRIMARY KEY (job_id, seq);
ALTER TABLE ONLY job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);
ALTER TABLE ONLY job_report
    ADD CONSTRAINT job_report_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY model_file
    ADD CONSTRAINT model_file_pkey PRIMARY KEY (model_id, name);
ALTER TABLE ONLY model
    ADD CONSTRAINT model_pkey PRIMARY KEY (id);
ALTER TABLE ONLY model_pull_file
    ADD CONSTRAINT model_pull_file_pkey PRIMARY KEY (model_id, name);
ALTER TABLE ONLY model_pull
    ADD CONSTRAINT model_pull_pkey PRIMARY KEY (model_id);
ALTER TABLE ONLY model_summary
    ADD CONSTRAINT model_summary_pkey PRIMARY KEY (model_id);
ALTER TABLE ONLY model_tensor
    ADD CONSTRAINT model_tensor_pkey PRIMARY KEY (model_id, "position");
ALTER TABLE ONLY pending_blob
    ADD CONSTRAINT pending_blob_pkey PRIMARY KEY (job_id, fence, digest);
ALTER TABLE ONLY search
    ADD CONSTRAINT search_pkey PRIMARY KEY (id);
ALTER TABLE ONLY upload
    ADD CONSTRAINT upload_pkey PRIMARY KEY (id);
ALTER TABLE ONLY webhook_delivery
    ADD CONSTRAINT webhook_delivery_pkey PRIMARY KEY (id);
ALTER TABLE ONLY webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (id);
ALTER TABLE ONLY webhook_try
    ADD CONSTRAINT webhook_try_pkey PRIMARY KEY (delivery_id, number);
CREATE INDEX api_key_by_tenant ON api_key USING btree (tenant, id);
CREATE INDEX artifact_by_job ON artifact USING btree (job_id);
CREATE INDEX artifact_file_digest ON artifact_file USING btree (digest);
CREATE INDEX audit_age ON audit USING btree (created_at);
CREATE INDEX audit_by_tenant ON audit USING btree (tenant, id);
CREATE INDEX dataset_by_tenant ON dataset USING btree (tenant, id);
CREATE INDEX dataset_file_digest ON dataset_file USING btree (digest);
CREATE INDEX idempotency_by_job ON idempotency USING btree (job_id);
CREATE INDEX idempotency_expiry ON idempotency USING btree (expires_at);
CREATE INDEX job_by_model ON job USING btree (model_id, id);
CREATE INDEX job_by_state ON job USING btree (state, tenant, id);
CREATE INDEX job_by_tenant ON job USING btree (tenant, id);
CREATE INDEX job_checkpoint_digest ON job_checkpoint USING btree (digest);
CREATE INDEX job_dataset_by_dataset ON job_dataset USING btree (dataset_id);
CREATE INDEX job_lease ON job USING btree (lease_until) WHERE (state = 'running'::text);
CREATE UNIQUE INDEX job_live_dedupe ON job USING btree (dedupe_key) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX job_over ON job USING btree (state, finished_at) WHERE (finished_at IS NOT NULL);
CREATE INDEX job_ready ON job USING btree (priority DESC, turn, id) WHERE (state = 'queued'::text);
CREATE INDEX job_served ON job USING btree (priority, turn) WHERE (state = 'running'::text);
CREATE INDEX job_turn ON job USING btree (tenant, priority, turn) WHERE (state = 'queued'::text);
CREATE INDEX model_by_tenant ON model USING btree (tenant, id);
CREATE INDEX model_draft ON model USING btree (created_at) WHERE (state = 'draft'::text);
CREATE INDEX model_file_digest ON model_file USING btree (digest);
CREATE INDEX model_pull_due ON model_pull USING btree (due_at, model_id) WHERE (state = 'active'::text);
CREATE INDEX pending_blob_digest ON pending_blob USING btree (digest);
CREATE INDEX search_by_age ON search USING btree (created_at);
CREATE INDEX search_by_tenant ON search USING btree (tenant, id);
CREATE UNIQUE INDEX search_key ON search USING btree (idempotency_key);
CREATE INDEX upload_digest ON upload USING btree (digest) WHERE (digest IS NOT NULL);
CREATE INDEX upload_expiry ON upload USING btree (expires_at);
CREATE INDEX webhook_by_tenant ON webhook USING btree (tenant, id);
CREATE INDEX webhook_delivery_busy ON webhook_delivery USING btree (webhook_id, lease_until) WHERE (lease_until IS NOT NULL);
CREATE INDEX webhook_delivery_by_webhook ON webhook_delivery USING btree (webhook_id, id);
CREATE INDEX webhook_delivery_due ON webhook_delivery USING btree (due_at, id) WHERE (state = 'pending'::text);
CREATE INDEX webhook_delivery_over ON webhook_delivery USING btree (finished_at) WHERE (finished_at IS NOT NULL);
CREATE TRIGGER job_over_is_immutable BEFORE UPDATE ON job FOR EACH ROW WHEN ((old.state = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text]))) EXECUTE FUNCTION job_over_is_immutable();
ALTER TABLE ONLY artifact_file
    ADD CONSTRAINT artifact_file_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES artifact(id) ON DELETE CASCADE;
ALTER TABLE ONLY artifact
    ADD CONSTRAINT artifact_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY dataset_file
    ADD CONSTRAINT dataset_file_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES dataset(id) ON DELETE CASCADE;
ALTER TABLE ONLY idempotency
    ADD CONSTRAINT idempotency_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY job_attempt
    ADD CONSTRAINT job_attempt_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY job_body
    ADD CONSTRAINT job_body_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY job_checkpoint
    ADD CONSTRAINT job_checkpoint_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY job_dataset
    ADD CONSTRAINT job_dataset_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY job_event
    ADD CONSTRAINT job_event_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY job_report
    ADD CONSTRAINT job_report_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY model_file
    ADD CONSTRAINT model_file_model_id_fkey FOREIGN KEY (model_id) REFERENCES model(id) ON DELETE CASCADE;
ALTER TABLE ONLY model_pull_file
    ADD CONSTRAINT model_pull_file_model_id_fkey FOREIGN KEY (model_id) REFERENCES model_pull(model_id) ON DELETE CASCADE;
ALTER TABLE ONLY model_pull
    ADD CONSTRAINT model_pull_model_id_fkey FOREIGN KEY (model_id) REFERENCES model(id) ON DELETE CASCADE;
ALTER TABLE ONLY model_summary
    ADD CONSTRAINT model_summary_model_id_fkey FOREIGN KEY (model_id) REFERENCES model(id) ON DELETE CASCADE;
ALTER TABLE ONLY model_tensor
    ADD CONSTRAINT model_tensor_model_id_fkey FOREIGN KEY (model_id) REFERENCES model(id) ON DELETE CASCADE;
ALTER TABLE ONLY pending_blob
    ADD CONSTRAINT pending_blob_job_id_fkey FOREIGN KEY (job_id) REFERENCES job(id) ON DELETE CASCADE;
ALTER TABLE ONLY webhook_delivery
    ADD CONSTRAINT webhook_delivery_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES webhook(id) ON DELETE CASCADE;
ALTER TABLE ONLY webhook_try
    ADD CONSTRAINT webhook_try_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES webhook_delivery(id) ON DELETE CASCADE;
