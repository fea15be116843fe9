SELECT id, tenant, url, description, topics, secret, old_secret, old_secret_until, disabled_at, disabled_reason, last_success_at,
    created_at, updated_at
FROM webhook WHERE tenant = $3 AND id < $1 ORDER BY id DESC LIMIT $2
