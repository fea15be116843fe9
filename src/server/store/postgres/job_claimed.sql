-- What a claim writes and brings besides the job's row, in one round trip: the attempt and its event; the plan, the files of
-- the model, of the datasets and of the checkpoint, and whether a webhook may have to be told.
WITH attempt AS (
    INSERT INTO job_attempt (job_id, fence, attempt, worker, started_at, need_memory_bytes) VALUES ($1, $3, $4, $5, $6, $7)
), event AS (
    INSERT INTO job_event (job_id, seq, kind, level, message, data, created_at) VALUES ($1, $8, $9, $10, $11, $12, $6)
)
SELECT 'plan' AS part, b.plan AS plan, CAST(NULL AS text) AS dataset, CAST(NULL AS bigint) AS fence, CAST(NULL AS text) AS name,
    CAST(NULL AS text) AS digest, CAST(NULL AS bigint) AS bytes
FROM job_body b WHERE b.job_id = $1
UNION ALL
SELECT 'model', NULL, NULL, NULL, f.name, f.digest, f.bytes FROM model_file f WHERE f.model_id = $2
UNION ALL
SELECT 'dataset', NULL, d.dataset_id, NULL, f.name, f.digest, f.bytes
FROM job_dataset d JOIN dataset_file f ON f.dataset_id = d.dataset_id WHERE d.job_id = $1
UNION ALL
SELECT 'checkpoint', NULL, NULL, c.fence, c.name, c.digest, c.bytes FROM job_checkpoint c WHERE c.job_id = $1
UNION ALL
SELECT 'webhook', NULL, NULL, NULL, NULL, NULL, NULL FROM job j
WHERE j.id = $1 AND EXISTS (SELECT 1 FROM webhook w WHERE w.tenant = j.tenant AND w.disabled_at IS NULL)
ORDER BY part, dataset, name
