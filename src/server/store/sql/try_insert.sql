INSERT INTO webhook_try (delivery_id, number, started_at, duration_ms, status, response, error)
VALUES ($1, $2, $3, $4, $5, $6, $7)
