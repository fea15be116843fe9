SELECT name, digest, bytes FROM model_file WHERE model_id = $1 AND name = $2
