SELECT id FROM job
WHERE model_id = $1 AND dedupe_key = $2 AND tenant = $3 AND state = 'succeeded'
ORDER BY id DESC
LIMIT 1
