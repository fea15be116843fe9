SELECT id, name, metadata, digest, summary, created_at FROM dataset WHERE id = $1 AND tenant = $2
