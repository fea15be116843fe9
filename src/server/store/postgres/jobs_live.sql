SELECT id FROM job WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))) AND state IN ('queued', 'running')
