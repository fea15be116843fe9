INSERT INTO model_file (model_id, name, digest, bytes) VALUES ($1, $2, $3, $4)
ON CONFLICT (model_id, name) DO UPDATE SET digest = excluded.digest, bytes = excluded.bytes
