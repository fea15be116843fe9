SELECT upload_id FROM model_pull_file WHERE model_id = $1 ORDER BY upload_id
