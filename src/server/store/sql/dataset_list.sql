SELECT id, name, metadata, digest, summary, created_at FROM dataset WHERE tenant = $3 AND id < $1 ORDER BY id DESC LIMIT $2
