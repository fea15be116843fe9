UPDATE search SET cancelled_at = $3 WHERE id = $1 AND tenant = $2 AND cancelled_at IS NULL
