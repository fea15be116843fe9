-- Searches: several recipes on one model, each a job. Points are their list, with the jobs' identifiers: a job may go when it
-- is old, its point stays. A key of the client's makes one search for as long as that is kept.
CREATE TABLE search (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    model_id TEXT COLLATE "C" NOT NULL,
    asked TEXT NOT NULL,
    points TEXT NOT NULL,
    metadata TEXT NOT NULL,
    idempotency_key TEXT COLLATE "C",
    fingerprint TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    cancelled_at BIGINT,
    CONSTRAINT search_key_has_fingerprint CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL))
);
CREATE INDEX search_by_tenant ON search (tenant, id);
CREATE UNIQUE INDEX search_key ON search (idempotency_key);
CREATE INDEX search_by_age ON search (created_at);
