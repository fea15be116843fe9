UPDATE job_attempt SET ended_at = $3, outcome = $4, error_code = $5, error_message = $6, peak_memory_bytes = $7
WHERE job_id = $1 AND fence = $2 AND ended_at IS NULL
