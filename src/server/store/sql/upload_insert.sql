INSERT INTO upload (id, length, digest, bytes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
