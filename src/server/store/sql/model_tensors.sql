SELECT name, dtype, shape, bytes FROM model_tensor
WHERE model_id = (SELECT id FROM model WHERE id = $1 AND tenant = $4) AND position >= $2
ORDER BY position
LIMIT $3
