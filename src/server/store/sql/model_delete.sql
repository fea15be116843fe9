DELETE FROM model WHERE id = $1
