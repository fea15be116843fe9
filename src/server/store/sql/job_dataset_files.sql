SELECT d.dataset_id, f.name, f.digest, f.bytes
FROM job_dataset d JOIN dataset_file f ON f.dataset_id = d.dataset_id
WHERE d.job_id = $1
ORDER BY d.dataset_id, f.name
