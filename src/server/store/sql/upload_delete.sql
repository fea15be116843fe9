DELETE FROM upload WHERE id = $1 AND tenant = $2
