DELETE FROM job WHERE id IN (
    SELECT id FROM job WHERE state = $1 AND finished_at < $2 ORDER BY finished_at LIMIT $3
)
