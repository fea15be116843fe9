DELETE FROM upload WHERE id IN (SELECT upload_id FROM model_pull_file WHERE model_id = $1)
