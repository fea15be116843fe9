SELECT state FROM model WHERE id = $1 AND tenant = $2 FOR UPDATE
