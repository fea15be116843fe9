UPDATE model_pull SET revision = $3, files = $4, bytes = $5
WHERE model_id = $1 AND fence = $2 AND state = 'active'
