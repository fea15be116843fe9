UPDATE model_pull SET lease_until = NULL, due_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3, failures = $4, note = $5
WHERE model_id = $1 AND fence = $2 AND state = 'active'
