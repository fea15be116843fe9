DELETE FROM model WHERE id IN (
    SELECT m.id FROM model m
    WHERE m.state = 'draft' AND m.created_at < $1
        AND NOT EXISTS (SELECT 1 FROM model_pull p WHERE p.model_id = m.id AND p.state = 'active')
    ORDER BY m.created_at LIMIT $2
)
