SELECT id, tenant, url, description, topics, secret, old_secret, old_secret_until, disabled_at, disabled_reason, last_success_at,
    created_at, updated_at
FROM webhook WHERE id = $1
FOR NO KEY UPDATE
