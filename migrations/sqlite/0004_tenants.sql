-- Whose a row is. What was there before is the tenant's whose things are used without a key.
ALTER TABLE model ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE dataset ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE upload ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE job ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';

DROP INDEX job_by_state;
DROP INDEX job_by_model;
CREATE INDEX model_by_tenant ON model (tenant, id);
CREATE INDEX dataset_by_tenant ON dataset (tenant, id);
CREATE INDEX job_by_tenant ON job (tenant, id);
CREATE INDEX job_by_state ON job (state, tenant, id);
CREATE INDEX job_by_model ON job (model_id, id);

-- A tenant's word for a request is nobody else's; a name holds no colon.
UPDATE idempotency SET idempotency_key = 'default:' || idempotency_key;
UPDATE job SET dedupe_key = 'default:' || dedupe_key
WHERE dedupe_key IS NOT NULL AND state IN ('queued', 'running');

-- A digest of the secret, never the secret. Scopes are words, separated by blanks.
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
CREATE INDEX api_key_by_tenant ON api_key (tenant, id);
