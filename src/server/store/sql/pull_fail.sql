UPDATE model_pull SET state = 'failed', token = NULL, lease_until = NULL, note = NULL, error_code = $3, error_message = $4, finished_at = $5
WHERE model_id = $1 AND fence = $2 AND state = 'active'
