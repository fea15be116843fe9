SELECT worker, count(*) AS jobs, max(lease_until) AS lease_until FROM job WHERE state = 'running' GROUP BY worker ORDER BY worker
