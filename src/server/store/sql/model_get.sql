SELECT m.id, m.name, m.metadata, m.state, m.digest, m.created_at, m.committed_at, s.summary
FROM model m LEFT JOIN model_summary s ON s.model_id = m.id
WHERE m.id = $1 AND m.tenant = $2
