SELECT name, digest, bytes FROM artifact_file WHERE artifact_id = $1 ORDER BY name
