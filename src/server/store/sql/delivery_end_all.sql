UPDATE webhook_delivery SET state = 'failed', fence = fence + 1, lease_until = NULL, finished_at = $2
WHERE webhook_id = $1 AND state = 'pending'
