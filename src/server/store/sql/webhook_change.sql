UPDATE webhook SET url = $2, description = $3, topics = $4, disabled_at = $5, disabled_reason = $6, updated_at = $7
WHERE id = $1
