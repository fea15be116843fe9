INSERT INTO pending_blob (job_id, fence, digest)
SELECT $1, $2, value FROM json_each($3) WHERE true
ON CONFLICT DO NOTHING
