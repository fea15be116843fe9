-- Models that are brought from elsewhere: what was asked for, how far it is, what it came to. Such a model is a draft
-- until all of its files are there. due_at and lease_until are by the database's clock, the other times by the server's.
-- A token is sealed with the server's secret, and dropped at the end.
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
CREATE INDEX model_pull_due ON model_pull (due_at, model_id) WHERE state = 'active';

-- What is to be brought. upload_id holds the bytes on their way: it is among the tenant's uploads until they are a file.
CREATE TABLE model_pull_file (
    model_id TEXT NOT NULL REFERENCES model_pull (model_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    sha256 TEXT,
    upload_id TEXT NOT NULL,
    PRIMARY KEY (model_id, name)
) STRICT, WITHOUT ROWID;
