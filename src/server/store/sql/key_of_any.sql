SELECT id, tenant, name, scopes, secret_digest, created_at, expires_at, last_used_at, revoked_at FROM api_key WHERE id = $1
