UPDATE model SET state = 'ready', digest = $2, committed_at = $3 WHERE id = $1 AND state = 'draft'
