SELECT CAST(
    COALESCE((SELECT sum(f.bytes) FROM model_file f JOIN model m ON m.id = f.model_id WHERE m.tenant = $1), 0)
    + COALESCE((SELECT sum(f.bytes) FROM dataset_file f JOIN dataset d ON d.id = f.dataset_id WHERE d.tenant = $1), 0)
    + COALESCE((SELECT sum(f.bytes) FROM artifact_file f JOIN artifact a ON a.id = f.artifact_id
                JOIN job j ON j.id = a.job_id WHERE j.tenant = $1), 0)
    + COALESCE((SELECT sum(COALESCE(u.bytes, u.length, 0)) FROM upload u WHERE u.tenant = $1), 0)
AS BIGINT) AS bytes
