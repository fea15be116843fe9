DELETE FROM dataset WHERE id = $1
