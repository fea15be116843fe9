DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE created_at < $1 ORDER BY created_at LIMIT $2)
