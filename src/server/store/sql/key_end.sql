UPDATE api_key SET expires_at = $3 WHERE id = $1 AND tenant = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
