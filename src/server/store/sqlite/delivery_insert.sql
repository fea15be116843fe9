INSERT INTO webhook_delivery (id, webhook_id, topic, body, state, fence, tries, tries_before, begun_at, due_at, created_at)
VALUES ($1, $2, $3, $4, 'pending', 0, 0, 0, $5, CAST(unixepoch('subsec') * 1000 AS INTEGER), $5)
