INSERT INTO job_checkpoint (job_id, name, fence, digest, bytes)
SELECT $1, f.name, $2, f.digest, f.bytes
FROM jsonb_to_recordset(CAST($3 AS jsonb)) AS f (name text, digest text, bytes bigint)
