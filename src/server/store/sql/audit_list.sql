SELECT id, key_id, action, object, request_id, client, created_at FROM audit
WHERE tenant = $3 AND id < $1
ORDER BY id DESC
LIMIT $2
