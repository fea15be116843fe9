SELECT state FROM model WHERE id = $1 FOR SHARE
