SELECT delivery_id, number, started_at, duration_ms, status, response, error FROM webhook_try
WHERE delivery_id IN (SELECT value FROM json_each($1))
ORDER BY delivery_id, number
