INSERT INTO job_report (job_id, report) VALUES ($1, $2)
