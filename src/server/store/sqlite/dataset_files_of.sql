SELECT dataset_id, name, digest, bytes FROM dataset_file
WHERE dataset_id IN (SELECT value FROM json_each($1))
ORDER BY dataset_id, name
