UPDATE model_pull SET lease_until = NULL, due_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $3, failures = $4, note = $5
WHERE model_id = $1 AND fence = $2 AND state = 'active'
