SELECT model_id, name, digest, bytes FROM model_file
WHERE model_id IN (SELECT value FROM json_each($1))
ORDER BY model_id, name
