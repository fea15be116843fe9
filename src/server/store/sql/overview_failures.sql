SELECT error_code, count(*) AS jobs FROM job
WHERE tenant = $1 AND state = 'failed' AND finished_at >= $2
GROUP BY error_code
ORDER BY count(*) DESC, error_code
LIMIT 20
