INSERT INTO pending_blob (job_id, fence, digest)
SELECT $1, $2, d.digest FROM jsonb_array_elements_text(CAST($3 AS jsonb)) AS d (digest)
ON CONFLICT DO NOTHING
