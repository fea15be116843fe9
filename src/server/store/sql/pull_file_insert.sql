INSERT INTO model_pull_file (model_id, name, origin, bytes, sha256, upload_id) VALUES ($1, $2, $3, $4, $5, $6)
