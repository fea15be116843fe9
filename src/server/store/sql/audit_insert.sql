INSERT INTO audit (id, tenant, key_id, action, object, request_id, client, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
