SELECT name, dtype, shape, bytes FROM model_tensor
WHERE model_id = $1 AND position >= $2
ORDER BY position
LIMIT $3
