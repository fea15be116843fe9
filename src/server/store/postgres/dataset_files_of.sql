SELECT dataset_id, name, digest, bytes FROM dataset_file
WHERE dataset_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS jsonb))))
ORDER BY dataset_id, name
