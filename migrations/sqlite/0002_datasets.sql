-- Datasets are complete when they are recorded and never change.
-- migrations/postgres has the same tables, columns and indexes; a test compares them.

CREATE TABLE dataset (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    metadata TEXT NOT NULL,
    digest TEXT NOT NULL,
    summary TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE dataset_file (
    dataset_id TEXT NOT NULL REFERENCES dataset (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (dataset_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_file_digest ON dataset_file (digest);

-- What a job reads. dataset_id is history: a dataset may go when its jobs are over.
CREATE TABLE job_dataset (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    dataset_id TEXT NOT NULL,
    PRIMARY KEY (job_id, dataset_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_dataset_by_dataset ON job_dataset (dataset_id);
