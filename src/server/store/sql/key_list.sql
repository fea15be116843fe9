SELECT id, tenant, name, scopes, secret_digest, created_at, expires_at, last_used_at, revoked_at FROM api_key WHERE tenant = $3 AND id < $1 ORDER BY id DESC LIMIT $2
