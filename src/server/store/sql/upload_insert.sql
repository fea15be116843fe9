INSERT INTO upload (id, length, client_metadata, digest, bytes, created_at, expires_at, tenant)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
