SELECT name, digest, bytes FROM dataset_file WHERE dataset_id = $1 ORDER BY name
