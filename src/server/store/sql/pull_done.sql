UPDATE model_pull SET state = 'done', token = NULL, lease_until = NULL, note = NULL, files_done = files, bytes_done = bytes, finished_at = $2
WHERE model_id = $1 AND state = 'active'
