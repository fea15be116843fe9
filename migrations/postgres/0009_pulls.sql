-- Models that are brought from elsewhere: what was asked for, how far it is, what it came to. Such a model is a draft
-- until all of its files are there. due_at and lease_until are by the database's clock, the other times by the server's.
-- A token is sealed with the server's secret, and dropped at the end.
CREATE TABLE model_pull (
    model_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES model (id) ON DELETE CASCADE,
    source TEXT COLLATE "C" NOT NULL,
    include TEXT COLLATE "C" NOT NULL,
    token TEXT COLLATE "C",
    revision TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'done', 'failed')),
    fence BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    lease_until BIGINT,
    files BIGINT NOT NULL,
    files_done BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    bytes_done BIGINT NOT NULL,
    note TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    error_message TEXT COLLATE "C",
    finished_at BIGINT,
    CONSTRAINT model_pull_over_has_end CHECK ((state = 'active') = (finished_at IS NULL)),
    CONSTRAINT model_pull_failed_has_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
);
CREATE INDEX model_pull_due ON model_pull (due_at, model_id) WHERE state = 'active';

-- What is to be brought. upload_id holds the bytes on their way: it is among the tenant's uploads until they are a file.
CREATE TABLE model_pull_file (
    model_id TEXT COLLATE "C" NOT NULL REFERENCES model_pull (model_id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    sha256 TEXT COLLATE "C",
    upload_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (model_id, name)
);
