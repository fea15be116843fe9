INSERT INTO dataset (id, name, metadata, digest, summary, created_at, tenant) VALUES ($1, $2, $3, $4, $5, $6, $7)
