DELETE FROM model_file WHERE model_id = $1
