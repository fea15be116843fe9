UPDATE upload SET digest = $2, bytes = $3 WHERE id = $1 AND tenant = $4
