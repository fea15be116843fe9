-- No more than $2 at a time to one webhook: one that hangs does not hold up the others.
UPDATE webhook_delivery SET fence = fence + 1, tries = tries + 1, due_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $1, lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $1
WHERE id = (
    SELECT d.id FROM webhook_delivery AS d
    WHERE d.state = 'pending' AND d.due_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
      AND (SELECT count(*) FROM webhook_delivery AS busy
           WHERE busy.webhook_id = d.webhook_id AND busy.state = 'pending' AND busy.lease_until > CAST(unixepoch('subsec') * 1000 AS INTEGER)) < $2
    ORDER BY d.due_at, d.id
    LIMIT 1
)
RETURNING id, webhook_id, body, fence, tries, tries_before
