SELECT id, length, client_metadata, digest, bytes, created_at, expires_at FROM upload WHERE id = $1 AND tenant = $2
