SELECT id, job_id, model_id, format, digest, created_at FROM artifact WHERE id = $1
