SELECT fingerprint, job_id, expires_at FROM idempotency WHERE idempotency_key = $1
