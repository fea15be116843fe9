SELECT m.id, m.name, m.metadata, m.state, m.digest, m.created_at, m.committed_at, s.summary
FROM model m LEFT JOIN model_summary s ON s.model_id = m.id
WHERE m.tenant = $3 AND m.id < $1
ORDER BY m.id DESC
LIMIT $2
