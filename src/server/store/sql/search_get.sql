SELECT id, model_id, asked, points, metadata, created_at, cancelled_at FROM search WHERE id = $1 AND tenant = $2
