INSERT INTO job_dataset (job_id, dataset_id) VALUES ($1, $2)
