UPDATE webhook_delivery SET state = 'pending', fence = fence + 1, tries_before = tries, begun_at = $3, due_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint),
    lease_until = NULL, finished_at = NULL
WHERE id = $1 AND webhook_id = $2
