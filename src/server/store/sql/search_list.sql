SELECT id, model_id, asked, points, metadata, created_at, cancelled_at FROM search WHERE tenant = $3 AND id < $1 ORDER BY id DESC LIMIT $2
