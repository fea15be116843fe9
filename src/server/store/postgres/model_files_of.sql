SELECT model_id, name, digest, bytes FROM model_file
WHERE model_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS jsonb))))
ORDER BY model_id, name
