UPDATE idempotency SET job_id = $2 WHERE idempotency_key = $1
