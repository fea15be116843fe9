UPDATE model_pull SET lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3, files_done = $4, bytes_done = $5
WHERE model_id = $1 AND fence = $2 AND state = 'active'
