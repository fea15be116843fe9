-- What a claim brings besides the job's row, in one round trip: the plan, and the files of its model, of its datasets and
-- of the checkpoint.
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
ORDER BY part, dataset, name
