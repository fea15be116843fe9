-- What an attempt leaves in the blob store for the next one, on whichever machine that is. All rows of a job are of one
-- moment of one attempt, the one with that fence.
-- migrations/postgres has the same tables, columns and indexes; a test compares them.

CREATE TABLE job_checkpoint (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    fence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_checkpoint_digest ON job_checkpoint (digest);
