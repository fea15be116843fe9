INSERT INTO search (id, tenant, model_id, asked, points, metadata, idempotency_key, fingerprint, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (idempotency_key) DO NOTHING
