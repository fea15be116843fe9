-- Who changed what; rows are added, and dropped when they are old.
CREATE TABLE audit (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C",
    action TEXT COLLATE "C" NOT NULL,
    object TEXT COLLATE "C",
    request_id TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C",
    created_at BIGINT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_age ON audit (created_at);
