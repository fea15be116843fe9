DELETE FROM webhook_delivery WHERE id IN (
    SELECT id FROM webhook_delivery WHERE finished_at < $1 ORDER BY finished_at LIMIT $2
)
