INSERT INTO webhook (id, tenant, url, description, topics, secret, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
