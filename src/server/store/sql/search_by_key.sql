SELECT id, fingerprint FROM search WHERE idempotency_key = $1
