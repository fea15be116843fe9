SELECT id, webhook_id, topic, body, state, due_at, created_at, finished_at FROM webhook_delivery WHERE id = $1 AND webhook_id = $2
