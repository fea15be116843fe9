SELECT id, webhook_id, topic, body, state, due_at, created_at, finished_at FROM webhook_delivery
WHERE webhook_id = $1 AND id < $2
ORDER BY id DESC
LIMIT $3
