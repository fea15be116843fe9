SELECT id FROM dataset WHERE id = $1 AND tenant = $2
