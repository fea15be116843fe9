SELECT delivery_id, number, started_at, duration_ms, status, response, error FROM webhook_try
WHERE delivery_id IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))
ORDER BY delivery_id, number
