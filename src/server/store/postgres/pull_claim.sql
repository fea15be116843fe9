WITH next AS MATERIALIZED (
    SELECT model_id FROM model_pull
    WHERE state = 'active' AND due_at <= CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AND (lease_until IS NULL OR lease_until <= CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint))
    ORDER BY due_at, model_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE model_pull AS p SET fence = p.fence + 1, lease_until = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $1
FROM next, model AS m WHERE p.model_id = next.model_id AND m.id = p.model_id
RETURNING p.model_id, p.fence, p.source, p.include, p.token, p.revision, p.failures, p.bytes_done, m.tenant
