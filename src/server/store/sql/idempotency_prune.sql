DELETE FROM idempotency WHERE idempotency_key IN (
    SELECT idempotency_key FROM idempotency WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
)
