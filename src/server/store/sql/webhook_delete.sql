DELETE FROM webhook WHERE id = $1 AND tenant = $2
