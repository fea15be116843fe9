UPDATE upload SET length = $2 WHERE id = $1 AND tenant = $3 AND length IS NULL AND digest IS NULL
