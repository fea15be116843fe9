SELECT f.name, f.origin, f.bytes, f.sha256, f.upload_id, m.digest FROM model_pull_file f
LEFT JOIN model_file m ON m.model_id = f.model_id AND m.name = f.name
WHERE f.model_id = $1
ORDER BY f.name
