SELECT CAST(COALESCE(sum(made.bytes), 0) AS BIGINT) AS artifact_bytes,
    CAST(COALESCE(sum(made.source), 0) AS BIGINT) AS source_bytes
FROM (
    SELECT (SELECT sum(f.bytes) FROM artifact_file f WHERE f.artifact_id = a.id) AS bytes,
        (SELECT sum(m.bytes) FROM model_file m WHERE m.model_id = a.model_id) AS source
    FROM artifact a JOIN job j ON j.id = a.job_id
    WHERE j.tenant = $1
) AS made
WHERE made.source IS NOT NULL
