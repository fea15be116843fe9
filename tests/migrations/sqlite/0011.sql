BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'0001_first','2026-01-01 00:00:00',1,X'B3E626B8D2D7F8851DA8802100172BBAA6B675BBC192B6084003464D9921A25E9E271F087E591E1E63D14489A2E1FFB2',0);
INSERT INTO "_sqlx_migrations" VALUES(2,'0002_datasets','2026-01-01 00:00:00',1,X'C59333737CABC6F76F0BE61ED4A4BF15C79E6D85F25BF6AFBB356CC9C38462154600A0A546BEE8F520015484696F15CB',0);
INSERT INTO "_sqlx_migrations" VALUES(3,'0003_upload_metadata','2026-01-01 00:00:00',1,X'807A16EF26197AE212992E02CA3807E9C9E8742B4F941168991CAC7387FB2B808E3A3016280F43B409DFD4FB3AA8F8ED',0);
INSERT INTO "_sqlx_migrations" VALUES(4,'0004_tenants','2026-01-01 00:00:00',1,X'8535B11EBD2C3357A5C3588F55DD0D7E3B1F845F9D0AFCE6A6C66C0F2543FF30E16087AB2A8352919583A05D367FE3B1',0);
INSERT INTO "_sqlx_migrations" VALUES(5,'0005_audit','2026-01-01 00:00:00',1,X'817BEEFEA6254DC5AB1D41CBD5FE6D2E098E842DA5519A05864EFBD6AB7B39BAC1AB8828B2C966FC669B91C76D0EACFA',0);
INSERT INTO "_sqlx_migrations" VALUES(6,'0006_checkpoints','2026-01-01 00:00:00',1,X'03D500DE2FF3A908AD1ACA54647AD0E46DA5FB42E533224D1CA5C0E548C69DE90DA67904A8C1386936A538C5B0EE2884',0);
INSERT INTO "_sqlx_migrations" VALUES(7,'0007_webhooks','2026-01-01 00:00:00',1,X'17C815E917CE03B6DFD2AD86603D726DFBDF01560DA3E5EED0254EF0FD5AAE1864B860A3CF3224C9EFFAF4B3F5B88CBE',0);
INSERT INTO "_sqlx_migrations" VALUES(8,'0008_drafts','2026-01-01 00:00:00',1,X'9742CC5DED35813E7008E8E25EE9AA44CB8D2ECA1404911C4673471DC74AD60A709BCF0EF7A641EAA271F059357535D3',0);
INSERT INTO "_sqlx_migrations" VALUES(9,'0009_pulls','2026-01-01 00:00:00',1,X'24EEFB913A8A92AF76A5F214D8ACA186D5E990EC3C7E35FFC3E1C3F987A6BEB304AE2AF0C467B78BAE49308FBC726761',0);
INSERT INTO "_sqlx_migrations" VALUES(10,'0010_turns','2026-01-01 00:00:00',1,X'614CB30A4F7977EC059AEED7A6F0311817B8BD27C88EF26D32292BF2B3F103B192608761D6BDB63D66C11F96C86EE73D',0);
INSERT INTO "_sqlx_migrations" VALUES(11,'0011_searches','2026-01-01 00:00:00',1,X'A15C9790AA7BF437D66AA0E45A21DA41B0AD491CB82BAC0E339D401581AD6DF3908433D5DA36877B3D0619B18A7A9F6D',0);
CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    secret_digest TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER
) STRICT;
INSERT INTO "api_key" VALUES('key_01939a6b2b3c7d0e8f0000000000000b','team-a','ci','models:write jobs:write','d4',1750000000000,NULL,NULL,NULL);
CREATE TABLE artifact (
    id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    model_id TEXT NOT NULL,
    format TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "artifact" VALUES('art_01939a6b2b3c7d0e8f00000000000009','job_01939a6b2b3c7d0e8f00000000000007','mdl_01939a6b2b3c7d0e8f00000000000001','gguf','d2',1750000009000);
CREATE TABLE artifact_file (
    artifact_id TEXT NOT NULL REFERENCES artifact (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (artifact_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "artifact_file" VALUES('art_01939a6b2b3c7d0e8f00000000000009','model.gguf','ad',5);
CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    key_id TEXT,
    action TEXT NOT NULL,
    object TEXT,
    request_id TEXT NOT NULL,
    client TEXT,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "audit" VALUES('aud_01939a6b2b3c7d0e8f0000000000000d','team-a','key_01939a6b2b3c7d0e8f0000000000000b','createModel','mdl_01939a6b2b3c7d0e8f0000000000000c','r1','127.0.0.1',1750000000000);
CREATE TABLE dataset (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    metadata TEXT NOT NULL,
    digest TEXT NOT NULL,
    summary TEXT NOT NULL,
    created_at INTEGER NOT NULL
, tenant TEXT NOT NULL DEFAULT 'default') STRICT;
INSERT INTO "dataset" VALUES('ds_01939a6b2b3c7d0e8f0000000000000a','tickets','{}','d3','{"kind":"txt"}',1750000000000,'default');
CREATE TABLE dataset_file (
    dataset_id TEXT NOT NULL REFERENCES dataset (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (dataset_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "dataset_file" VALUES('ds_01939a6b2b3c7d0e8f0000000000000a','a.txt','af',3);
CREATE TABLE idempotency (
    idempotency_key TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO "idempotency" VALUES('default:once','f1','job_01939a6b2b3c7d0e8f00000000000005',4000000000000);
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
    finished_at INTEGER, tenant TEXT NOT NULL DEFAULT 'default', turn INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT job_attempt_within_cap CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT job_running_has_lease CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT job_running_has_worker CHECK ((state = 'running') = (worker IS NOT NULL)),
    CONSTRAINT job_over_has_end CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT job_failed_has_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
) STRICT;
INSERT INTO "job" VALUES('job_01939a6b2b3c7d0e8f00000000000005','mdl_01939a6b2b3c7d0e8f00000000000001','queued',5,0,0,3,0,NULL,NULL,100,'["rtn"]','default:same',NULL,NULL,NULL,NULL,NULL,0,0,0,0,0.0,0,1,'{}',NULL,1750000002000,NULL,NULL,'default',0);
INSERT INTO "job" VALUES('job_01939a6b2b3c7d0e8f00000000000006','mdl_01939a6b2b3c7d0e8f00000000000001','running',0,0,1,3,1,1750000100000,'worker-a',100,'["ggml"]',NULL,1750000003000,'changed my mind',NULL,NULL,'compress',0,2,5,10,1.5,7,2,'{}','00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',1750000002000,1750000002500,NULL,'default',0);
INSERT INTO "job" VALUES('job_01939a6b2b3c7d0e8f00000000000007','mdl_01939a6b2b3c7d0e8f00000000000001','succeeded',0,0,1,3,1,NULL,NULL,100,'["ggml"]','same',NULL,NULL,NULL,NULL,'verify',1,2,10,10,2.5,9,3,'{"a":"b"}',NULL,1750000002000,1750000002500,1750000009000,'default',0);
INSERT INTO "job" VALUES('job_01939a6b2b3c7d0e8f00000000000008','mdl_01939a6b2b3c7d0e8f00000000000001','failed',0,0,1,3,1,NULL,NULL,100,'[]',NULL,NULL,NULL,'io','the disk failed',NULL,0,0,0,0,0.0,0,1,'{}',NULL,1750000002000,1750000002500,1750000009000,'default',0);
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
INSERT INTO "job_attempt" VALUES('job_01939a6b2b3c7d0e8f00000000000006',1,1,'worker-a',1750000002500,NULL,NULL,NULL,NULL,100,NULL);
INSERT INTO "job_attempt" VALUES('job_01939a6b2b3c7d0e8f00000000000007',1,1,'worker-a',1750000002500,1750000009000,'succeeded',NULL,NULL,100,9);
INSERT INTO "job_attempt" VALUES('job_01939a6b2b3c7d0e8f00000000000008',1,1,'worker-a',1750000002500,1750000009000,'failed','io','the disk failed',100,9);
CREATE TABLE job_body (
    job_id TEXT NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    recipe TEXT NOT NULL,
    plan TEXT NOT NULL
) STRICT;
INSERT INTO "job_body" VALUES('job_01939a6b2b3c7d0e8f00000000000005','"W8A16"','{"z":1,"a":2}');
INSERT INTO "job_body" VALUES('job_01939a6b2b3c7d0e8f00000000000006','"Q4_K_M"','{"version":1}');
INSERT INTO "job_body" VALUES('job_01939a6b2b3c7d0e8f00000000000007','"Q4_K_M"','{"version":1}');
INSERT INTO "job_body" VALUES('job_01939a6b2b3c7d0e8f00000000000008','"Q4_K_M"','{"version":1}');
CREATE TABLE job_checkpoint (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    fence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "job_checkpoint" VALUES('job_01939a6b2b3c7d0e8f00000000000006','block-0',1,'ba',7);
CREATE TABLE job_dataset (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    dataset_id TEXT NOT NULL,
    PRIMARY KEY (job_id, dataset_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "job_dataset" VALUES('job_01939a6b2b3c7d0e8f00000000000005','ds_01939a6b2b3c7d0e8f0000000000000a');
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
INSERT INTO "job_event" VALUES('job_01939a6b2b3c7d0e8f00000000000005',1,'state','info','job is queued','{}',1750000002000);
INSERT INTO "job_event" VALUES('job_01939a6b2b3c7d0e8f00000000000006',1,'state','info','job is queued','{}',1750000002000);
INSERT INTO "job_event" VALUES('job_01939a6b2b3c7d0e8f00000000000006',2,'state','info','job is running','{"attempt":1}',1750000002500);
INSERT INTO "job_event" VALUES('job_01939a6b2b3c7d0e8f00000000000007',1,'message','warning','a line','{}',1750000002500);
CREATE TABLE job_report (
    job_id TEXT NOT NULL PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    report TEXT NOT NULL
) STRICT;
INSERT INTO "job_report" VALUES('job_01939a6b2b3c7d0e8f00000000000007','{"z":1,"ratio":3.5}');
CREATE TABLE model (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    metadata TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'ready')),
    digest TEXT,
    created_at INTEGER NOT NULL,
    committed_at INTEGER, tenant TEXT NOT NULL DEFAULT 'default',
    CONSTRAINT model_ready_is_complete CHECK ((state = 'ready') = (digest IS NOT NULL AND committed_at IS NOT NULL))
) STRICT;
INSERT INTO "model" VALUES('mdl_01939a6b2b3c7d0e8f00000000000001','tiny','{"team":"blue"}','ready','d1',1750000000000,1750000001000,'default');
INSERT INTO "model" VALUES('mdl_01939a6b2b3c7d0e8f00000000000002',NULL,'{}','draft',NULL,1750000000000,NULL,'default');
INSERT INTO "model" VALUES('mdl_01939a6b2b3c7d0e8f0000000000000c','theirs','{}','draft',NULL,1750000000000,NULL,'team-a');
CREATE TABLE model_file (
    model_id TEXT NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (model_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "model_file" VALUES('mdl_01939a6b2b3c7d0e8f00000000000001','model.safetensors','aa',10);
INSERT INTO "model_file" VALUES('mdl_01939a6b2b3c7d0e8f00000000000002','config.json','ab',2);
CREATE TABLE model_pull (
    model_id TEXT NOT NULL PRIMARY KEY REFERENCES model (id) ON DELETE CASCADE,
    source TEXT NOT NULL,
    include TEXT NOT NULL,
    token TEXT,
    revision TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'done', 'failed')),
    fence INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    files INTEGER NOT NULL,
    files_done INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    bytes_done INTEGER NOT NULL,
    note TEXT,
    error_code TEXT,
    error_message TEXT,
    finished_at INTEGER,
    CONSTRAINT model_pull_over_has_end CHECK ((state = 'active') = (finished_at IS NULL)),
    CONSTRAINT model_pull_failed_has_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
) STRICT;
INSERT INTO "model_pull" VALUES('mdl_01939a6b2b3c7d0e8f00000000000002','{"hub":"a/b"}','[]',NULL,'main','active',1,0,1750000009000,NULL,1,0,10,4,NULL,NULL,NULL,NULL);
CREATE TABLE model_pull_file (
    model_id TEXT NOT NULL REFERENCES model_pull (model_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    sha256 TEXT,
    upload_id TEXT NOT NULL,
    PRIMARY KEY (model_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "model_pull_file" VALUES('mdl_01939a6b2b3c7d0e8f00000000000002','config.json','https://example.com/config.json',10,NULL,'upl_01939a6b2b3c7d0e8f00000000000004');
CREATE TABLE model_summary (
    model_id TEXT NOT NULL PRIMARY KEY REFERENCES model (id) ON DELETE CASCADE,
    summary TEXT NOT NULL
) STRICT;
INSERT INTO "model_summary" VALUES('mdl_01939a6b2b3c7d0e8f00000000000001','{"format":"safetensors"}');
CREATE TABLE model_tensor (
    model_id TEXT NOT NULL REFERENCES model (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (model_id, position)
) STRICT, WITHOUT ROWID;
INSERT INTO "model_tensor" VALUES('mdl_01939a6b2b3c7d0e8f00000000000001',0,'a.weight','F32','[2,4]',32);
CREATE TABLE pending_blob (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (job_id, fence, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO "pending_blob" VALUES('job_01939a6b2b3c7d0e8f00000000000006',1,'ae');
CREATE TABLE search (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    model_id TEXT NOT NULL,
    asked TEXT NOT NULL,
    points TEXT NOT NULL,
    metadata TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT,
    created_at INTEGER NOT NULL,
    cancelled_at INTEGER,
    CONSTRAINT search_key_has_fingerprint CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL))
) STRICT;
INSERT INTO "search" VALUES('srch_01939a6b2b3c7d0e8f00000000000001','default','mdl_01939a6b2b3c7d0e8f00000000000001','{"recipes":["Q8_0"]}','[{"name":"Q8_0","recipe":{"preset":"Q8_0"},"job":"job_01939a6b2b3c7d0e8f00000000000001","refusal":null}]','{}','default:once','ab',1750000009000,NULL);
CREATE TABLE upload (
    id TEXT NOT NULL PRIMARY KEY,
    length INTEGER,
    digest TEXT,
    bytes INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, client_metadata TEXT, tenant TEXT NOT NULL DEFAULT 'default',
    CONSTRAINT upload_complete_has_digest CHECK ((digest IS NULL) = (bytes IS NULL))
) STRICT;
INSERT INTO "upload" VALUES('upl_01939a6b2b3c7d0e8f00000000000003',10,'ac',10,1750000000000,4000000000000,NULL,'default');
INSERT INTO "upload" VALUES('upl_01939a6b2b3c7d0e8f00000000000004',NULL,NULL,NULL,1750000000000,4000000000000,'filename YS5iaW4=','default');
CREATE TABLE webhook (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    url TEXT NOT NULL,
    description TEXT,
    topics TEXT NOT NULL,
    secret TEXT NOT NULL,
    old_secret TEXT,
    old_secret_until INTEGER,
    disabled_at INTEGER,
    disabled_reason TEXT,
    last_success_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT webhook_old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT webhook_disabled_has_reason CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) STRICT;
INSERT INTO "webhook" VALUES('wh_01939a6b2b3c7d0e8f0000000000000e','default','https://example.com/hook',NULL,'job.succeeded','whsec_MQ==','whsec_Mg==',1750000009000,NULL,NULL,1750000009000,1750000000000,1750000000000);
CREATE TABLE webhook_delivery (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    topic TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    fence INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    tries_before INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    CONSTRAINT webhook_delivery_over_has_end CHECK ((state = 'pending') = (finished_at IS NULL))
) STRICT;
INSERT INTO "webhook_delivery" VALUES('msg_01939a6b2b3c7d0e8f0000000000000f','wh_01939a6b2b3c7d0e8f0000000000000e','job.succeeded','{}','succeeded',1,1,0,1750000009000,1750000009000,NULL,1750000009000,1750000009500);
INSERT INTO "webhook_delivery" VALUES('msg_01939a6b2b3c7d0e8f00000000000010','wh_01939a6b2b3c7d0e8f0000000000000e','job.failed','{}','pending',2,1,0,1750000009000,1750000019000,NULL,1750000009000,NULL);
CREATE TABLE webhook_try (
    delivery_id TEXT NOT NULL REFERENCES webhook_delivery (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status INTEGER,
    response TEXT,
    error TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "webhook_try" VALUES('msg_01939a6b2b3c7d0e8f0000000000000f',1,1750000009000,12,200,'ok',NULL);
INSERT INTO "webhook_try" VALUES('msg_01939a6b2b3c7d0e8f00000000000010',1,1750000009000,30,NULL,NULL,'timeout');
CREATE INDEX model_file_digest ON model_file (digest);
CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL;
CREATE INDEX upload_expiry ON upload (expires_at);
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE UNIQUE INDEX job_live_dedupe ON job (dedupe_key) WHERE state IN ('queued', 'running');
CREATE INDEX job_over ON job (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE TRIGGER job_over_is_immutable BEFORE UPDATE ON job
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'job is over');
END;
CREATE INDEX artifact_by_job ON artifact (job_id);
CREATE INDEX artifact_file_digest ON artifact_file (digest);
CREATE INDEX pending_blob_digest ON pending_blob (digest);
CREATE INDEX idempotency_by_job ON idempotency (job_id);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
CREATE INDEX dataset_file_digest ON dataset_file (digest);
CREATE INDEX job_dataset_by_dataset ON job_dataset (dataset_id);
CREATE INDEX model_by_tenant ON model (tenant, id);
CREATE INDEX dataset_by_tenant ON dataset (tenant, id);
CREATE INDEX job_by_tenant ON job (tenant, id);
CREATE INDEX job_by_state ON job (state, tenant, id);
CREATE INDEX job_by_model ON job (model_id, id);
CREATE INDEX api_key_by_tenant ON api_key (tenant, id);
CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_age ON audit (created_at);
CREATE INDEX job_checkpoint_digest ON job_checkpoint (digest);
CREATE INDEX webhook_by_tenant ON webhook (tenant, id);
CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at, id) WHERE state = 'pending';
CREATE INDEX webhook_delivery_by_webhook ON webhook_delivery (webhook_id, id);
CREATE INDEX webhook_delivery_busy ON webhook_delivery (webhook_id, lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX webhook_delivery_over ON webhook_delivery (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX model_draft ON model (created_at) WHERE state = 'draft';
CREATE INDEX model_pull_due ON model_pull (due_at, model_id) WHERE state = 'active';
CREATE INDEX job_ready ON job (priority DESC, turn, id) WHERE state = 'queued';
CREATE INDEX job_turn ON job (tenant, priority, turn) WHERE state = 'queued';
CREATE INDEX job_served ON job (priority, turn) WHERE state = 'running';
CREATE INDEX search_by_tenant ON search (tenant, id);
CREATE UNIQUE INDEX search_key ON search (idempotency_key);
CREATE INDEX search_by_age ON search (created_at);
COMMIT;
