SELECT id FROM dataset WHERE id = $1
