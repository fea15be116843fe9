INSERT INTO idempotency (idempotency_key, fingerprint, job_id, expires_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (idempotency_key) DO NOTHING
