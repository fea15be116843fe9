DELETE FROM search WHERE id IN (SELECT id FROM search WHERE created_at < $1 ORDER BY created_at LIMIT $2)
