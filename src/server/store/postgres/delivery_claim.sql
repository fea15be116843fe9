-- No more than $2 at a time to one webhook: one that hangs does not hold up the others.
WITH next AS MATERIALIZED (
    SELECT d.id FROM webhook_delivery AS d
    WHERE d.state = 'pending' AND d.due_at <= CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)
      AND (SELECT count(*) FROM webhook_delivery AS busy
           WHERE busy.webhook_id = d.webhook_id AND busy.state = 'pending' AND busy.lease_until > CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)) < $2
    ORDER BY d.due_at, d.id
    LIMIT 1
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE webhook_delivery AS d SET fence = fence + 1, tries = tries + 1, due_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $1, lease_until = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $1
FROM next WHERE d.id = next.id
RETURNING d.id, webhook_id, body, fence, tries, tries_before
