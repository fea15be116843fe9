SELECT 1 AS one FROM job_dataset d JOIN job j ON j.id = d.job_id
WHERE d.dataset_id = $1 AND j.state IN ('queued', 'running')
LIMIT 1
