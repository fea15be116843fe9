INSERT INTO api_key (id, tenant, name, scopes, secret_digest, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
