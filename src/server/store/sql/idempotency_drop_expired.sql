DELETE FROM idempotency WHERE idempotency_key = $1 AND expires_at <= $2
