UPDATE webhook_delivery SET state = $3, due_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $4, lease_until = NULL, finished_at = $5
WHERE id = $1 AND fence = $2 AND state = 'pending' AND lease_until IS NOT NULL
RETURNING begun_at
