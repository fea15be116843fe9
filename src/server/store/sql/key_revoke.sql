UPDATE api_key SET revoked_at = $3 WHERE id = $1 AND tenant = $2 AND revoked_at IS NULL
