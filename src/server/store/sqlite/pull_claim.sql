UPDATE model_pull SET fence = fence + 1, lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $1
WHERE model_id = (
    SELECT model_id FROM model_pull
    WHERE state = 'active' AND due_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER) AND (lease_until IS NULL OR lease_until <= CAST(unixepoch('subsec') * 1000 AS INTEGER))
    ORDER BY due_at, model_id
    LIMIT 1
)
RETURNING model_id, fence, source, include, token, revision, failures, bytes_done,
    (SELECT tenant FROM model WHERE model.id = model_pull.model_id) AS tenant
