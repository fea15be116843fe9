INSERT INTO model (id, name, metadata, state, digest, created_at, committed_at, tenant)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
